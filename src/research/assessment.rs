//! The verdict on a backtest: learnt, not proven, or beaten by a rule that needs no training.

use std::ops::Range;

use ndarray::ArrayView2;

use super::intervals::resampled_interval;
use super::{
    Baseline, BootstrapInterval, DeflatedSharpe, PairedDifference, RandomTiming, Resampling,
    paired_difference, random_timing_on, sharpe_ratio,
};
use crate::backtest::{Backtest, Metrics, ReplayOptions};
use crate::gpu::Gpu;
use crate::market::Candles;
use crate::{Error, Result};

/// Deflated Sharpe ratio from which on a result counts as more than luck.
const DEFLATED: f64 = 0.95;

/// Largest p-value of the timing of positions that counts as more than luck.
const TIMING: f64 = 0.05;

/// Level of confidence intervals.
const LEVEL: f64 = 0.95;

/// Draws and resamples, and the seed of both.
#[derive(Clone, Copy, Debug)]
pub struct AssessmentOptions<'a> {
    /// Draws of [`super::random_timing`].
    pub draws: usize,
    /// Resamples of the stationary bootstrap.
    pub resamples: u32,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Whether momentum may sell short.
    pub shorting: bool,
    /// The device for the draws, which are traded on the CPU without one, and where it has too little memory or stops
    /// loops that are long. The verdict is the same.
    pub gpu: Option<&'a Gpu>,
}

impl Default for AssessmentOptions<'_> {
    fn default() -> Self {
        Self { draws: 1000, resamples: 2000, seed: 0, shorting: true, gpu: None }
    }
}

/// A baseline beside the agents.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Comparison {
    /// The rule.
    pub baseline: Baseline,
    /// Its metrics on the same bars, with the same costs.
    pub metrics: Metrics,
    /// Difference of the Sharpe ratios of a bar, agents less baseline. `None` where a ratio is undefined, or the returns
    /// are too few.
    pub difference: Option<PairedDifference>,
}

/// A judgement in one word.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The agents placed no order.
    NeverTraded,
    /// A baseline has the higher Sharpe ratio.
    BeatenBy(Baseline),
    /// No baseline is better, but luck or the number of trials explain the result.
    NotProven,
    /// No baseline is better, the deflated Sharpe ratio is at least 0.95, and the p-value of the timing of positions is at most 0.05.
    Learnt,
}

/// The evidence for and against a backtest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Assessment {
    /// Sharpe ratio of a bar with its confidence intervals (95 %). `None` if it is undefined, or the returns are too few.
    pub sharpe: Option<BootstrapInterval>,
    /// Sharpe ratios of a bar of the resamples that the intervals come from, ascending. Empty without an interval.
    pub resampled: Vec<f64>,
    /// The Sharpe ratio in the light of the number of trials. `None` if it is undefined.
    pub deflated: Option<DeflatedSharpe>,
    /// The same positions at other times.
    pub timing: RandomTiming,
    /// Baselines that the candles allow, buy and hold first.
    pub baselines: Vec<Comparison>,
    /// The judgement.
    pub verdict: Verdict,
}

impl Assessment {
    /// Judges `backtest`, in which the positions `targets` traded `bars` of `candles`; `deflated` is its Sharpe ratio in the light of the
    /// number of trials ([`Trials::deflated`](super::Trials::deflated)).
    ///
    /// # Errors
    /// As [`random_timing_on`]; errors of the statistics for returns whose squares overflow.
    pub fn new(
        backtest: &Backtest,
        candles: &Candles,
        bars: &Range<usize>,
        targets: ArrayView2<'_, f64>,
        replay: &ReplayOptions,
        deflated: Option<DeflatedSharpe>,
        options: &AssessmentOptions<'_>,
    ) -> Result<Self> {
        let returns = backtest.returns();
        let resampling =
            Resampling { resamples: options.resamples, seed: options.seed, ..Default::default() };
        let interval = enough(resampled_interval(&returns, sharpe_ratio, LEVEL, &resampling))?;
        let (sharpe, resampled) = interval.map_or((None, Vec::new()), |(it, all)| (Some(it), all));
        let &AssessmentOptions { draws, seed, gpu, .. } = options;
        let timing = random_timing_on(gpu, candles, bars, targets, replay, draws, seed)?;
        let lookback = replay.periods_per_year.value().round() as usize;
        let rules = [
            Baseline::BuyAndHold,
            Baseline::EqualWeight,
            Baseline::Momentum { lookback, shorting: options.shorting },
            Baseline::Flat,
        ];
        let mut baselines = Vec::new();
        for baseline in rules {
            if matches!(baseline, Baseline::Momentum { lookback, .. } if bars.start < lookback) {
                continue;
            }
            let account = baseline.replay(candles, bars.clone(), replay)?;
            let theirs = account.returns();
            let difference = enough(paired_difference(&returns, &theirs, sharpe_ratio, LEVEL, &resampling))?;
            baselines.push(Comparison { baseline, metrics: account.metrics, difference });
        }
        let verdict = verdict(backtest, &baselines, deflated.as_ref(), &timing);
        Ok(Self { sharpe, resampled, deflated, timing, baselines, verdict })
    }
}

/// Nothing, where the returns are too few or too equal for it.
fn enough<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(Error::Data(_)) => Ok(None),
        other => other.map(Some),
    }
}

/// An undefined Sharpe ratio, of an account that never moved, counts as 0.
fn verdict(
    backtest: &Backtest,
    baselines: &[Comparison],
    deflated: Option<&DeflatedSharpe>,
    timing: &RandomTiming,
) -> Verdict {
    if backtest.trades.is_empty() {
        return Verdict::NeverTraded;
    }
    let ratio = |metrics: &Metrics| metrics.sharpe.unwrap_or(0.0);
    let best = baselines.iter().max_by(|a, b| ratio(&a.metrics).total_cmp(&ratio(&b.metrics)));
    match best {
        Some(best) if ratio(&best.metrics) > ratio(&backtest.metrics) => Verdict::BeatenBy(best.baseline),
        _ if deflated.is_some_and(|it| it.deflated >= DEFLATED) && timing.p_value <= TIMING => {
            Verdict::Learnt
        }
        _ => Verdict::NotProven,
    }
}

#[cfg(test)]
#[path = "assessment_tests.rs"]
mod tests;
