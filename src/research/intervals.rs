//! Confidence intervals of a statistic of returns, and of the difference between two strategies, by the stationary bootstrap.
//!
//! Percentile and bias-corrected accelerated (BCa) intervals; source: Efron [1987, "Better bootstrap confidence intervals"].
//! The acceleration comes from a jackknife that deletes blocks of the bootstrap's mean length instead of single bars, which
//! would ignore the dependence between bars, as the jackknife variance of Künsch [1989, "The jackknife and the bootstrap for
//! general stationary observations"] does. With a block length of 1 it is the usual jackknife.

use serde::{Deserialize, Serialize};

use super::bootstrap::{Resampling, StationaryBootstrap};
use super::{block_length, checks, normal};
use crate::{Error, Result};

/// More deleted blocks take longer and change nothing that can be seen.
const MAX_JACKKNIFE: usize = 1000;

/// At most one resample in this many may leave the statistic undefined.
const DEFINED: usize = 20;

/// The result of [`confidence_interval`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BootstrapInterval {
    /// The statistic of the returns themselves.
    pub value: f64,
    /// Confidence level, such as 0.95.
    pub level: f64,
    /// Percentile interval, lower and upper end: quantiles of the resampled statistics, interpolated linearly.
    pub percentile: [f64; 2],
    /// BCa interval. `None` if it is undefined: no resample is below or none above the value, or the jackknife does not vary.
    pub bca: Option<[f64; 2]>,
    /// Mean block length in bars.
    pub block_length: f64,
    /// Number of resamples for which the statistic is defined; the others are left out.
    pub resamples: usize,
}

/// The result of [`paired_difference`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PairedDifference {
    /// Value and intervals of the statistic of the first strategy minus that of the second.
    pub difference: BootstrapInterval,
    /// Two-sided p-value of no difference: (1 + #(|d* - d| >= |d|)) / (1 + resamples) with the difference d and the resampled
    /// differences d*.
    pub p_value: f64,
}

/// Confidence interval of `statistic` for simple `returns`, `[bar]`, at a `level` such as 0.95.
///
/// [`sharpe_ratio`](super::sharpe_ratio), [`total_return`](super::total_return) and [`max_drawdown`](super::max_drawdown) are
/// statistics, and so is any other function of the returns; it returns `None` if it is undefined.
///
/// ```
/// use phalanx::research::{Resampling, confidence_interval, sharpe_ratio};
///
/// let returns: Vec<f64> = (0..250).map(|bar| 0.001 + 0.01 * f64::from(bar * bar).sin()).collect();
/// let interval = confidence_interval(&returns, sharpe_ratio, 0.95, &Resampling::default())?;
/// assert!(interval.percentile[0] < interval.value && interval.value < interval.percentile[1]);
/// # Ok::<(), phalanx::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] for a level that is not between 0 and 1, and for settings out of range; [`Error::Data`] for fewer than
/// two returns (16 without a given block length), a return that is not finite, and a statistic that is undefined for the
/// returns or for more than one resample in twenty.
pub fn confidence_interval(
    returns: &[f64],
    statistic: impl Fn(&[f64]) -> Option<f64>,
    level: f64,
    resampling: &Resampling,
) -> Result<BootstrapInterval> {
    resampled_interval(returns, statistic, level, resampling).map(|(interval, _)| interval)
}

/// The interval, and the resampled statistics that it comes from, ascending.
pub(super) fn resampled_interval(
    returns: &[f64],
    statistic: impl Fn(&[f64]) -> Option<f64>,
    level: f64,
    resampling: &Resampling,
) -> Result<(BootstrapInterval, Vec<f64>)> {
    checks::returns("confidence interval", returns, 2)?;
    let automatic = || Ok(block_length::estimate(returns)?.unwrap_or(1.0));
    let bootstrap = resampling.bootstrap(returns.len(), automatic)?;
    let mut chosen = Vec::new();
    let evaluate = |bars: &[usize]| {
        gather(returns, bars, &mut chosen);
        statistic(&chosen)
    };
    let replicates = Replicates::new(statistic(returns), evaluate, returns.len(), &bootstrap, resampling)?;
    Ok((replicates.interval(level, bootstrap.block_length())?, replicates.resampled))
}

/// The difference of `statistic` between two strategies on the same bars, simple returns `[bar]`: both are resampled with the
/// same bars, so that what moves both cancels. Without a given block length the longer automatic one of the two is used.
///
/// # Errors
/// As [`confidence_interval`], and [`Error::Shape`] for strategies with different numbers of returns.
pub fn paired_difference(
    first: &[f64],
    second: &[f64],
    statistic: impl Fn(&[f64]) -> Option<f64>,
    level: f64,
    resampling: &Resampling,
) -> Result<PairedDifference> {
    if first.len() != second.len() {
        let expected = format!("{}, as many as of the first strategy", first.len());
        return Err(Error::shape("returns of the second strategy", expected, second.len()));
    }
    checks::returns("paired difference, first strategy", first, 2)?;
    checks::returns("paired difference, second strategy", second, 2)?;
    let automatic = || {
        let lengths = [block_length::estimate(first)?, block_length::estimate(second)?];
        Ok(lengths.into_iter().flatten().fold(1.0, f64::max))
    };
    let bootstrap = resampling.bootstrap(first.len(), automatic)?;
    let difference = |a: &[f64], b: &[f64]| Some(statistic(a)? - statistic(b)?);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let evaluate = |bars: &[usize]| {
        gather(first, bars, &mut one);
        gather(second, bars, &mut other);
        difference(&one, &other)
    };
    let value = difference(first, second);
    let replicates = Replicates::new(value, evaluate, first.len(), &bootstrap, resampling)?;
    Ok(PairedDifference {
        difference: replicates.interval(level, bootstrap.block_length())?,
        p_value: replicates.p_value(),
    })
}

/// The returns of `bars`, into a buffer.
fn gather(returns: &[f64], bars: &[usize], chosen: &mut Vec<f64>) {
    chosen.clear();
    chosen.extend(bars.iter().filter_map(|bar| returns.get(*bar)));
}

/// A statistic of the sample, of its resamples, and of the sample without one block.
struct Replicates {
    value: f64,
    /// Of the resamples, ascending.
    resampled: Vec<f64>,
    /// Empty if the statistic is undefined without some block.
    jackknife: Vec<f64>,
}

impl Replicates {
    /// `evaluate` is the statistic of some bars.
    fn new(
        value: Option<f64>,
        mut evaluate: impl FnMut(&[usize]) -> Option<f64>,
        bars: usize,
        bootstrap: &StationaryBootstrap,
        resampling: &Resampling,
    ) -> Result<Self> {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return Err(Error::Data(
                "bootstrap: the statistic is undefined for the returns (zero variance?)".into(),
            ));
        };
        let mut evaluate = |bars: &[usize]| evaluate(bars).filter(|value| value.is_finite());
        let (mut resampled, mut indices) = (Vec::new(), Vec::new());
        for resample in 0..resampling.resamples {
            bootstrap.write_indices(resample, &mut indices);
            resampled.extend(evaluate(&indices));
        }
        let resamples = resampling.resamples as usize;
        let undefined = resamples - resampled.len();
        if undefined > resamples / DEFINED {
            return Err(Error::Data(format!(
                "bootstrap: the statistic is undefined for {undefined} of {resamples} resamples; more returns are needed"
            )));
        }
        resampled.sort_unstable_by(f64::total_cmp);
        let jackknife: Option<Vec<f64>> = deleted_blocks(bars, bootstrap.block_length())
            .map(|block| {
                indices.clear();
                indices.extend((0..block.start).chain(block.end..bars));
                evaluate(&indices)
            })
            .collect();
        Ok(Self { value, resampled, jackknife: jackknife.unwrap_or_default() })
    }

    fn interval(&self, level: f64, block_length: f64) -> Result<BootstrapInterval> {
        if !(level > 0.0 && level < 1.0) {
            return Err(Error::config("level", format!("{level} is not between 0 and 1")));
        }
        let tail = (1.0 - level) / 2.0;
        Ok(BootstrapInterval {
            value: self.value,
            level,
            percentile: [tail, 1.0 - tail].map(|p| quantile(&self.resampled, p)),
            bca: self.bca(tail),
            block_length,
            resamples: self.resampled.len(),
        })
    }

    /// Quantiles Phi(z0 + (z0 + z) / (1 - a (z0 + z))) of the resamples, with the bias z0 = Phi^-1(share of resamples below the
    /// value, equal ones by half), the acceleration a, and z = Phi^-1(tail) and Phi^-1(1 - tail).
    fn bca(&self, tail: f64) -> Option<[f64; 2]> {
        let below = self.resampled.partition_point(|value| *value < self.value);
        let up_to = self.resampled.partition_point(|value| *value <= self.value);
        let bias = normal::quantile((below + up_to) as f64 / (2 * self.resampled.len()) as f64);
        let acceleration = acceleration(&self.jackknife)?;
        let end = |z: f64| {
            let shifted = bias + z;
            let divisor = 1.0 - acceleration * shifted;
            let probability = normal::cdf(bias + shifted / divisor);
            (bias.is_finite() && divisor > 0.0).then(|| quantile(&self.resampled, probability))
        };
        let z = normal::quantile(tail);
        Some([end(z)?, end(-z)?])
    }

    fn p_value(&self) -> f64 {
        let far = |resampled: &&f64| (**resampled - self.value).abs() >= self.value.abs();
        let extreme = self.resampled.iter().filter(far).count();
        (1 + extreme) as f64 / (1 + self.resampled.len()) as f64
    }
}

/// Consecutive blocks of about `block_length` bars that cover `bars` bars.
fn deleted_blocks(bars: usize, block_length: f64) -> impl Iterator<Item = std::ops::Range<usize>> {
    let length = (block_length.round() as usize).max(1);
    let blocks = (bars / length).min(MAX_JACKKNIFE);
    // Without overflow: bars * block might exceed usize.
    let (each, longer) = (bars / blocks.max(1), bars % blocks.max(1));
    let start = move |block: usize| block * each + block.min(longer);
    (0..blocks).map(move |block| start(block)..start(block + 1))
}

/// Acceleration sum(u^3) / (6 sum(u^2)^1.5) with u = mean of the jackknife values - value. `None` if they do not vary.
fn acceleration(jackknife: &[f64]) -> Option<f64> {
    let mean = jackknife.iter().sum::<f64>() / jackknife.len() as f64;
    let largest = jackknife.iter().fold(0.0, |largest, value| f64::max(largest, (mean - value).abs()));
    // Scaled by the largest, so that cubes of small differences do not underflow.
    let sum = |power| jackknife.iter().map(|value| ((mean - value) / largest).powi(power)).sum::<f64>();
    let acceleration = sum(3) / (6.0 * sum(2).powf(1.5));
    (jackknife.len() > 1 && acceleration.is_finite()).then_some(acceleration)
}

/// Quantile of ascending values, interpolated linearly between the values at p (n - 1), as numpy does by default.
fn quantile(ascending: &[f64], p: f64) -> f64 {
    let place = p * (ascending.len().saturating_sub(1)) as f64;
    let at = |place: f64| ascending.get(place as usize).copied().unwrap_or_default();
    let (below, above) = (at(place.floor()), at(place.ceil()));
    let share = place.fract();
    // Equal neighbours are returned unchanged.
    if below == above { below } else { below * (1.0 - share) + above * share }
}

#[cfg(test)]
mod tests;
