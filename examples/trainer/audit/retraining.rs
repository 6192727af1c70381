//! The part of an audit that trains agents once more: the controls and the spread of seeds.

use anyhow::Result;
use phalanx::backtest::Backtest;
use phalanx::market::{Candles, ExtraFeatures, MarketData, ScalingStatistics, TimestampFormat};
use phalanx::policy::Policy;
use phalanx::research::{next_returns, random_timing_on, shuffled};

use super::record::Row;
use super::{Audited, Spread, ratio};
use crate::console::note;
use crate::held_out::HeldOut;
use crate::parts::{Parts, Trained};
use crate::run::Settings;
use crate::summary::Summary;
use crate::train::Again;

/// Largest p-value of the timing of positions that counts as more than luck.
const SIGNIFICANT: f64 = 0.05;

/// Draws of the timing test.
const DRAWS: usize = 1000;

/// Seed of the shuffled candles.
const SHUFFLE: u64 = 1;

/// A run that can be trained once more on the candles at hand.
pub struct Retraining<'a> {
    audited: &'a Audited,
    settings: Settings,
    /// Whether it trains as the run did, as long and from random weights.
    whole: bool,
    parts: Parts,
}

impl<'a> Retraining<'a> {
    /// `None` unless the candles hold the bars that the run was trained on.
    pub fn new(audited: &'a Audited, iterations: Option<u32>) -> Result<Option<Self>> {
        let HeldOut { agents, candles, data, .. } = &audited.run;
        let mut settings = agents.first().settings.clone();
        let whole = iterations.is_none_or(|iterations| iterations == settings.mappo.ppo.iterations);
        if let Some(iterations) = iterations {
            settings.mappo.ppo.iterations = iterations;
        }
        let Ok(parts) = Parts::new(&settings.data, candles) else { return Ok(None) };
        let trained = Trained::new(&settings.evaluation, &parts.train);
        let ranges = trained.tradable(data, settings.market.episode_length);
        let metadata = audited.run.market()?;
        let same = |bar: Option<usize>, moment| bar.is_some_and(|bar| candles.timestamps[bar] == moment);
        let first = ranges.first().map(|range| range.start);
        let last = ranges.last().and_then(|range| range.end.checked_sub(1));
        let summary = Summary::read(&agents.first().folder.summary())?;
        // Older runs have no checksum.
        let checksum = summary.candles.is_none_or(|checksum| checksum == candles.checksum(0..parts.end()));
        let known = checksum && same(first, metadata.train_from) && same(last, metadata.train_to);
        let whole = whole && !summary.from_weights;
        Ok(known.then_some(Self { audited, settings, whole, parts }))
    }

    /// Says how long the controls and `seeds` trainings may take.
    pub fn announce(&self, seeds: u64) -> Result<()> {
        // Both controls, and the seeds, of which the run may be one.
        let trainings = if seeds > 1 { 2 + seeds - u64::from(self.whole) } else { 2 };
        let HeldOut { agents, candles, .. } = &self.audited.run;
        let summary = Summary::read(&agents.first().folder.summary())?;
        let dates = TimestampFormat::of(&candles.timestamps);
        let own = agents.first().settings.mappo.ppo.iterations.max(1);
        let share = f64::from(self.settings.mappo.ppo.iterations) / f64::from(own);
        note!(
            "Training  {trainings} more times on the bars up to {}, about {:.0} s (--quick leaves it out)",
            dates.format(self.audited.run.market()?.train_to),
            summary.seconds * share * trainings as f64
        );
        Ok(())
    }

    /// Trains with another seed, features or candles, and trades the held-out bars. The run's own features keep its `scaling`.
    fn traded(
        &self,
        data: (&Candles, &ExtraFeatures),
        scaling: Option<ScalingStatistics>,
        seed: u64,
        what: &str,
    ) -> Result<(Backtest, f64)> {
        let (candles, _) = data;
        let HeldOut { gpu, bars, options, .. } = &self.audited.run;
        let again = Again { gpu, settings: &self.settings, parts: &self.parts };
        let (policy, data): (Policy, MarketData) = again.train(data, scaling, seed, what)?;
        let targets = policy.targets(gpu, &data, bars)?;
        let backtest = Backtest::replay(candles, bars.clone(), targets.view(), options)?;
        let timing = random_timing_on(Some(gpu), candles, bars, targets.view(), options, DRAWS, 0)?;
        Ok((backtest, timing.p_value))
    }

    /// Agents that are told the next return must win.
    pub fn told_the_answer(&self) -> Result<Row> {
        let candles = &self.audited.run.candles;
        let (extra, seed) = (next_returns(candles), self.settings.mappo.ppo.seed);
        let what = "training with the next return as a feature";
        let (backtest, p) = self.traded((candles, &extra), None, seed, what)?;
        let (own, hold) = (backtest.metrics.sharpe, backtest.benchmark.sharpe);
        let wins = own.unwrap_or(0.0) > hold.unwrap_or(0.0).max(0.0) && p <= SIGNIFICANT;
        let (verdict, passed) = match (wins, self.audited.can_be_significant()) {
            (true, _) => ("passed", Some(true)),
            (false, true) => {
                ("FAILED: training is broken, or much too short, or costs eat every move", Some(false))
            }
            (false, false) => ("not conclusive: too few held-out bars", None),
        };
        let figure = format!("Sharpe {} (buy and hold {}), p = {p:.3}", ratio(own), ratio(hold));
        Ok(Row::new("Told the next return (must win)", figure, verdict, passed))
    }

    /// Agents on shuffled candles must not win.
    pub fn on_noise(&self) -> Result<Row> {
        let HeldOut { candles, bars, .. } = &self.audited.run;
        let ranges = [0..bars.start, bars.clone(), bars.end..candles.bars()];
        let noise = shuffled(candles, &ranges, SHUFFLE)?;
        let (backtest, p) = self.traded(
            (&noise, &ExtraFeatures::default()),
            None,
            self.settings.mappo.ppo.seed,
            "training on shuffled candles",
        )?;
        let (verdict, passed) = match (p > SIGNIFICANT, self.audited.can_be_significant()) {
            (_, false) => ("not conclusive: too few held-out bars", None),
            (true, _) => ("passed", Some(true)),
            (false, _) => {
                ("FAILED: they win where there is nothing to know (by chance 1 time in 20)", Some(false))
            }
        };
        let figure = format!("Sharpe {}, p = {p:.3}", ratio(backtest.metrics.sharpe));
        Ok(Row::new("Bars in random order (must not win)", figure, verdict, passed))
    }

    /// The same training with other seeds. The run is one of them, if it was not longer.
    pub fn seeds(&self, count: u64) -> Result<Row> {
        let HeldOut { candles, data, .. } = &self.audited.run;
        let mut ratios = Vec::new();
        if self.whole {
            ratios.push(self.audited.sharpe.unwrap_or(0.0));
        }
        for more in ratios.len() as u64..count {
            let what = format!("training with another seed, {} of {count}", more + 1);
            let seed = self.settings.mappo.ppo.seed.wrapping_add(more) & (i64::MAX as u64);
            let scaling = Some(data.scaling().clone());
            let (backtest, _) = self.traded((candles, &ExtraFeatures::default()), scaling, seed, &what)?;
            ratios.push(backtest.metrics.sharpe.unwrap_or(0.0));
        }
        let Spread { lowest, median, highest, deviation } = Spread::of(&ratios);
        let verdict = match () {
            () if lowest == 0.0 && highest == 0.0 => "none trades",
            () if highest <= 0.0 => "all lose",
            () if lowest <= 0.0 => "depends on the seed: some lose",
            () if self.whole && lucky(&ratios) => "the run is one of the lucky ones",
            () => "alike",
        };
        let figure =
            format!("Sharpe {lowest:.2} to {highest:.2}, median {median:.2}, deviation {deviation:.2}");
        let length = match self.whole {
            true => String::new(),
            false => format!(" for {} iterations", self.settings.mappo.ppo.iterations),
        };
        Ok(Row::new(format!("Trained with {count} seeds{length}"), figure, verdict, None))
    }
}

/// Whether the first of the ratios is more than two deviations above the median of the others, which are three at least.
fn lucky(ratios: &[f64]) -> bool {
    let Some((own, others)) = ratios.split_first().filter(|(_, others)| others.len() >= 3) else {
        return false;
    };
    let Spread { median, deviation, .. } = Spread::of(others);
    *own > median + 2.0 * deviation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_lucky_if_the_other_seeds_are_far_below() {
        assert!(lucky(&[2.0, 0.1, 0.2, 0.3]) && !lucky(&[0.35, 0.1, 0.2, 0.3]));
        assert!(!lucky(&[5.0, 0.1, 0.2]) && !lucky(&[5.0]) && !lucky(&[]));
        let Spread { lowest, median, highest, deviation } = Spread::of(&[0.3, 0.1, 0.2, 0.4]);
        assert_eq!((lowest, highest), (0.1, 0.4));
        // Squares of 0.15 and 0.05, twice each, over 3.
        assert!((median - 0.25).abs() < 1e-12 && (deviation - (0.05f64 / 3.0).sqrt()).abs() < 1e-12);
    }
}
