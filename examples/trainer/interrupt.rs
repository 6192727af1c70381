//! Ctrl-C and SIGTERM. The first asks the program to stop at a good moment, the second ends it at once.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::console::note;

/// Time after which a signal is answered.
const POLL: Duration = Duration::from_millis(100);

/// Signals received since [`Interrupts::catch`].
#[derive(Debug)]
pub struct Interrupts {
    received: Arc<AtomicUsize>,
    _watched: Arc<()>,
}

impl Interrupts {
    /// From now on the first signal only asks.
    pub fn catch() -> Result<Self> {
        let (asked, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds `asked` unset, and sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, asked.clone())
                .and_then(|_| flag::register(signal, asked.clone()))
                .and_then(|_| flag::register_usize(signal, received.clone(), signal as usize))
                .context("catching Ctrl-C")?;
        }
        let (answered, watched) = (received.clone(), Arc::new(()));
        let watch = Arc::downgrade(&watched);
        std::thread::spawn(move || {
            // A signal handler may not write.
            while answered.load(Ordering::Relaxed) == 0 {
                if watch.strong_count() == 0 {
                    return;
                }
                std::thread::sleep(POLL);
            }
            note!(
                "Stopping  after this iteration, with a checkpoint; a second Ctrl-C ends the program at once"
            );
        });
        Ok(Self { received, _watched: watched })
    }

    /// Exit status of a program that was asked to stop, if it was: 128 and the number of the signal, as in shells.
    pub fn asked(&self) -> Option<ExitCode> {
        let signal = self.received.load(Ordering::Relaxed);
        (signal != 0).then(|| ExitCode::from(128u8.saturating_add(signal as u8)))
    }
}
