//! Rules without learning, on the same bars and at the same costs as the agents.

use std::cmp::Ordering;
use std::ops::Range;

use ndarray::{Array2, s};

use crate::backtest::{Backtest, ReplayOptions, check_bars};
use crate::market::Candles;
use crate::{Error, Result};

/// A rule that needs no training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Baseline {
    /// Equal parts of the equity in all instruments from the first order on, never traded again.
    BuyAndHold,
    /// Equal parts of the equity in all instruments, restored by orders after the first bar of every month.
    EqualWeight,
    /// Time-series momentum after Moskowitz, Ooi and Pedersen (2012): after the first bar of every month, long what rose over the last
    /// `lookback` bars, short what fell; flat in place of short where shorting is not allowed. Rebalanced as [`Baseline::EqualWeight`].
    /// Unlike theirs, positions are not scaled by volatility, and returns are not in excess of those of cash.
    Momentum {
        /// Bars to look back, usually those of a year.
        lookback: usize,
        /// Whether what fell is sold short.
        shorting: bool,
    },
    /// No position: what the cash earns.
    Flat,
}

impl Baseline {
    /// The name for tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::BuyAndHold => "buy and hold",
            Self::EqualWeight => "equal weight, rebalanced monthly",
            Self::Momentum { .. } => "momentum",
            Self::Flat => "flat",
        }
    }

    /// Trades the bars `bars` of `candles`. Decisions see no later bar than their own.
    ///
    /// # Errors
    /// [`Error::Data`] if there are fewer bars before the first than momentum looks back; otherwise as [`Backtest::replay`].
    pub fn replay(&self, candles: &Candles, bars: Range<usize>, options: &ReplayOptions) -> Result<Backtest> {
        check_bars(candles, &bars)?;
        let shape = (bars.len().saturating_sub(1), candles.symbols.len());
        let monthly = |bar: usize| new_month(candles, bar);
        match *self {
            Self::BuyAndHold => Backtest::replay(candles, bars, Array2::ones(shape).view(), options),
            Self::Flat => Backtest::replay(candles, bars, Array2::zeros(shape).view(), options),
            Self::EqualWeight => {
                let targets = Array2::ones(shape);
                Backtest::replay_rebalanced(candles, bars, targets.view(), options, monthly)
            }
            Self::Momentum { lookback, shorting } => {
                let targets = momentum(candles, &bars, lookback, shorting)?;
                Backtest::replay_rebalanced(candles, bars, targets.view(), options, monthly)
            }
        }
    }
}

/// Whether the bar is the first of its month.
fn new_month(candles: &Candles, bar: usize) -> bool {
    let month = |bar: usize| candles.timestamps.get(bar).map(|moment| (moment.year(), moment.month()));
    bar.checked_sub(1).is_none_or(|before| month(before) != month(bar))
}

/// Targets `[bars - 1][instrument]`, changed at the first bar and at the first of every month.
fn momentum(candles: &Candles, bars: &Range<usize>, lookback: usize, shorting: bool) -> Result<Array2<f64>> {
    if bars.start < lookback || lookback == 0 {
        return Err(Error::Data(format!(
            "momentum looks back {lookback} bars, and {} precede the first bar to trade",
            bars.start
        )));
    }
    let mut targets = Array2::zeros((bars.len().saturating_sub(1), candles.symbols.len()));
    for (row, bar) in (bars.start..bars.end.saturating_sub(1)).enumerate() {
        if row > 0 && !new_month(candles, bar) {
            let (before, mut now) = targets.multi_slice_mut((s![row - 1, ..], s![row, ..]));
            now.assign(&before);
            continue;
        }
        for (instrument, target) in targets.row_mut(row).iter_mut().enumerate() {
            let close = |bar: usize| candles.close[[instrument, bar]];
            let (now, then) = (close(bar), close(bar - lookback));
            *target = match now.total_cmp(&then) {
                Ordering::Greater => 1.0,
                Ordering::Less if shorting => -1.0,
                _ => 0.0,
            };
        }
    }
    Ok(targets)
}

#[cfg(test)]
#[path = "baselines_tests.rs"]
mod tests;
