//! The parts of the trainer's buffers that a snapshot contains, each with a check of its saved bytes.

use std::sync::Arc;

use safetensors::tensor::Dtype;

use crate::env::{HostState, State};
use crate::mappo::Trainer;
use crate::model::envelope::all_finite;
use crate::nn::Precision;
use crate::nn::forward::Memory;
use crate::ppo::loss_scale::LossScale;
use crate::ppo::{adamw, scalars};

/// Maximum number of iterations of a run, the limit of the setting `iterations`.
pub(super) const MAX_ITERATIONS: u32 = 1_000_000_000;

/// Largest step count that an f32 represents exactly.
const MAX_STEPS: f32 = 16_777_216.0;

type Check = Box<dyn Fn(&[u8]) -> Result<(), String>>;

/// A part of a buffer that belongs to a snapshot.
pub(super) struct Part {
    pub name: String,
    pub dtype: Dtype,
    pub buffer: wgpu::Buffer,
    pub offset: u64,
    pub bytes: u64,
    /// Validates saved bytes of the right length.
    pub check: Check,
}

impl Trainer {
    /// The parts of the buffers that the next iteration depends on, for a snapshot of iteration `iteration`.
    pub(super) fn parts(&self, iteration: u32) -> Vec<Part> {
        let sizes = &self.sizes;
        let storage = sizes.observed_storage(self.kernel_config.storage);
        let stored = storage.precision().bytes();
        let observations = if storage.precision() == Precision::F16 { Dtype::F16 } else { Dtype::F32 };
        let observed = self.buffers.observed();
        let (own, update) = (&self.buffers.rollout, &self.update_buffers);
        let whole = |name: &str, buffer: &wgpu::Buffer, dtype, check: Check| Part {
            name: name.into(),
            dtype,
            bytes: buffer.size(),
            buffer: buffer.clone(),
            offset: 0,
            check,
        };
        // Never used as indices: networks read observations, and only the bits of existing actions are read from a mask.
        let anything = || -> Check { Box::new(|_| Ok(())) };
        let finite = |dtype| -> Check { Box::new(move |bytes| all_finite(dtype, bytes)) };
        let (nets, precision) = (self.layout.nets.len(), self.config.device.precision);
        let second: Check = Box::new(|bytes| not_negative(&reals(bytes)?));
        let optimizer: Check = Box::new(move |bytes| optimizer(&reals(bytes)?, nets));
        let groups = sizes.groups;
        let scalars: Check = Box::new(move |bytes| check_scalars(&reals(bytes)?, groups, precision));
        let clock: Check = Box::new(move |bytes| check_iteration(&words(bytes)?, iteration));
        let episodes: Check = Box::new(|bytes| cleared(&reals(bytes)?));
        let mut parts = vec![
            whole("params", &self.buffers.networks.params, Dtype::F32, finite(Dtype::F32)),
            whole("first moments", &update.first_moments, Dtype::F32, finite(Dtype::F32)),
            whole("second moments", &update.second_moments, Dtype::F32, second),
            whole("optimizer", &update.optimizer, Dtype::F32, optimizer),
            whole("scalars", &own.scalars, Dtype::F32, scalars),
            whole("clock", &own.iteration, Dtype::U32, clock),
            whole("episodes", &own.episodes, Dtype::F32, episodes),
        ];
        // The next rollout starts from slot 0.
        let name = if sizes.normalized { "raw observations" } else { "observations" };
        parts.push(Part {
            bytes: sizes.observed() * stored,
            ..whole(name, observed, observations, anything())
        });
        if sizes.state_dim > 0 {
            parts.push(Part {
                offset: sizes.first_state() * stored,
                bytes: sizes.states() * stored,
                ..whole("states of the environments", observed, observations, anything())
            });
        }
        if let Some(normalization) = &self.buffers.normalization {
            let check: Check = Box::new(|bytes| observation_moments(&reals(bytes)?));
            parts.push(whole("observation moments", &normalization.observation_stats, Dtype::F32, check));
        }
        parts.push(Part {
            offset: u64::from(sizes.first_mask()) * 4,
            bytes: u64::from(sizes.rows_of_slot()) * 4,
            ..whole("masks", &own.dones_and_masks, Dtype::U32, anything())
        });
        if let Some(recurrent) = &self.buffers.recurrent {
            let bytes = sizes.memory_bytes(&self.layout);
            let offset = u64::from(Memory::place(0, sizes.chunk)) * bytes;
            let states = whole("recurrent states", &recurrent.states, Dtype::F32, finite(Dtype::F32));
            parts.push(Part { offset, bytes, ..states });
            let truncations = sizes.truncations;
            let check: Check = Box::new(move |bytes| endings(&words(bytes)?, truncations));
            parts.push(Part {
                offset: sizes.endings() * 4,
                bytes: u64::from(sizes.envs) * 4,
                ..whole("endings", &own.dones_and_masks, Dtype::U32, check)
            });
        }
        for (number, state) in self.rollout.state.iter().enumerate() {
            if let State::Device(state) = state {
                let own = state.clone();
                parts.push(Part {
                    name: environment(number),
                    dtype: Dtype::U32,
                    bytes: state.buffer().size(),
                    buffer: state.buffer().clone(),
                    offset: 0,
                    check: Box::new(move |bytes| own.validate(&words(bytes)?)),
                });
            }
        }
        parts
    }

    /// The states in CPU memory, with their names.
    pub(super) fn host_states(&self) -> impl Iterator<Item = (String, &Arc<dyn HostState>)> {
        self.rollout.state.iter().enumerate().filter_map(|(number, state)| match state {
            State::Host(state) => Some((environment(number), state)),
            State::Device(_) => None,
        })
    }
}

fn environment(number: usize) -> String {
    format!("environment {number}")
}

fn words(bytes: &[u8]) -> Result<Vec<u32>, String> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(format!("{} bytes are not whole words", bytes.len()));
    }
    Ok(words.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
}

fn reals(bytes: &[u8]) -> Result<Vec<f32>, String> {
    Ok(words(bytes)?.into_iter().map(f32::from_bits).collect())
}

fn within(name: &str, value: f32, low: f32, high: f32) -> Result<(), String> {
    if value.is_finite() && (low..=high).contains(&value) {
        return Ok(());
    }
    Err(format!("{name} is {value}, expected {low:?} to {high:?}"))
}

fn counted(name: &str, value: f32, most: f32) -> Result<(), String> {
    within(name, value, 0.0, most)?;
    if value.fract() != 0.0 {
        return Err(format!("{name} is {value}, expected an integer"));
    }
    Ok(())
}

fn not_negative(values: &[f32]) -> Result<(), String> {
    let faulty = values.iter().enumerate().find(|(_, value)| !(value.is_finite() && **value >= 0.0));
    faulty.map_or(Ok(()), |(index, value)| {
        Err(format!("number {index} is {value}, expected a finite number of at least 0"))
    })
}

/// Steps, bias corrections and skipped steps of every network. Norm, clipping factor and rate are recomputed before use, and
/// may be non-finite after a skipped step.
fn optimizer(values: &[f32], nets: usize) -> Result<(), String> {
    for (net, state) in values.chunks_exact(adamw::STATE as usize).take(nets).enumerate() {
        counted(&format!("step count of network {net}"), state[0], MAX_STEPS)?;
        // Before the first step they are unused, and NaN if a decay rate is 0.
        if state[0] > 0.0 {
            within(&format!("first bias correction of network {net}"), state[4], 0.0, 1.0)?;
            within(&format!("second bias correction of network {net}"), state[5], 0.0, 1.0)?;
        }
        counted(&format!("step state of network {net}"), state[6].abs(), MAX_STEPS)?;
        counted(&format!("skipped steps of network {net}"), state[7], MAX_STEPS)?;
    }
    Ok(())
}

/// The scalars that persist between iterations; all others are recomputed before use.
fn check_scalars(values: &[f32], groups: u32, precision: Precision) -> Result<(), String> {
    for group in 0..groups {
        let value = |index| values[scalars::of_group(group, index)];
        within("mean of the returns", value(scalars::VALUE_NORM_MEAN), f32::MIN, f32::MAX)?;
        within("mean of the squared returns", value(scalars::VALUE_NORM_SQUARE), 0.0, f32::MAX)?;
        within("bias correction of the returns", value(scalars::VALUE_NORM_DEBIAS), 0.0, 1.0)?;
        within("mean of the values", value(scalars::MEAN), f32::MIN, f32::MAX)?;
        within("deviation of the values", value(scalars::DEVIATION), f32::MIN_POSITIVE, f32::MAX)?;
    }
    let (low, high, interval) = match precision {
        Precision::F32 => (1.0, 1.0, LossScale::CONSTANT.interval),
        Precision::F16 => (1e-30, 3e38, LossScale::DYNAMIC.interval),
    };
    within("loss scale", values[scalars::LOSS_SCALE], low, high)?;
    counted("steps since the loss scale changed", values[scalars::LOSS_SCALE + 1], interval as f32)?;
    // The range of the setting, with a margin for rounding.
    within("entropy coefficient", values[scalars::ENTROPY], -1.0, 11.0)?;
    counted("stop flag", values[scalars::STOPPED], 1.0)?;
    counted("epochs", values[scalars::EPOCHS], MAX_STEPS)
}

fn check_iteration(words: &[u32], iteration: u32) -> Result<(), String> {
    match words {
        [found, rest @ ..] if *found == iteration && rest.iter().all(|word| *word == 0) => Ok(()),
        _ => Err(format!(
            "counter is {words:?}, expected the iteration of the metadata, {iteration}, and zeros"
        )),
    }
}

/// The totals of episodes are cleared at the end of an iteration.
fn cleared(values: &[f32]) -> Result<(), String> {
    let faulty = values.iter().enumerate().find(|(_, value)| **value != 0.0);
    faulty.map_or(Ok(()), |(index, value)| {
        Err(format!("number {index} is {value}, expected 0 between iterations"))
    })
}

/// Mean, its rounding error, sum of squared deviations and count of every column.
fn observation_moments(values: &[f32]) -> Result<(), String> {
    for (column, moments) in values.as_chunks::<4>().0.iter().enumerate() {
        let [mean, remainder, squares, count] = *moments;
        within(&format!("mean of column {column}"), mean, f32::MIN, f32::MAX)?;
        within(&format!("remainder of column {column}"), remainder, f32::MIN, f32::MAX)?;
        within(&format!("squared deviations of column {column}"), squares, 0.0, f32::MAX)?;
        within(&format!("count of column {column}"), count, 0.0, f32::MAX)?;
    }
    Ok(())
}

/// 0: the episode continues, 1: terminated, 2 + k: the k-th truncated episode.
fn endings(words: &[u32], truncations: u32) -> Result<(), String> {
    let most = 1 + truncations;
    let faulty = words.iter().enumerate().find(|(_, end)| **end > most);
    faulty.map_or(Ok(()), |(env, end)| Err(format!("environment {env}: end is {end}, expected 0 to {most}")))
}
