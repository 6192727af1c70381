//! A trainer on the training bars of some candles, with its evaluations.

use std::ops::Range;

use anyhow::Result;
use phalanx::env::{Trading, TradingSettings};
use phalanx::gpu::{Budget, Gpu};
use phalanx::mappo::{Autotune, Sizes, Trainer};
use phalanx::market::{Candles, ExtraFeatures, MarketData, Scaling, ScalingStatistics};
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
}

/// Everything before the trainer.
struct Planned {
    data: MarketData,
    ranges: Vec<Range<usize>>,
    environment: Trading,
    evaluated: Option<Range<usize>>,
    evaluations: Option<Evaluations>,
    /// Bytes that the evaluations will take.
    reserved: u64,
}

/// Bytes of device memory that a training needs, and those that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The plan that it has alone, with that of its evaluations.
    pub plan: u64,
    /// The candles with their features.
    pub data: u64,
    /// The budget of the device, beside one copy of the candles.
    pub budget: u64,
}

impl Needs {
    /// Those of a training alone.
    pub fn of(gpu: &Gpu, candles: &Candles, parts: &Parts, settings: &Settings) -> Result<Self> {
        let data = (candles, &ExtraFeatures::default());
        let Planned { data, environment, reserved, .. } =
            Planned::new(gpu, data, parts, settings, &settings.market, None)?;
        let (config, data) = (&settings.mappo, data.buffer().size());
        let budget = Budget::of(gpu, config.device.memory_budget_mb);
        let left = Budget { total: budget.total.saturating_sub(reserved), ..budget };
        let layout = config.layout(&environment)?;
        let (sizes, kernel_config) = Sizes::decide(gpu, config, &environment, &layout, &left)?;
        let plan = sizes.plan(&environment, &layout, config, &kernel_config).bytes() + reserved;
        // The settings may know of more than the driver.
        let budget = Budget::of(gpu, None).total.max(budget.total);
        Ok(Self { plan, data, budget })
    }

    /// The number of trainings at the same time that have the plan that each would have alone, up to `wanted` and at least one, and the MiB for
    /// the plan of each. Another plan might have other micro-batches, and results that differ by rounding.
    pub fn share(&self, wanted: usize) -> (usize, u64) {
        let copies = |count: u64| (count - 1).saturating_mul(self.data);
        let left = |count: u64| (self.budget.saturating_sub(copies(count)) / count) >> 20;
        let fitting = (1..=wanted as u64).rev().find(|count| left(*count) << 20 >= self.plan).unwrap_or(1);
        (fitting as usize, left(fitting))
    }
}

impl Planned {
    fn new(
        gpu: &Gpu,
        (candles, extra): (&Candles, &ExtraFeatures),
        parts: &Parts,
        settings: &Settings,
        rules: &TradingSettings,
        scaling: Option<ScalingStatistics>,
    ) -> Result<Self> {
        console::busy("computing the features");
        let trained = Trained::new(&settings.evaluation, &parts.train);
        let scaling = scaling.map_or_else(|| trained.scaling(), Scaling::Given);
        let data = MarketData::new(gpu, candles, extra, &scaling)?;
        let ranges = trained.tradable(&data, settings.market.episode_length);
        let environment = Trading::new(&data, &settings.market, &episodes(&ranges))?;
        let evaluated = trained.evaluated;
        let of = |bars| Evaluations::new(&data, settings, rules, bars);
        let evaluations = evaluated.clone().map(of).transpose()?;
        let reserved = evaluations.as_ref().map_or(Ok(0), |evaluations| evaluations.bytes(gpu, settings))?;
        Ok(Self { data, ranges, environment, evaluated, evaluations, reserved })
    }
}

impl Prepared {
    /// With features beside the built-in ones, and evaluations by `rules`. Features are scaled by `scaling`; without, by statistics of the
    /// training bars.
    pub fn new(
        gpu: &Gpu,
        (candles, extra): (&Candles, &ExtraFeatures),
        parts: &Parts,
        settings: &Settings,
        rules: &TradingSettings,
        scaling: Option<ScalingStatistics>,
        tune: Option<&mut Autotune>,
    ) -> Result<Self> {
        let Planned { data, ranges, environment, evaluated, evaluations, reserved } =
            Planned::new(gpu, (candles, extra), parts, settings, rules, scaling)?;
        console::busy("compiling the kernels");
        let trainer = Trainer::beside(gpu, &environment, &settings.mappo, tune, reserved)?;
        let evaluator = evaluations.map(|evaluations| evaluations.start(gpu, settings)).transpose()?;
        Ok(Self { data, ranges, evaluated, trainer, evaluator })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_train_at_once_as_keep_their_plans() {
        const MIB: u64 = 1 << 20;
        let needs = Needs { plan: 100 * MIB, data: 20 * MIB, budget: 1000 * MIB };
        assert_eq!(needs.share(4), (4, 235), "three more copies of the candles");
        assert_eq!(needs.share(1), (1, 1000));
        // 8 x 100 and 7 x 20 fit, 9 x 100 and 8 x 20 do not.
        assert_eq!(needs.share(64), (8, 107));
        assert_eq!(Needs { budget: 100 * MIB, ..needs }.share(4), (1, 100));
        // A part of a MiB is not given away.
        assert_eq!(Needs { plan: 235 * MIB + 1, data: 0, budget: 471 * MIB }.share(2), (1, 471));
        assert_eq!(Needs { budget: 0, ..needs }.share(4), (1, 0), "the training says what is missing");
        assert_eq!(Needs { data: u64::MAX, ..needs }.share(3), (1, 1000));
    }
}
