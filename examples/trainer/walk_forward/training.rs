//! The trainings of a walk, one after the other or some at the same time.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    interrupts: &mut Option<Interrupts>,
) -> Result<Result<Taken, ExitCode>> {
    if at_once > 1 && jobs.len() > 1 {
        return together(jobs, at_once, candles, gpu, interrupts);
    }
    let mut taken = Taken::default();
    for (index, job) in jobs.iter().enumerate() {
        note!("Training  {} of {}: {}", index + 1, jobs.len(), job.title(candles));
        let started = Instant::now();
        if let Some(seconds) = job.train(candles, gpu, interrupts, Telling::Progress)? {
            taken.trained += seconds;
            taken.elapsed += started.elapsed().as_secs_f64();
        }
        if let Some(status) = interrupts.as_ref().and_then(Interrupts::asked) {
            return Ok(Err(status));
        }
    }
    Ok(Ok(taken))
}

fn together(
    jobs: &[Job],
    at_once: usize,
    candles: &Candles,
    gpu: &Gpu,
    interrupts: &mut Option<Interrupts>,
) -> Result<Result<Taken, ExitCode>> {
    let caught = match interrupts {
        Some(caught) => caught.clone(),
        None => interrupts.insert(Interrupts::catch()?).clone(),
    };
    let next = AtomicUsize::new(0);
    // A failed training lets the others end, and none begins after it.
    let failed = AtomicUsize::new(0);
    let work = || -> Result<Taken> {
        let mut taken = Taken::default();
        let mut own = Some(caught.clone());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { return Ok(taken) };
            if caught.asked().is_some() || failed.load(Ordering::Relaxed) > 0 {
                return Ok(taken);
            }
            note!("Training  {} of {}: {}", index + 1, jobs.len(), job.title(candles));
            let started = Instant::now();
            let trained = job.train(candles, gpu, &mut own, Telling::Warnings).inspect_err(|_| {
                failed.fetch_add(1, Ordering::Relaxed);
            })?;
            if let Some(seconds) = trained {
                taken.trained += seconds;
                taken.elapsed += started.elapsed().as_secs_f64();
                note!("Trained   {} of {} in {seconds:.1} s", index + 1, jobs.len());
            }
            busy("training");
        }
    };
    let all: Vec<Result<Taken>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once.min(jobs.len())).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut sum = Taken::default();
    for taken in all {
        let Taken { trained, elapsed } = taken?;
        sum.trained += trained;
        sum.elapsed += elapsed;
    }
    Ok(match caught.asked() {
        Some(status) => Err(status),
        None => Ok(sum),
    })
}
