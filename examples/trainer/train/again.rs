//! Trains once more with the settings of a run, in memory: for audits.

use std::ops::ControlFlow;

use anyhow::Result;
use phalanx::gpu::Gpu;
use phalanx::market::{Candles, ExtraFeatures, MarketData, ScalingStatistics};
use phalanx::policy::Policy;

use super::candidate::Candidate;
use super::prepared::Prepared;
use crate::console;
use crate::parts::Parts;
use crate::run::{ChosenModel, Settings};

/// A run to train once more.
pub struct Again<'a> {
    pub gpu: &'a Gpu,
    pub settings: &'a Settings,
    pub parts: &'a Parts,
}

impl Again<'_> {
    /// Trains on `candles` and features beside the built-in ones, with another seed and from random weights; `what` tells of it. Features are
    /// scaled by `scaling`; without, by statistics of the training bars. Returns the policy that the settings choose, and the features of
    /// all candles.
    pub fn train(
        &self,
        (candles, extra): (&Candles, &ExtraFeatures),
        scaling: Option<ScalingStatistics>,
        seed: u64,
        what: &str,
    ) -> Result<(Policy, MarketData)> {
        let mut settings = self.settings.clone();
        settings.mappo.ppo.seed = seed;
        let rules = &settings.market;
        let mut prepared =
            Prepared::new(self.gpu, (candles, extra), self.parts, &settings, rules, scaling, None)?;
        console::busy(what);
        let Prepared { trainer, evaluator, .. } = &mut prepared;
        let choose = settings.evaluation.model == ChosenModel::Best;
        let (mut best, every): (Option<Candidate>, u32) = (None, settings.evaluation.every);
        let iterations = settings.mappo.ppo.iterations;
        while trainer.iteration() < iterations {
            let due =
                trainer.iteration().checked_div(every).map_or(iterations, |n| (n + 1).saturating_mul(every));
            let go_on = |_: &_| Ok::<_, phalanx::Error>(ControlFlow::Continue(()));
            trainer.train_until(due.min(iterations), go_on)?;
            if let Some(evaluator) = evaluator.as_mut().filter(|_| choose && trainer.iteration() == due) {
                let [greedy, _] = evaluator.run(trainer)?;
                if best.as_ref().is_none_or(|best| Some(greedy) > best.score) {
                    best = Some(Candidate::of(trainer, Some(greedy))?);
                }
            }
        }
        let chosen = best.map_or_else(|| Candidate::of(trainer, None), Ok)?;
        let policy = prepared.policy(chosen, candles, self.parts, &settings)?;
        Ok((policy, prepared.data))
    }
}
