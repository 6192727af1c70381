//! The terminal: the one place that writes to standard output and standard error, apart from the help of clap and the frames of the
//! progress bar and the dashboard.
//!
//! A reader that goes away (`trainer .. | head`) is no fault, and the work goes on without it. A full disk does not stop the work
//! either, but the program ends with an error.

use std::collections::VecDeque;
use std::fmt::Arguments;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use phalanx::text::{shortened, visible_lines};

/// Longest line on standard error in bytes.
const MOST_BYTES: usize = 2048;

/// Time without a line after which the program says what it is doing; it doubles with every such line, up to the second.
const SILENCE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(300)];

/// Writes a line of results to standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::console::result(format_args!($($text)*)) };
}

/// Writes a line about the work to standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::console::remark(format_args!($($text)*)) };
}

pub(crate) use {note, say};

struct State {
    /// The first error of standard output or standard error that was not a closed pipe.
    fault: Option<(&'static str, io::Error)>,
    last_line: Option<Instant>,
    activity: Option<Activity>,
    watched: bool,
}

/// The work that the program would report if it were silent for too long.
struct Activity {
    what: String,
    since: Instant,
    /// When the first of the activities of its kind began.
    began: Instant,
    /// Longest time without a line about it.
    silence: Duration,
}

static STATE: Mutex<State> =
    Mutex::new(State { fault: None, last_line: None, activity: None, watched: false });

/// The progress bar, while there is one: lines are written above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Lines that wait while the dashboard has the terminal.
static HELD: Mutex<Option<VecDeque<Vec<u8>>>> = Mutex::new(None);

/// Most lines that wait; of more, the first are dropped.
const MOST_HELD: usize = 1000;

fn held() -> MutexGuard<'static, Option<VecDeque<Vec<u8>>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on lines on standard error wait for [`release_lines`]: the dashboard has the terminal.
pub fn hold_lines() {
    idle();
    held().get_or_insert_default();
}

/// Writes the lines that waited.
pub fn release_lines() {
    // Not in the condition of a loop, which would hold the lock while lines are written.
    let lines = held().take();
    for line in lines.into_iter().flatten() {
        let _ = Stderr.write_all(&line);
    }
}

/// The last line that waits.
pub fn last_held_line() -> Option<String> {
    let held = held();
    let line = String::from_utf8_lossy(held.as_ref()?.back()?);
    Some(line.trim_end().to_string())
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn result(text: Arguments<'_>) {
    let line = visible_lines(&text.to_string()).into_owned() + "\n";
    // Tests have their output to themselves.
    if cfg!(test) {
        return print!("{line}");
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    keep("standard output", written);
}

pub fn remark(text: Arguments<'_>) {
    let line = shortened(visible_lines(&text.to_string()).into_owned(), MOST_BYTES) + "\n";
    let _ = Stderr.write_all(line.as_bytes());
}

/// Standard error, whose faults are kept for the end of the program: writing never fails.
#[derive(Clone, Copy)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if cfg!(test) {
            eprint!("{}", String::from_utf8_lossy(bytes));
            return Ok(bytes.len());
        }
        if let Some(held) = &mut *held() {
            if held.len() == MOST_HELD {
                held.pop_front();
            }
            held.push_back(bytes.to_vec());
            return Ok(bytes.len());
        }
        let write = || io::stderr().lock().write_all(bytes);
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        keep("standard error", bar.map_or_else(write, |bar| bar.suspend(write)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn keep(stream: &'static str, written: io::Result<()>) {
    let mut state = state();
    state.last_line = Some(Instant::now());
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        state.fault.get_or_insert((stream, error));
    }
}

/// Whether lines on standard error may be coloured.
pub fn coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Reports an error.
pub fn report(error: &anyhow::Error) {
    remark(format_args!("error: {}", reasons(error)));
}

/// The status of the program after its work: a failure if a line could not be written.
pub fn ended(status: ExitCode) -> ExitCode {
    idle();
    let fault = state().fault.take();
    match fault {
        None => status,
        Some((stream, error)) => {
            remark(format_args!("error: {stream}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what the program is doing whenever it writes no line for some time.
pub fn busy(what: impl Into<String>) {
    let (mut state, now) = (state(), Instant::now());
    state.activity = Some(Activity { what: what.into(), since: now, began: now, silence: SILENCE[0] });
    if !std::mem::replace(&mut state.watched, true) {
        // Without a thread the program is silent.
        let _ = std::thread::Builder::new().spawn(watch);
    }
}

/// Shows a progress bar, which says by itself that the program is alive, or ends it.
pub fn show_bar(bar: Option<ProgressBar>) {
    if bar.is_some() {
        idle();
    }
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Goes on with the same kind of activity: the silence allowed stays as it is.
pub fn still_busy(what: impl Into<String>) {
    if let Some(activity) = &mut state().activity {
        (activity.what, activity.since) = (what.into(), Instant::now());
    }
}

/// Ends [`busy`].
pub fn idle() {
    state().activity = None;
}

fn watch() {
    loop {
        std::thread::sleep(Duration::from_millis(100));
        // Not in the condition of the next line, which would hold the lock while the line is written.
        let line = due(&mut state(), Instant::now());
        if let Some(line) = line {
            remark(format_args!("{line}"));
        }
    }
}

/// The line that is due at `now`, if any.
fn due(state: &mut State, now: Instant) -> Option<String> {
    let activity = state.activity.as_mut()?;
    let last = state.last_line.map_or(activity.began, |line| line.max(activity.began));
    if now.saturating_duration_since(last) + Duration::from_millis(200) < activity.silence {
        return None;
    }
    activity.silence = (activity.silence * 2).min(SILENCE[1]);
    let seconds = now.saturating_duration_since(activity.since).as_secs_f64().round();
    Some(format!("Working   {}: {seconds} s", activity.what))
}

/// An error and its causes, without those that the text before already ends with.
fn reasons(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn reasons_are_given_once() {
        let io = || io::Error::other("no space left");
        let twice: anyhow::Error = phalanx::Error::Io { path: "run/a.csv".into(), source: io() }.into();
        assert_eq!(reasons(&twice), "run/a.csv: no space left");
        let nested = Err::<(), _>(twice).context("writing metrics").unwrap_err();
        assert_eq!(reasons(&nested), "writing metrics: run/a.csv: no space left");
        assert_eq!(reasons(&anyhow::anyhow!("one").context("two")), "two: one");
    }

    #[test]
    fn a_long_activity_is_reported_within_two_seconds_and_then_ever_less_often() {
        let start = Instant::now();
        let activity = Activity { what: "compiling".into(), since: start, began: start, silence: SILENCE[0] };
        let mut state = State { fault: None, last_line: None, activity: Some(activity), watched: true };
        let mut lines = Vec::new();
        for tenth in 0..=36_000u64 {
            let now = start + Duration::from_millis(100 * tenth);
            if let Some(line) = due(&mut state, now) {
                lines.push((tenth, line));
                state.last_line = Some(now);
            }
        }
        assert!(lines[0].0 <= 20, "{lines:?}");
        assert_eq!(lines[0].1, "Working   compiling: 2 s");
        let gaps: Vec<_> = lines.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(gaps.is_sorted() && *gaps.last().unwrap() <= 3000, "{gaps:?}");
        assert!(lines.len() < 30, "an hour: {}", lines.len());
        // Short steps of one activity are no lines.
        let mut activity =
            Activity { what: "iteration 1".into(), since: start, began: start, silence: SILENCE[0] };
        let mut first = None;
        for tenth in 0..100u64 {
            let now = start + Duration::from_millis(100 * tenth);
            activity.since = start + Duration::from_millis(1500 * (tenth / 15));
            state = State { fault: None, last_line: None, activity: Some(activity), watched: true };
            if due(&mut state, now).is_some() {
                first.get_or_insert(tenth);
            }
            activity = state.activity.take().unwrap();
        }
        assert!(first.is_some_and(|tenth| tenth <= 20), "{first:?}");
        state.activity = None;
        assert_eq!(due(&mut state, start + Duration::from_secs(9999)), None);
    }
}
