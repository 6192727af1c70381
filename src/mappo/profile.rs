//! Iterations whose phases are timed.

use std::time::Duration;

use super::progress::{Phase, Phases};
use super::trainer::Trainer;
use crate::gpu::time::Instant;
use crate::{Error, Result};

impl Trainer {
    /// Times the phases of the run's second iteration and of every `every`-th after it, for
    /// [`Progress::phases`](super::Progress::phases); 0, the default, times none. The first iteration is left out, because drivers
    /// finish their work on kernels in it.
    ///
    /// A timed iteration computes the same numbers. It takes longer: the device finishes the iteration before it, and each of its
    /// phases, before the CPU encodes the next one.
    pub fn time_phases(&mut self, every: u32) {
        self.timed_every = every;
    }

    /// Runs one iteration and times its phases. Unlike training, it waits for the device after every phase.
    ///
    /// # Errors
    /// As [`Trainer::submit`] and [`Trainer::collect`].
    pub fn profile(&mut self) -> Result<Phases> {
        self.not_interrupted()?;
        if self.submitted != self.collected {
            return Err(Error::shape("iterations in flight", 0, self.submitted - self.collected));
        }
        let phases = self.submit_timed()?;
        self.collect()?;
        Ok(phases)
    }

    /// Whether the next iteration is timed, and has to wait for those in flight.
    pub(super) fn waits_to_time(&self) -> bool {
        self.submitted > self.collected && is_timed(self.submitted + 1, self.timed_every)
    }

    /// [`Trainer::submit`], timing the phases where that is due. Then no other iteration may be in flight.
    pub(super) fn submit_next(&mut self) -> Result<()> {
        if !is_timed(self.submitted + 1, self.timed_every) {
            return self.submit();
        }
        self.not_interrupted()?;
        self.started.get_or_insert_with(Instant::now);
        let phases = self.submit_timed()?;
        self.timed = Some((self.submitted, phases));
        Ok(())
    }

    fn submit_timed(&mut self) -> Result<Phases> {
        let gpu = self.gpu.clone();
        let mut phases = Phases::default();
        let mut host = Duration::ZERO;
        let mut last = Instant::now();
        self.run_phases(|recorder, phase| {
            if phase == Phase::Values {
                // Training submits this phase together with the first epoch.
                recorder.submit()?;
            }
            host += last.elapsed();
            gpu.wait()?;
            *phases.of(phase) = last.elapsed();
            last = Instant::now();
            Ok(())
        })?;
        Ok(Phases { host, ..phases })
    }
}

/// Whether iteration `iteration`, counted from 1, is timed.
fn is_timed(iteration: u32, every: u32) -> bool {
    iteration.checked_sub(2).is_some_and(|after| every > 0 && after.is_multiple_of(every))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Spread;
    use crate::env::spread::Definition;
    use crate::mappo::Config;

    #[test]
    fn the_second_iteration_and_every_so_manyth_after_it_are_timed() {
        let timed = |every| (0..=10).filter(|iteration| is_timed(*iteration, every)).collect::<Vec<_>>();
        assert!(timed(0).is_empty());
        assert_eq!(timed(1), [2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(timed(4), [2, 6, 10]);
        assert_eq!(timed(u32::MAX), [2]);
    }

    #[test]
    fn timed_iterations_compute_the_same_bytes() {
        let gpu = crate::testing::gpu();
        let mut config = Config::default();
        config.ppo.num_envs = 4;
        config.ppo.rollout_steps = 6;
        config.ppo.epochs = 2;
        config.ppo.iterations = 7;
        config.network.hidden = vec![4];
        let weights = |every: u32, wanted: &[u32]| {
            let mut trainer = Trainer::new(&gpu, &Spread::new(Definition::Mpe2), &config).unwrap();
            trainer.time_phases(every);
            let mut timed = Vec::new();
            trainer
                .train(|done| {
                    let Some(phases) = done.phases else { return };
                    assert!(phases.rollout > Duration::ZERO && phases.update > Duration::ZERO, "{phases:?}");
                    let all = phases.rollout + phases.values + phases.update + phases.record;
                    assert!(phases.host <= all, "{phases:?}");
                    timed.push(done.iteration);
                })
                .unwrap();
            assert_eq!(timed, wanted);
            trainer.weights().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let untimed = weights(0, &[]);
        assert!(untimed == weights(1, &[2, 3, 4, 5, 6, 7]) && untimed == weights(3, &[2, 5]));
    }
}
