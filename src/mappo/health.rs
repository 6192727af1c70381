//! Notices training that changes nothing: gradients that are never finite, rollouts without an active agent.

use std::collections::VecDeque;

use super::config::Config;
use crate::nn::Precision;
use crate::ppo::write_metrics::Record;

/// Iterations in a row after which training that changes nothing is an error.
const PATIENCE: u32 = 3;

/// Optimizer steps in a row that f16 may skip before that: its loss scale starts high, and every skipped step halves it.
const SEARCH_FOR_LOSS_SCALE: f32 = 40.0;

/// Episodes in the running mean of returns.
const RECENT: f32 = 100.0;

/// Counters over the iterations of a trainer.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// Iterations in a row in which a network took no optimizer step, and the steps that it has skipped in a row.
    fruitless: (u32, f32),
    /// Iterations in a row without an active agent.
    inactive: u32,
    /// Sum of returns and number of episodes of the latest iterations with at least [`RECENT`] episodes.
    recent: VecDeque<(f32, f32)>,
}

impl Health {
    /// Counts an iteration. `minibatches` is the number of optimizer steps of a network in an epoch.
    pub fn count(&mut self, record: &Record, minibatches: u32) {
        let steps = (record.epochs * minibatches as f32).max(1.0);
        let skipped = record.skipped_in_a_row;
        self.fruitless = if skipped >= steps { (self.fruitless.0 + 1, skipped) } else { (0, 0.0) };
        self.inactive = if record.active_fraction > 0.0 { 0 } else { self.inactive + 1 };
        if record.episodes > 0.0 {
            self.recent.push_back((record.return_sum, record.episodes));
            while let Some((_, oldest)) = self.recent.front()
                && self.episodes() - oldest >= RECENT
            {
                self.recent.pop_front();
            }
        }
    }

    fn episodes(&self) -> f32 {
        self.recent.iter().map(|(_, episodes)| episodes).sum()
    }

    /// Mean return of the latest episodes: of as many iterations as have [`RECENT`] episodes together.
    pub fn running_return(&self) -> Option<f64> {
        let total: f64 = self.recent.iter().map(|(total, _)| f64::from(*total)).sum();
        (!self.recent.is_empty()).then(|| total / f64::from(self.episodes()))
    }

    /// Iterations in a row in which all optimizer steps of a network were skipped.
    pub fn iterations_without_step(&self) -> u32 {
        self.fruitless.0
    }

    /// Why training cannot learn anything, if it cannot.
    pub fn fault(&self, config: &Config) -> Option<Fault> {
        let (iterations, steps) = self.fruitless;
        let patience = match config.device.precision {
            Precision::F32 => 1.0,
            Precision::F16 => SEARCH_FOR_LOSS_SCALE,
        };
        if iterations >= PATIENCE && steps >= patience {
            return Some(Fault::NotFinite(iterations));
        }
        (self.inactive >= PATIENCE).then_some(Fault::Inactive(self.inactive))
    }
}

/// Why training cannot learn, and since how many iterations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Gradients are not finite.
    NotFinite(u32),
    /// No agent may act.
    Inactive(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(skipped_in_a_row: f32, active_fraction: f32) -> Record {
        Record { skipped_in_a_row, active_fraction, epochs: 2.0, ..Record::default() }
    }

    fn config(precision: Precision) -> Config {
        let mut config = Config::default();
        config.device.precision = precision;
        config
    }

    #[test]
    fn only_iterations_without_any_step_of_a_network_count() {
        let mut health = Health::default();
        let half = config(Precision::F16);
        let whole = config(Precision::F32);
        // Two epochs of three minibatches: six steps.
        for (iteration, skipped) in [5.0, 2.0, 6.0, 12.0].into_iter().enumerate() {
            health.count(&record(skipped, 1.0), 3);
            assert_eq!(health.fault(&whole), None, "iteration {iteration}");
        }
        assert_eq!(health.iterations_without_step(), 2);
        health.count(&record(18.0, 1.0), 3);
        assert_eq!(health.fault(&whole), Some(Fault::NotFinite(3)));
        // In f16 the loss scale may still be too high.
        assert_eq!(health.fault(&half), None);
        for iteration in 4..=7 {
            health.count(&record(6.0 * iteration as f32, 1.0), 3);
        }
        assert_eq!(health.fault(&half), Some(Fault::NotFinite(7)));
        health.count(&record(5.0, 1.0), 3);
        assert_eq!((health.fault(&half), health.iterations_without_step()), (None, 0), "one step was taken");
    }

    #[test]
    fn rollouts_without_an_active_agent_count() {
        let mut health = Health::default();
        for active in [0.0, 0.0, 0.25, 0.0, 0.0] {
            health.count(&record(0.0, active), 1);
            assert_eq!(health.fault(&config(Precision::F32)), None);
        }
        health.count(&record(0.0, 0.0), 1);
        assert_eq!(health.fault(&config(Precision::F32)), Some(Fault::Inactive(3)));
    }

    #[test]
    fn the_running_return_covers_a_hundred_episodes() {
        let mut health = Health::default();
        assert_eq!(health.running_return(), None);
        let mut end = |total: f32, episodes: f32| {
            health.count(&Record { return_sum: total, episodes, ..record(0.0, 1.0) }, 1);
            health.running_return().unwrap()
        };
        assert_eq!(end(60.0, 60.0), 1.0);
        assert_eq!(end(0.0, 0.0), 1.0, "no episode ended");
        assert_eq!(end(160.0, 40.0), 2.2);
        // The first sixty are no longer needed for a hundred.
        assert_eq!(end(240.0, 60.0), 4.0);
        assert_eq!(end(1000.0, 200.0), 5.0);
    }
}
