//! Trains once more with the settings of a run, in memory: for audits.

use std::ops::ControlFlow;

use anyhow::Result;
use phalanx::env::Trading;
use phalanx::gpu::Gpu;
use phalanx::mappo::Trainer;
use phalanx::market::{Candles, ExtraFeatures, MarketData};
use phalanx::policy::{MarketMetadata, Policy, TrainingBars};

use super::candidate::Candidate;
use super::evaluations::Evaluations;
use crate::parts::{Parts, Trained, episodes};
use crate::run::{ChosenModel, Settings};

/// A run to train once more.
pub struct Again<'a> {
    pub gpu: &'a Gpu,
    pub settings: &'a Settings,
    pub parts: &'a Parts,
}

impl Again<'_> {
    /// Trains on `candles` and features beside the built-in ones, with another seed and from random weights. Returns the policy that the
    /// settings choose, and the features of all candles.
    pub fn train(&self, candles: &Candles, extra: &ExtraFeatures, seed: u64) -> Result<(Policy, MarketData)> {
        let Self { gpu, parts, .. } = self;
        let mut settings = self.settings.clone();
        settings.mappo.ppo.seed = seed;
        let trained = Trained::new(&settings.evaluation, &parts.train);
        let data = MarketData::new(gpu, candles, extra, &trained.scaling())?;
        let ranges = trained.tradable(&data, settings.market.episode_length);
        let environment = Trading::new(&data, &settings.market, &episodes(&ranges))?;
        let evaluations = trained
            .evaluated
            .map(|bars| Evaluations::new(&data, &settings, &settings.market, bars))
            .transpose()?;
        let reserved = evaluations.as_ref().map_or(Ok(0), |evaluations| evaluations.bytes(gpu, &settings))?;
        let mut trainer = Trainer::beside(gpu, &environment, &settings.mappo, None, reserved)?;
        let mut evaluator = evaluations.map(|evaluations| evaluations.start(gpu, &settings)).transpose()?;
        let choose = settings.evaluation.model == ChosenModel::Best;
        let (mut best, every): (Option<Candidate>, u32) = (None, settings.evaluation.every);
        let iterations = settings.mappo.ppo.iterations;
        while trainer.iteration() < iterations {
            let due = trainer.iteration().checked_div(every).map_or(iterations, |n| (n + 1) * every);
            let go_on = |_: &_| Ok::<_, phalanx::Error>(ControlFlow::Continue(()));
            trainer.train_until(due.min(iterations), go_on)?;
            if let Some(evaluator) = evaluator.as_mut().filter(|_| choose && trainer.iteration() == due) {
                let [greedy, _] = evaluator.run(&trainer)?;
                if best.as_ref().is_none_or(|best| Some(greedy) > best.score) {
                    best = Some(Candidate::of(&trainer, Some(greedy))?);
                }
            }
        }
        let chosen = best.map_or_else(|| Candidate::of(&trainer, None), Ok)?;
        let date = |bar: usize| candles.timestamps[bar];
        let market = MarketMetadata {
            settings: settings.market.clone(),
            scaling: data.scaling().clone(),
            train_from: date(ranges[0].start),
            train_to: date(ranges[ranges.len() - 1].end - 1),
            test_from: date(parts.first_held_out()),
            bars: Some(TrainingBars::of(candles)),
        };
        let policy = trainer.policy_of(chosen.weights, chosen.observation_moments)?.with_market(market)?;
        Ok((policy, data))
    }
}
