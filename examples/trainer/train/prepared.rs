//! A trainer on the training bars of some candles, with its evaluations.

use std::ops::Range;

use anyhow::Result;
use phalanx::env::{Trading, TradingSettings};
use phalanx::gpu::Gpu;
use phalanx::mappo::{Autotune, Sizes, Trainer};
use phalanx::market::{Candles, ExtraFeatures, MarketData};
use phalanx::policy::{MarketMetadata, Policy, TrainingBars};

use super::candidate::Candidate;
use super::evaluations::{Evaluations, Evaluator};
use crate::console;
use crate::parts::{Parts, Trained, episodes};
use crate::run::Settings;

pub struct Prepared {
    pub data: MarketData,
    /// The bars that episodes are on.
    pub ranges: Vec<Range<usize>>,
    /// The bars of the evaluations.
    pub evaluated: Option<Range<usize>>,
    pub trainer: Trainer,
    pub evaluator: Option<Evaluator>,
    /// Whether memory made the micro-batch smaller than the settings ask for.
    pub short_of_memory: bool,
}

impl Prepared {
    /// With features beside the built-in ones, and evaluations by `rules`.
    pub fn new(
        gpu: &Gpu,
        (candles, extra): (&Candles, &ExtraFeatures),
        parts: &Parts,
        settings: &Settings,
        rules: &TradingSettings,
        tune: Option<&mut Autotune>,
    ) -> Result<Self> {
        console::busy("computing the features");
        let trained = Trained::new(&settings.evaluation, &parts.train);
        let data = MarketData::new(gpu, candles, extra, &trained.scaling())?;
        let ranges = trained.tradable(&data, settings.market.episode_length);
        let environment = Trading::new(&data, &settings.market, &episodes(&ranges))?;
        let evaluated = trained.evaluated;
        let of = |bars| Evaluations::new(&data, settings, rules, bars);
        let evaluations = evaluated.clone().map(of).transpose()?;
        let reserved = evaluations.as_ref().map_or(Ok(0), |evaluations| evaluations.bytes(gpu, settings))?;
        console::busy("compiling the kernels");
        let trainer = Trainer::beside(gpu, &environment, &settings.mappo, tune, reserved)?;
        let evaluator = evaluations.map(|evaluations| evaluations.start(gpu, settings)).transpose()?;
        let wanted = Sizes::configured(&settings.mappo, &environment).micro_slots;
        let short_of_memory = trainer.sizes().micro_slots < wanted;
        Ok(Self { data, ranges, evaluated, trainer, evaluator, short_of_memory })
    }

    /// The policy of the weights that were chosen, with what it has to know of the market.
    pub fn policy(
        &self,
        chosen: Candidate,
        candles: &Candles,
        parts: &Parts,
        settings: &Settings,
    ) -> Result<Policy> {
        let date = |bar: usize| candles.timestamps[bar];
        let market = MarketMetadata {
            settings: settings.market.clone(),
            scaling: self.data.scaling().clone(),
            train_from: date(self.ranges[0].start),
            train_to: date(self.ranges[self.ranges.len() - 1].end - 1),
            test_from: date(parts.first_held_out()),
            bars: Some(TrainingBars::of(candles)),
        };
        let policy = self.trainer.policy_of(chosen.weights, chosen.observation_moments)?;
        Ok(policy.with_market(market)?)
    }
}
