//! The trainings of a walk, one after the other or some at the same time.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use phalanx::gpu::Gpu;
use phalanx::market::Candles;

use super::fold::Job;
use crate::console::{busy, note};
use crate::interrupt::Interrupts;
use crate::train::Telling;

/// Seconds of the trainings that began and ended in this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Of their iterations.
    pub trained: f64,
    /// Of everything.
    pub elapsed: f64,
}

/// Trains what is not trained yet, up to `at_once` jobs at the same time. An interrupt ends it early with a status.
pub fn train_all(
    jobs: &[Job],
    at_once: usize,
    candles: &Candles,
    gpu: &Gpu,
    interrupts: &Interrupts,
) -> Result<Result<Taken, ExitCode>> {
    let together = at_once > 1;
    let next = AtomicUsize::new(0);
    // A failed training lets the others end, and none begins after it.
    let failed = AtomicBool::new(false);
    let work = || -> Result<Taken> {
        let mut taken = Taken::default();
        let mut caught = Some(interrupts.clone());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { return Ok(taken) };
            if interrupts.asked().is_some() || failed.load(Ordering::Relaxed) {
                return Ok(taken);
            }
            note!("Training  {} of {}: {}", index + 1, jobs.len(), job.title(candles));
            let started = Instant::now();
            let telling = if together { Telling::Warnings } else { Telling::Progress };
            let trained = job.train(candles, gpu, &mut caught, telling);
            let trained = trained.inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            let Some(seconds) = trained else { continue };
            taken.trained += seconds;
            taken.elapsed += started.elapsed().as_secs_f64();
            if together {
                note!("Trained   {} of {} in {seconds:.1} s", index + 1, jobs.len());
                busy("training");
            }
        }
    };
    let all: Vec<Result<Taken>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut sum = Taken::default();
    for taken in all {
        let Taken { trained, elapsed } = taken?;
        sum.trained += trained;
        sum.elapsed += elapsed;
    }
    Ok(interrupts.asked().map_or(Ok(sum), Err))
}
