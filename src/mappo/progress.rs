//! Metrics of an iteration, and the wall time of its phases.

use std::time::Duration;

use crate::ppo::write_metrics::Record;

/// Metrics of an iteration.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Number of completed iterations.
    pub iteration: u32,
    /// Number of environment steps so far, over all environments.
    pub env_steps: u64,
    /// Environment steps per second since training began.
    pub steps_per_second: f64,
    /// Mean return of the latest episodes: those of as many iterations, from the latest back, as have a hundred episodes together.
    /// `None` until an episode has ended. A resumed run starts anew.
    pub running_return: Option<f64>,
    /// Iterations in a row, this one included, in which all optimizer steps of a network were skipped because its gradient was not
    /// finite.
    pub iterations_without_step: u32,
    /// Wall time of the phases, if they were timed in this iteration ([`Trainer::time_phases`](super::Trainer::time_phases)).
    pub phases: Option<Phases>,
    /// Losses, norms and episodes.
    pub record: Record,
}

impl Progress {
    /// Mean return of the episodes that ended in this iteration; `None` if none did.
    #[must_use]
    pub fn mean_return(&self) -> Option<f64> {
        let Record { return_sum, episodes, .. } = self.record;
        (episodes > 0.0).then(|| f64::from(return_sum) / f64::from(episodes))
    }

    /// Mean length, in steps, of the episodes that ended in this iteration; `None` if none did.
    #[must_use]
    pub fn mean_length(&self) -> Option<f64> {
        let Record { episode_steps, episodes, .. } = self.record;
        (episodes > 0.0).then(|| f64::from(episode_steps) / f64::from(episodes))
    }
}

/// A phase of an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Rollout,
    Values,
    Update,
    Record,
}

/// Wall time of the phases of an iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Acting, and stepping the environments.
    pub rollout: Duration,
    /// The critics' values of the rollout, and the advantages.
    pub values: Duration,
    /// All epochs of updates.
    pub update: Duration,
    /// Metrics, and the copy of the last slot to the next rollout.
    pub record: Duration,
    /// The part of these times that the CPU spends encoding and submitting.
    pub host: Duration,
}

impl Phases {
    /// Wall time of one phase.
    pub(super) fn of(&mut self, phase: Phase) -> &mut Duration {
        match phase {
            Phase::Rollout => &mut self.rollout,
            Phase::Values => &mut self.values,
            Phase::Update => &mut self.update,
            Phase::Record => &mut self.record,
        }
    }
}
