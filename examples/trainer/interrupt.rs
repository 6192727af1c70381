//! Ctrl-C and SIGTERM. The first asks the program to stop at a good moment, a later one ends it at once.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level;

use crate::console::note;

/// Interval in which signals are looked for.
const POLL: Duration = Duration::from_millis(50);

/// Time in which further signals count as the first: `timeout` and shells may send theirs to the program and to its group.
const ECHO: Duration = Duration::from_millis(500);

/// Signals received since [`Interrupts::catch`].
#[derive(Clone, Debug)]
pub struct Interrupts(Arc<Received>);

#[derive(Debug, Default)]
struct Received {
    /// The number of the last signal; 0 before the first.
    signal: AtomicUsize,
    count: AtomicUsize,
    /// The good moment at which the program stops.
    moment: Mutex<&'static str>,
}

/// The moment at which a training stops.
pub const ITERATION: &str = "after this iteration, with a checkpoint";

impl Interrupts {
    /// From now on the first signal only asks.
    pub fn catch() -> Result<Self> {
        let moment = Mutex::new(ITERATION);
        let received = Arc::new(Received { moment, ..Received::default() });
        for signal in [SIGINT, SIGTERM] {
            let received = received.clone();
            let note = move || {
                received.signal.store(signal as usize, Ordering::Relaxed);
                received.count.fetch_add(1, Ordering::Relaxed);
            };
            // SAFETY: the action writes two atomics, which a signal handler may.
            unsafe { low_level::register(signal, note) }.context("catching Ctrl-C")?;
        }
        let watched = received.clone();
        std::thread::Builder::new().spawn(move || watch(&watched)).context("catching Ctrl-C")?;
        Ok(Self(received))
    }

    /// From now on the program stops at this moment, in words.
    pub fn stops(&self, moment: &'static str) {
        *self.0.moment.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    /// Exit status of a program that was asked to stop, if it was.
    pub fn asked(&self) -> Option<ExitCode> {
        let signal = self.0.signal.load(Ordering::Relaxed);
        (signal != 0).then(|| ExitCode::from(u8::try_from(status(signal)).unwrap_or(u8::MAX)))
    }
}

/// Asks for what a Ctrl-C asks for; terminals in raw mode send no signal for it.
pub fn ask() {
    if let Err(error) = low_level::raise(SIGINT) {
        note!("warning: training could not be asked to stop: {error}");
    }
}

/// 128 and the number of the signal, as in shells.
fn status(signal: usize) -> i32 {
    128 + signal as i32
}

/// Answers the first signal, which a signal handler may not, and ends the program at a later one.
fn watch(received: &Received) {
    let wait = |count: usize| {
        while received.count.load(Ordering::Relaxed) <= count {
            std::thread::sleep(POLL);
        }
    };
    wait(0);
    note!("{}", answer(received));
    std::thread::sleep(ECHO);
    wait(received.count.load(Ordering::Relaxed));
    crate::dashboard::restore();
    // Without the end of the driver, which may wait for the GPU.
    low_level::exit(status(received.signal.load(Ordering::Relaxed)));
}

/// The words after the first signal.
fn answer(received: &Received) -> String {
    let moment = received.moment.lock().unwrap_or_else(PoisonError::into_inner);
    format!("Stopping  {moment}; Ctrl-C again ends the program at once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_the_moment_that_was_set_last() {
        let interrupts = Interrupts(Arc::default());
        for moment in [ITERATION, "after the tests of this fold"] {
            interrupts.clone().stops(moment);
            let wanted = format!("Stopping  {moment}; Ctrl-C again ends the program at once");
            assert_eq!(answer(&interrupts.0), wanted);
        }
        assert!(interrupts.asked().is_none());
    }
}
