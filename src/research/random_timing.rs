//! The agents' own positions at other times: a test of their timing, on the CPU or on the device.
//!
//! The device trades all draws in f32. A few of them are traded again in f64 (`Test::settle`), so that the p-value is that of f64.

mod device;

use std::num::NonZero;
use std::ops::Range;
use std::panic::resume_unwind;
use std::thread;

use ndarray::{ArrayView2, Axis, concatenate};

use crate::backtest::{ReplayOptions, account};
use crate::gpu::Gpu;
use crate::market::Candles;
use crate::random::Stream;
use crate::{Error, Result};

#[cfg(test)]
pub(super) use device::Parameters;
pub(super) use device::SHADER;

/// Name of the random stream.
const STREAM: u32 = 0x7157_1411;

/// Distance from the agents' Sharpe ratio of a bar up to which draws are traded in f64, however small the error seems to be.
const NEAR: f64 = 2e-5;

/// The same distance in units of the largest error among the draws that were traded both in f32 and in f64.
const ERRORS: f64 = 10.0;

/// Draws that are traded in both ways in any case.
const PROBES: usize = 8;

/// Accounts on the device that come as near to the level at which they are closed, in units of their equity, are traded in f64: whether
/// they were closed is not certain.
const NEARLY_CLOSED: f64 = 1e-3;

/// Deviation of the returns of a bar up to which rounding errors of f32 matter; so they do up to a tenth of the mean, as where cash alone
/// earns interest.
const SMALL_DEVIATION: f64 = 1e-6;

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
    /// Number of draws whose figures come from the device, in f32; those of the others are f64.
    pub on_device: usize,
}

/// Tests whether the times of the agents' positions mattered. Every draw shifts all their target positions `[bars - 1][instrument]` by the
/// same random number of bars, around the end, which keeps time in the market, the relation of the instruments and, but for the ends,
/// turnover, and takes away what the positions know of the bars. Positions that change slowly resemble themselves at near times: the
/// test finds their skill less often. (Circular shifts: Politis and Romano 1992; as a test of trading
/// rules: Aronson, *Evidence-Based Technical Analysis*, 2006.) No shift is drawn twice: there are at most `bars - 2` draws.
///
/// Runs on all cores, in f64. [`random_timing_on_device`] finds the same p-value on the device.
///
/// # Errors
/// [`Error::Data`] for fewer than four bars, [`Error::Config`] for no draws; otherwise as
/// [`Backtest::replay`](crate::backtest::Backtest::replay).
pub fn random_timing(
    candles: &Candles,
    bars: &Range<usize>,
    targets: ArrayView2<'_, f64>,
    options: &ReplayOptions,
    draws: usize,
    seed: u64,
) -> Result<RandomTiming> {
    Test::new((candles, bars), targets, options, draws, seed)?.run(|test| {
        let draws: Vec<usize> = (0..test.shifts.len()).collect();
        let (sharpe, total_return) =
            test.replay(&draws)?.into_iter().map(|it| (it.sharpe, it.total_return)).unzip();
        Ok(test.result(sharpe, total_return, 0))
    })
}

/// [`random_timing`] on the device: the same draws, whose accounts are traded at the same time.
///
/// The device calculates in f32. Draws whose Sharpe ratio is too near to the agents' for that are traded in f64 on the CPU as well, and so
/// are those that f32 may have closed by mistake: ratios of a bar within 2e-5 of the agents', or within ten times the largest error of
/// all draws that were traded in both ways, eight at least. With that margin the p-value was that of [`random_timing`] in every test; it is
/// no proof.
///
/// # Errors
/// As [`random_timing`]; [`Error::Buffer`], [`Error::Budget`] or [`Error::OutOfMemory`] if the device has too little memory for the bars,
/// [`Error::Config`] for more instruments than a software adapter can trade, and errors of the device.
pub fn random_timing_on_device(
    gpu: &Gpu,
    candles: &Candles,
    bars: &Range<usize>,
    targets: ArrayView2<'_, f64>,
    options: &ReplayOptions,
    draws: usize,
    seed: u64,
) -> Result<RandomTiming> {
    Test::new((candles, bars), targets, options, draws, seed)?.run(|test| {
        let accounts = device::trade(gpu, (candles, bars), targets, options, &test.shifts)?;
        let estimates: Vec<_> = accounts.iter().map(|account| test.estimate(account)).collect();
        test.settle(&estimates)
    })
}

/// [`random_timing_on_device`] where there is a device with enough memory, otherwise [`random_timing`].
///
/// # Errors
/// As these.
pub fn random_timing_on(
    gpu: Option<&Gpu>,
    candles: &Candles,
    bars: &Range<usize>,
    targets: ArrayView2<'_, f64>,
    options: &ReplayOptions,
    draws: usize,
    seed: u64,
) -> Result<RandomTiming> {
    let on_device = gpu.map(|gpu| random_timing_on_device(gpu, candles, bars, targets, options, draws, seed));
    match on_device {
        None
        | Some(Err(
            Error::Buffer { .. } | Error::Budget { .. } | Error::OutOfMemory { .. } | Error::Config { .. },
        )) => random_timing(candles, bars, targets, options, draws, seed),
        Some(found) => found,
    }
}

/// One draw in f64.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Per year.
    sharpe: f64,
    total_return: f64,
}

/// One draw as the device found it.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    figures: Figures,
    /// Whether f32 does not suffice for this account.
    doubtful: bool,
}

/// The positions, the draws and the agents' own Sharpe ratio.
struct Test<'a> {
    candles: &'a Candles,
    bars: &'a Range<usize>,
    targets: ArrayView2<'a, f64>,
    options: &'a ReplayOptions,
    shifts: Vec<usize>,
    own: Figures,
}

impl<'a> Test<'a> {
    fn new(
        (candles, bars): (&'a Candles, &'a Range<usize>),
        targets: ArrayView2<'a, f64>,
        options: &'a ReplayOptions,
        draws: usize,
        seed: u64,
    ) -> Result<Self> {
        if draws == 0 {
            return Err(Error::config("draws", "0 is too few: a p-value needs at least one draw"));
        }
        let own = figures(candles, bars, targets, options)?;
        let rows = targets.nrows();
        if rows < 3 {
            return Err(Error::Data(format!("{} bars are too few to shift positions in time", bars.len())));
        }
        let shifts = distinct(rows - 1, draws.min(rows - 1), seed);
        Ok(Self { candles, bars, targets, options, shifts, own })
    }

    /// Trades the draws by `trade`, unless positions are constant: then all draws are the agents' own account.
    fn run(&self, trade: impl FnOnce(&Self) -> Result<RandomTiming>) -> Result<RandomTiming> {
        if self.targets.rows().into_iter().skip(1).any(|row| row != self.targets.row(0)) {
            return trade(self);
        }
        let all = |value| vec![value; self.shifts.len()];
        Ok(self.result(all(self.own.sharpe), all(self.own.total_return), 0))
    }

    fn result(&self, sharpe: Vec<f64>, total_return: Vec<f64>, on_device: usize) -> RandomTiming {
        let higher = sharpe.iter().filter(|draw| **draw >= self.own.sharpe).count();
        let p_value = (1 + higher) as f64 / (1 + sharpe.len()) as f64;
        RandomTiming { sharpe, total_return, p_value, on_device }
    }

    /// Trades draws in f64, on all cores.
    fn replay(&self, draws: &[usize]) -> Result<Vec<Figures>> {
        on_all_cores(draws, |draw| {
            let (before, after) = self.targets.split_at(Axis(0), self.shifts[draw]);
            let shifted =
                concatenate(Axis(0), &[after, before]).map_err(|error| Error::Data(error.to_string()))?;
            figures(self.candles, self.bars, shifted.view(), self.options)
        })
    }

    /// Trades draws again, until the p-value cannot change any more.
    fn settle(&self, estimates: &[Estimate]) -> Result<RandomTiming> {
        let mut found: Vec<Figures> = estimates.iter().map(|it| it.figures).collect();
        let mut settled = vec![false; estimates.len()];
        let mut near = NEAR * self.options.periods_per_year.value().sqrt();
        loop {
            let distance = |draw: usize| (estimates[draw].figures.sharpe - self.own.sharpe).abs();
            let open = |draw: &usize| *draw < PROBES || estimates[*draw].doubtful || distance(*draw) <= near;
            let draws: Vec<_> = (0..found.len()).filter(|draw| !settled[*draw]).filter(open).collect();
            if draws.is_empty() {
                break;
            }
            for (draw, figures) in draws.iter().zip(self.replay(&draws)?) {
                if !estimates[*draw].doubtful {
                    near = near.max(ERRORS * (figures.sharpe - estimates[*draw].figures.sharpe).abs());
                }
                (found[*draw], settled[*draw]) = (figures, true);
            }
        }
        let on_device = settled.iter().filter(|settled| !**settled).count();
        let (sharpe, total_return) = found.into_iter().map(|it| (it.sharpe, it.total_return)).unzip();
        Ok(self.result(sharpe, total_return, on_device))
    }

    /// The Sharpe ratio of an account of the device, as [`Metrics`](crate::backtest::Metrics) define it.
    fn estimate(&self, account: &device::Account) -> Estimate {
        let count = self.targets.nrows() as f64;
        let mean = account.returns / count;
        let deviation = ((account.squares - count * mean * mean) / (count - 1.0)).max(0.0).sqrt();
        let figures = Figures {
            sharpe: mean / deviation * self.options.periods_per_year.value().sqrt(),
            total_return: account.equity - 1.0,
        };
        let finite = figures.sharpe.is_finite() && figures.total_return.is_finite();
        let steady = deviation <= SMALL_DEVIATION.max(0.1 * mean.abs());
        Estimate { figures, doubtful: !finite || steady || account.nearest <= NEARLY_CLOSED }
    }
}

fn figures(
    candles: &Candles,
    bars: &Range<usize>,
    targets: ArrayView2<'_, f64>,
    options: &ReplayOptions,
) -> Result<Figures> {
    let metrics = account(candles, bars, targets, options)?;
    Ok(Figures { sharpe: metrics.sharpe.unwrap_or(0.0), total_return: metrics.total_return })
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

#[cfg(test)]
#[path = "random_timing_tests.rs"]
mod tests;
