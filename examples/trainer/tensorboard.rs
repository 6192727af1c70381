//! Event files of TensorBoard, with the tags of Stable-Baselines3.
//!
//! A file is a sequence of records: the length of the data (u64), a masked CRC-32C of the length, the data, a masked CRC-32C of the
//! data; all little-endian. The data is an `Event` message of Protocol Buffers, of which four fields are used:
//! `wall_time` (1, double), `step` (2, int64), `file_version` (3, string) and `summary` (5, a list of tags and floats).

use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use phalanx::bounded;
use phalanx::files::{AppendFile, write_atomically};

use crate::metrics::Row;

/// Content of the first event of a file.
const VERSION: &str = "brain.Event:2";

/// Largest file that is read, in bytes: a million iterations.
const MOST_BYTES: u64 = 1 << 30;

/// Added to the rotated checksum, so that the checksum of data that holds checksums stays useful.
const MASK: u32 = 0xa282_ead8;

/// Wire types of Protocol Buffers.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Appends one event per iteration, whose step is the number of environment steps.
pub struct Writer(AppendFile);

impl Writer {
    /// Opens the file to continue after `rows`, the iterations that training goes on from. Later events and an incomplete last one are
    /// removed: their iterations are repeated. Events that are missing, as in a run of an earlier version, are added.
    pub fn resume(path: &Path, rows: &[Row]) -> Result<Self> {
        let steps = rows.last().map_or(0, |row| row.env_steps);
        let mut bytes = match path.exists() {
            true => bounded::read(path, MOST_BYTES)?,
            false => Vec::new(),
        };
        let events = events(&bytes);
        let kept = events.iter().take_while(|event| event.step <= steps).last();
        let written = kept.map_or(0, |event| event.step);
        bytes.truncate(kept.map_or(0, |event| event.end));
        let seconds = rows.last().map_or(0.0, |row| row.seconds);
        let began = now() - seconds;
        if bytes.is_empty() {
            bytes = record(&version(began));
        }
        for row in rows.iter().filter(|row| row.env_steps > written) {
            bytes.extend(record(&scalars(began + row.seconds, row.env_steps, &tags(row))));
        }
        write_atomically(path, &bytes)?;
        Ok(Self(AppendFile::open(path)?))
    }

    pub fn write(&mut self, row: &Row) -> Result<()> {
        let bytes = record(&scalars(now(), row.env_steps, &tags(row)));
        self.0.write_all(&bytes).context("writing the TensorBoard events")
    }

    /// Writes everything to disk.
    pub fn sync(&mut self) -> Result<()> {
        self.0.sync().context("writing the TensorBoard events")
    }
}

/// Checks that a file is whole and that its last event is that of `steps` environment steps.
pub fn check(path: &Path, steps: u64) -> Result<()> {
    let bytes = bounded::read(path, MOST_BYTES)?;
    let events = events(&bytes);
    let (end, last) = events.last().map_or((0, 0), |event| (event.end, event.step));
    ensure!(end == bytes.len(), "{}: the record at byte {end} is damaged", path.display());
    if last != steps {
        bail!("{}: the last event is of step {last}, not of {steps}", path.display());
    }
    Ok(())
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Tags and values of an iteration; those that are not known in it are left out.
fn tags(row: &Row) -> Vec<(&'static str, f32)> {
    let all = [
        ("rollout/ep_rew_mean", row.running_return),
        ("rollout/ep_len_mean", row.mean_length),
        ("time/fps", Some(row.steps_per_second)),
        ("time/iterations", Some(f64::from(row.iteration))),
        ("time/time_elapsed", Some(row.seconds)),
        ("time/total_timesteps", Some(row.env_steps as f64)),
        ("train/approx_kl", Some(row.approx_kl.into())),
        ("train/clip_fraction", Some(row.clip_fraction.into())),
        ("train/entropy_loss", Some((-row.entropy).into())),
        ("train/explained_variance", row.explained_variance),
        ("train/learning_rate", Some(row.learning_rate.into())),
        ("train/policy_gradient_loss", Some(row.policy_loss.into())),
        ("train/value_loss", Some(row.value_loss.into())),
        ("train/actor_grad_norm", Some(row.actor_grad_norm.into())),
        ("train/critic_grad_norm", Some(row.critic_grad_norm.into())),
        ("train/loss_scale", Some(row.loss_scale.into())),
        ("eval/mean_reward", row.evaluation),
        ("eval/mean_reward_sampled", row.evaluation_sampled),
    ];
    all.into_iter().filter_map(|(tag, value)| Some((tag, value? as f32))).collect()
}

/// An event with the version of the format.
fn version(wall_time: f64) -> Vec<u8> {
    let mut event = start(wall_time);
    put_bytes(&mut event, 3, VERSION.as_bytes());
    event
}

/// An event with scalars.
fn scalars(wall_time: f64, step: u64, values: &[(&str, f32)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, tag.as_bytes());
        put_varint(&mut entry, 2 << 3 | FIXED32);
        entry.extend(value.to_le_bytes());
        put_bytes(&mut summary, 1, &entry);
    }
    let mut event = start(wall_time);
    put_varint(&mut event, 2 << 3 | VARINT);
    put_varint(&mut event, step);
    put_bytes(&mut event, 5, &summary);
    event
}

fn start(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    put_varint(&mut event, 1 << 3 | FIXED64);
    event.extend(wall_time.to_le_bytes());
    event
}

fn put_bytes(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(message, field << 3 | BYTES);
    put_varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length, &masked(&length) as &[u8], data, &masked(data)].concat()
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK).to_le_bytes()
}

/// An event in a file.
struct Event {
    step: u64,
    /// Byte at which its record ends.
    end: usize,
}

/// The events up to the first record that is incomplete or damaged; none if the first event is not the version.
fn events(bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut rest = bytes;
    while let Some((data, after)) = next_record(rest) {
        let Some(step) = step(data, events.is_empty()) else { break };
        rest = after;
        events.push(Event { step, end: bytes.len() - rest.len() });
    }
    events
}

/// The data of the first record, and the bytes after it.
fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let (data, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let (data_checksum, rest) = rest.split_first_chunk::<4>()?;
    (*checksum == masked(length) && *data_checksum == masked(data)).then_some((data, rest))
}

/// The step of an event; that of the first, which has to be the version, is 0. `None` if it is no event.
fn step(data: &[u8], first: bool) -> Option<u64> {
    let (mut step, mut is_version) = (0, false);
    let mut rest = data;
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (2, VARINT) => step = take_varint(&mut rest)?,
            (_, VARINT) => drop(take_varint(&mut rest)?),
            (_, FIXED64) => drop(take(&mut rest, 8)?),
            (_, FIXED32) => drop(take(&mut rest, 4)?),
            (field, BYTES) => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                let content = take(&mut rest, length)?;
                is_version |= field == 3 && content == VERSION.as_bytes();
            }
            _ => return None,
        }
    }
    (is_version == first).then_some(step)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[path = "tensorboard_tests.rs"]
mod tests;
