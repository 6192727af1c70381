//! Rules without learning, on the same bars and at the same costs as the agents.

use std::cmp::Ordering;
use std::num::NonZero;
use std::ops::Range;
use std::panic::resume_unwind;
use std::thread;

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use crate::backtest::{Backtest, ReplayOptions, account, check_bars};
use crate::market::Candles;
use crate::random::Stream;
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

/// Accounts that hold the agents' own positions at other times.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RandomTiming {
    /// Sharpe ratio per year of every draw; 0 where it is undefined, because the account never moved.
    pub sharpe: Vec<f64>,
    /// Total return of every draw.
    pub total_return: Vec<f64>,
    /// Probability of a Sharpe ratio at least as high as the agents' by chance: (1 + draws at least as high) / (1 + draws).
    pub p_value: f64,
}

/// Tests whether the times of the agents' positions mattered. Every draw shifts all their target positions `[bars - 1][instrument]` by the
/// same random number of bars, around the end, which keeps time in the market, the relation of the instruments and, but for the ends,
/// turnover, and takes away what the positions know of the bars. Positions that change slowly resemble themselves at near times: the
/// test finds their skill less often. (Circular shifts: Politis and Romano 1992; as a test of trading
/// rules: Aronson, *Evidence-Based Technical Analysis*, 2006.) No shift is drawn twice: there are at most `bars - 2` draws.
///
/// # Errors
/// [`Error::Data`] for fewer than four bars, [`Error::Config`] for no draws; otherwise as [`Backtest::replay`].
pub fn random_timing(
    candles: &Candles,
    bars: &Range<usize>,
    targets: ArrayView2<'_, f64>,
    options: &ReplayOptions,
    draws: usize,
    seed: u64,
) -> Result<RandomTiming> {
    if draws == 0 {
        return Err(Error::config("draws", "0 is too few: a p-value needs at least one draw"));
    }
    let own = account(candles, bars, targets, options)?;
    let rows = targets.nrows();
    if rows < 3 {
        return Err(Error::Data(format!("{} bars are too few to shift positions in time", bars.len())));
    }
    let shifts = distinct(rows - 1, draws.min(rows - 1), seed);
    let replay = |shift: usize| -> Result<(f64, f64)> {
        let (before, after) = targets.split_at(Axis(0), shift);
        let shifted =
            concatenate(Axis(0), &[after, before]).map_err(|error| Error::Data(error.to_string()))?;
        let draw = account(candles, bars, shifted.view(), options)?;
        Ok((draw.sharpe.unwrap_or(0.0), draw.total_return))
    };
    let (sharpe, total_return): (Vec<f64>, Vec<f64>) = on_all_cores(&shifts, replay)?.into_iter().unzip();
    let own = own.sharpe.unwrap_or(0.0);
    let higher = sharpe.iter().filter(|draw| **draw >= own).count();
    let p_value = (1 + higher) as f64 / (1 + sharpe.len()) as f64;
    Ok(RandomTiming { sharpe, total_return, p_value })
}

/// The values of all items, in order; the work is shared by as many threads as there are cores.
fn on_all_cores<T: Copy + Sync, U: Send>(
    items: &[T],
    work: impl Fn(T) -> Result<U> + Sync,
) -> Result<Vec<U>> {
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let work = |items: &[T]| items.iter().map(|item| work(*item)).collect::<Result<Vec<U>>>();
    // Browsers have no threads.
    if workers == 1 {
        return work(items);
    }
    let parts: Vec<Result<Vec<U>>> = thread::scope(|scope| {
        let chunks = items.chunks(items.len().div_ceil(workers).max(1));
        let handles: Vec<_> = chunks.map(|chunk| scope.spawn(|| work(chunk))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    let mut all = Vec::with_capacity(items.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

/// `count` different numbers from 1 to `most`, in random order.
fn distinct(most: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (1..=most).collect();
    let mut random = Stream::new(seed, STREAM);
    for place in 0..count.min(most) {
        let left = most - place;
        let other = place + ((random.uniform() * left as f64) as usize).min(left - 1);
        all.swap(place, other);
    }
    all.truncate(count);
    all
}

/// Name of the random stream.
const STREAM: u32 = 0x7157_1411;

#[cfg(test)]
#[path = "baselines_tests.rs"]
mod tests;
