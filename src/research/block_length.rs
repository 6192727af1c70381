//! Automatic block length of the stationary bootstrap.
//!
//! Sources: Politis & White [2004, "Automatic block-length selection for the dependent bootstrap"] with the correction of
//! Patton, Politis & White (2009): b = (2 G^2 / D)^(1/3) T^(1/3) with G = sum h(k/m) |k| R(k), D = 2 (sum h(k/m) R(k))^2 over
//! |k| <= m, autocovariances R and the flat-top window h(x) = min(1, 2 (1 - |x|)).

use super::bootstrap::longest_blocks;
use super::checks;
use crate::{Error, Result};

/// Fewer returns have too few autocorrelations.
const LEAST: usize = 16;

/// Automatic mean block length in bars of the stationary bootstrap for the mean of `returns`, `[bar]`: at least 1, at most
/// ceil(min(3 sqrt(T), T/3)).
///
/// The bandwidth m is twice the first lag of max(5, floor(log10 T)) consecutive autocorrelations within 2 sqrt(log10(T) / T),
/// as in Patton's program and the Python package arch, whose autocorrelations these are too. The papers take the lag before
/// it, and so does holdout-backtest: on one series arch finds 13.64 bars and holdout-backtest 14.40.
///
/// # Errors
/// [`Error::Data`] for fewer than 16 returns, a return that is not finite, and returns without variance.
pub fn automatic_block_length(returns: &[f64]) -> Result<f64> {
    estimate(returns)?.ok_or_else(|| checks::zero_variance("automatic block length", "the block length"))
}

/// The same; `None` without variance.
pub(super) fn estimate(returns: &[f64]) -> Result<Option<f64>> {
    let bars = returns.len();
    if bars < LEAST {
        let reason =
            format!("automatic block length: fewer than {LEAST} returns, got {bars}; give a block length");
        return Err(Error::Data(reason));
    }
    checks::returns("automatic block length", returns, LEAST)?;
    let count = bars as f64;
    let mean = returns.iter().sum::<f64>() / count;
    let mut centred: Vec<f64> = returns.iter().map(|r| r - mean).collect();
    let deviation = (product(&centred, &centred) / count).sqrt();
    if !deviation.is_finite() {
        return Err(checks::too_large("automatic block length"));
    }
    if checks::is_constant(deviation, checks::peak(returns)) {
        return Ok(None);
    }
    // The length does not depend on the scale; products of small returns might underflow.
    centred.iter_mut().for_each(|r| *r /= deviation);

    let run = 5.max(count.log10() as usize);
    let most = count.sqrt().ceil() as usize + run;
    let band = 2.0 * (count.log10() / count).sqrt();
    let lags: Vec<Lag> = (0..=most).map(|lag| Lag::new(&centred, lag)).collect();
    let small: Vec<bool> = lags.iter().map(|lag| lag.correlation.abs() < band).collect();
    // Of the last lag, `most`, only the autocovariance is used.
    let first =
        small.iter().take(most).collect::<Vec<_>>().windows(run).position(|run| run.iter().all(|s| **s));
    let bandwidth = first.map_or(most, |lag| (2 * lag.max(1)).min(most));

    let (mut weighted, mut spectrum) = (0.0, lags.first().map_or(0.0, |lag| lag.covariance));
    for (k, lag) in lags.iter().enumerate().skip(1).take(bandwidth) {
        let window = f64::min(1.0, 2.0 * (1.0 - k as f64 / bandwidth as f64));
        weighted += 2.0 * window * k as f64 * lag.covariance;
        spectrum += 2.0 * window * lag.covariance;
    }
    let longest = longest_blocks(returns.len());
    let length = (2.0 * weighted * weighted / (2.0 * spectrum * spectrum) * count).cbrt();
    // A spectrum of zero at frequency zero has no finite length.
    Ok(Some(if length.is_nan() { longest } else { length.clamp(1.0, longest) }))
}

struct Lag {
    /// Sum of products divided by T.
    covariance: f64,
    /// Sum of products divided by the norms of the first and the last T - lag - 1 values.
    correlation: f64,
}

impl Lag {
    fn new(centred: &[f64], lag: usize) -> Self {
        let tail = |skip: usize| centred.get(skip..).unwrap_or_default();
        let head = |skip: usize| centred.get(..centred.len().saturating_sub(skip)).unwrap_or_default();
        let cross = product(tail(lag), head(lag));
        let norms = product(tail(lag + 1), tail(lag + 1)) * product(head(lag + 1), head(lag + 1));
        // Without a norm the correlation is undefined and does not count as small.
        let correlation = if norms > 0.0 { cross / norms.sqrt() } else { f64::INFINITY };
        Self { covariance: cross / centred.len() as f64, correlation }
    }
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
