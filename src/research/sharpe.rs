//! Moments of returns, and the Sharpe ratio in the light of the sample's length, its shape and the number of trials.
//!
//! Sources: Bailey & Lopez de Prado [2012, "The Sharpe ratio efficient frontier"] for the probabilistic Sharpe ratio and the
//! minimum track record length; Bailey & Lopez de Prado [2014, "The deflated Sharpe ratio: correcting for selection bias,
//! backtest overfitting and non-normality"] for the expected maximum and the deflated Sharpe ratio.

use std::f64::consts::E;

use serde::{Deserialize, Serialize};

use super::{checks, normal};
use crate::{Error, Result};

/// The Euler-Mascheroni constant.
const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;

/// A kurtosis may fall short of its lower bound, 1 + skewness^2, by this share of it: returns with two distinct values lie on
/// the bound, and rounding takes them to either side.
const PEARSON_SLACK: f64 = 1e-9;

/// Moments of simple returns per bar.
///
/// ```
/// use phalanx::research::ReturnStatistics;
///
/// let statistics = ReturnStatistics::new(&[0.01, -0.02, 0.03, 0.0])?;
/// assert!((statistics.mean - 0.005).abs() < 1e-15);
/// # Ok::<(), phalanx::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReturnStatistics {
    /// Number of returns, T.
    pub bars: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation with ddof 1; 0 if it is a rounding error.
    pub deviation: f64,
    /// Sharpe ratio of a bar, mean / deviation, with a risk-free rate of zero. `None` without variance.
    pub sharpe: Option<f64>,
    /// Skewness of population moments, m3 / m2^1.5. `None` without variance.
    pub skewness: Option<f64>,
    /// Raw kurtosis of population moments, m4 / m2^2: 3 for a normal distribution. `None` without variance.
    pub kurtosis: Option<f64>,
}

impl ReturnStatistics {
    /// Computes the moments of `returns`, `[bar]`.
    ///
    /// # Errors
    /// [`Error::Data`] for fewer than two returns, a return that is not finite, or returns whose squares overflow.
    pub fn new(returns: &[f64]) -> Result<Self> {
        checks::returns("return statistics", returns, 2)?;
        let count = returns.len() as f64;
        let mean = returns.iter().sum::<f64>() / count;
        let variance = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / count;
        let deviation = (variance * (count / (count - 1.0))).sqrt();
        if !deviation.is_finite() {
            return Err(checks::too_large("return statistics"));
        }
        if checks::is_constant(deviation, checks::peak(returns)) {
            let undefined = Self {
                bars: returns.len(),
                mean,
                deviation: 0.0,
                sharpe: None,
                skewness: None,
                kurtosis: None,
            };
            return Ok(undefined);
        }
        // Scaled first, so that the fourth powers of small returns do not underflow.
        let scale = variance.sqrt();
        let moment = |power| returns.iter().map(|r| ((r - mean) / scale).powi(power)).sum::<f64>() / count;
        Ok(Self {
            bars: returns.len(),
            mean,
            deviation,
            sharpe: Some(mean / deviation),
            skewness: Some(moment(3)),
            kurtosis: Some(moment(4)),
        })
    }
}

/// A Sharpe ratio of a bar, with the length and the shape of its sample.
///
/// ```
/// use phalanx::research::SharpeEstimate;
///
/// // 1250 daily bars, an annual Sharpe ratio of 2.5, the best of 100 trials whose annual ratios have a variance of 0.5.
/// let estimate = SharpeEstimate::new(2.5 / 250f64.sqrt(), 1250, -3.0, 10.0)?;
/// let deflated = estimate.deflated(100.0, (0.5f64 / 250.0).sqrt())?;
/// assert!((deflated.deflated - 0.9004).abs() < 1e-4);
/// # Ok::<(), phalanx::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharpeEstimate {
    sharpe: f64,
    bars: usize,
    skewness: f64,
    kurtosis: f64,
}

impl SharpeEstimate {
    /// An estimate from its moments: Sharpe ratio of a bar (not annualised), number of returns, skewness and raw kurtosis
    /// (3 for a normal distribution).
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two bars, a moment that is not finite or overflows, or a kurtosis below 1 +
    /// skewness^2, which no distribution has; most often an excess kurtosis was given.
    pub fn new(sharpe: f64, bars: usize, skewness: f64, kurtosis: f64) -> Result<Self> {
        checks::finite("sharpe", sharpe)?;
        checks::finite("skewness", skewness)?;
        checks::finite("kurtosis", kurtosis)?;
        if bars < 2 {
            return Err(Error::config("bars", format!("fewer than two returns, got {bars}")));
        }
        let bound = 1.0 + skewness * skewness;
        if kurtosis < bound * (1.0 - PEARSON_SLACK) {
            let reason = format!(
                "{kurtosis} is below 1 + skewness^2 = {bound}, which no distribution has; give the raw kurtosis, 3 for a \
                 normal distribution"
            );
            return Err(Error::config("kurtosis", reason));
        }
        let estimate = Self { sharpe, bars, skewness, kurtosis };
        if !estimate.variance_term().is_finite() {
            return Err(Error::config(
                "sharpe",
                format!("{sharpe} is too large for its skewness and kurtosis"),
            ));
        }
        Ok(estimate)
    }

    /// The estimate from simple returns per bar, `[bar]`.
    ///
    /// # Errors
    /// [`Error::Data`] for fewer than two returns, a return that is not finite, and returns without variance.
    pub fn from_returns(returns: &[f64]) -> Result<Self> {
        let statistics = ReturnStatistics::new(returns)?;
        match (statistics.sharpe, statistics.skewness, statistics.kurtosis) {
            (Some(sharpe), Some(skewness), Some(kurtosis)) => {
                Ok(Self { sharpe, bars: statistics.bars, skewness, kurtosis })
            }
            _ => Err(checks::zero_variance("Sharpe ratio", "the ratio")),
        }
    }

    /// The Sharpe ratio of a bar.
    #[must_use]
    pub fn sharpe(&self) -> f64 {
        self.sharpe
    }

    /// Probabilistic Sharpe ratio: the probability that the true ratio exceeds `benchmark`, a ratio of a bar,
    /// Phi\[(SR - SR*) sqrt(T - 1) / sqrt(1 - skewness SR + (kurtosis - 1) / 4 SR^2)\].
    ///
    /// # Errors
    /// [`Error::Config`] if `benchmark` is not finite.
    pub fn probabilistic(&self, benchmark: f64) -> Result<f64> {
        checks::finite("benchmark", benchmark)?;
        let excess = self.sharpe - benchmark;
        let deviation = self.variance_term().max(0.0).sqrt();
        // The ratio of some two-point distributions has no error.
        Ok(if deviation == 0.0 {
            if excess == 0.0 { 0.5 } else { f64::from(u8::from(excess > 0.0)) }
        } else {
            normal::cdf(excess / deviation * ((self.bars - 1) as f64).sqrt())
        })
    }

    /// Minimum track record length in bars: the number of returns from which the probabilistic Sharpe ratio over `benchmark`
    /// reaches `confidence`, 1 + (1 - skewness SR + (kurtosis - 1) / 4 SR^2) (Phi^-1(confidence) / (SR - SR*))^2. `None` if
    /// the ratio is not above `benchmark`: no length is enough.
    ///
    /// # Errors
    /// [`Error::Config`] if `benchmark` is not finite, or `confidence` is not above 0.5 and below 1.
    pub fn minimum_track_record(&self, benchmark: f64, confidence: f64) -> Result<Option<f64>> {
        checks::finite("benchmark", benchmark)?;
        if !(confidence > 0.5 && confidence < 1.0) {
            return Err(Error::config("confidence", format!("{confidence} is not above 0.5 and below 1")));
        }
        let excess = self.sharpe - benchmark;
        let bars = 1.0 + self.variance_term().max(0.0) * (normal::quantile(confidence) / excess).powi(2);
        Ok((excess > 0.0 && bars.is_finite()).then_some(bars))
    }

    /// Deflated Sharpe ratio of the best of `trials` independent trials, whose Sharpe ratios of a bar have the standard
    /// deviation `deviation`: the probabilistic Sharpe ratio over the expected maximum of trials without skill.
    ///
    /// # Errors
    /// As [`expected_maximum_sharpe`].
    pub fn deflated(&self, trials: f64, deviation: f64) -> Result<DeflatedSharpe> {
        let expected_maximum = expected_maximum_sharpe(trials, deviation)?;
        Ok(DeflatedSharpe {
            trials,
            deviation,
            expected_maximum,
            probabilistic: self.probabilistic(0.0)?,
            deflated: self.probabilistic(expected_maximum)?,
        })
    }

    /// Deflated Sharpe ratio among the Sharpe ratios of a bar of all trials, `[trial]`, this one included: their standard
    /// deviation with ddof 1, and as many independent trials as there are ratios. Trials that resemble each other count as
    /// fewer independent ones: give their effective number to [`SharpeEstimate::deflated`].
    ///
    /// # Errors
    /// [`Error::Data`] without a trial or for a ratio that is not finite.
    pub fn deflated_among(&self, sharpes: &[f64]) -> Result<DeflatedSharpe> {
        if sharpes.is_empty() {
            return Err(Error::Data("deflated Sharpe ratio: there are no trials".into()));
        }
        if let Some((trial, sharpe)) = sharpes.iter().enumerate().find(|(_, sharpe)| !sharpe.is_finite()) {
            return Err(Error::Data(format!(
                "deflated Sharpe ratio: the ratio of trial {trial} is {sharpe}, not finite"
            )));
        }
        let deviation = if sharpes.len() == 1 { 0.0 } else { ReturnStatistics::new(sharpes)?.deviation };
        self.deflated(sharpes.len() as f64, deviation)
    }

    /// T times the variance of the estimate, by Mertens (2002), 1 - skewness SR + (kurtosis - 1) / 4 SR^2: not negative where
    /// 1 + skewness^2 <= kurtosis, except for rounding errors.
    fn variance_term(&self) -> f64 {
        1.0 - self.skewness * self.sharpe + (self.kurtosis - 1.0) / 4.0 * self.sharpe * self.sharpe
    }
}

/// A Sharpe ratio after the number of trials from which it was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeflatedSharpe {
    /// Number of independent trials, N.
    pub trials: f64,
    /// Standard deviation of the trials' Sharpe ratios of a bar.
    pub deviation: f64,
    /// Expected maximum of the ratios of trials without skill, SR0, of a bar.
    pub expected_maximum: f64,
    /// Probabilistic Sharpe ratio over zero, which ignores the other trials.
    pub probabilistic: f64,
    /// Deflated Sharpe ratio: the probabilistic Sharpe ratio over `expected_maximum`.
    pub deflated: f64,
}

/// Expected maximum of the Sharpe ratios of `trials` independent trials without skill, whose ratios have the standard
/// deviation `deviation`, in the unit of `deviation`: deviation ((1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e))), with
/// Euler's constant g.
///
/// One trial has an expected maximum of zero. The number may be an effective one, such as 12.5. The formula is asymptotic: it
/// is 8 % too low for two trials and 3 % too high for five.
///
/// # Errors
/// [`Error::Config`] if `trials` is below 1 or `deviation` is negative, or one of them is not finite.
pub fn expected_maximum_sharpe(trials: f64, deviation: f64) -> Result<f64> {
    checks::finite("trials", trials)?;
    checks::finite("deviation", deviation)?;
    if trials < 1.0 {
        return Err(Error::config("trials", format!("{trials} is below 1: there are no trials")));
    }
    if deviation < 0.0 {
        return Err(Error::config("deviation", format!("{deviation} is negative")));
    }
    if trials == 1.0 {
        return Ok(0.0);
    }
    // Phi^-1(1 - p) = -Phi^-1(p), which keeps its digits for many trials.
    let upper = |p: f64| -normal::quantile(p);
    let maximum = (1.0 - EULER_GAMMA) * upper(trials.recip()) + EULER_GAMMA * upper((trials * E).recip());
    // Below 1.3 effective trials the formula is negative.
    let expected = deviation * maximum.max(0.0);
    if expected.is_finite() {
        Ok(expected)
    } else {
        Err(Error::config(
            "trials",
            format!("{trials} trials with a deviation of {deviation} are too many or too much"),
        ))
    }
}

#[cfg(test)]
mod tests;
