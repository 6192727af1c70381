//! The Sharpe ratio of a window of bars that moves along the account.

use super::super::metrics::ratio;

/// Fewest returns of a window: a ratio of fewer says nothing.
const LEAST: usize = 20;

/// The Sharpe ratio over the last bars.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RollingSharpe {
    /// Number of returns in the window: half a year, round(P / 2) with P bars per year, but at least 20 and at most half of the returns.
    pub window: usize,
    /// Sharpe ratio per year of the returns of the bars from b - window + 1 to b, mean(r) / std(r, ddof 1) sqrt(P), for every bar b from
    /// `window` on. `None` if the deviation is zero.
    pub values: Vec<Option<f64>>,
}

/// Number, mean and sum of squared deviations of some returns.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of(value: f64) -> Self {
        Self { count: 1.0, mean: value, squares: 0.0 }
    }

    /// Moments of both samples together, after Chan, Golub and LeVeque (1983): exact for equal values, and without the cancellation of
    /// running sums.
    fn with(self, other: Self) -> Self {
        if self.count == 0.0 {
            return other;
        }
        let (count, apart) = (self.count + other.count, other.mean - self.mean);
        Self {
            count,
            mean: self.mean + apart * (other.count / count),
            squares: self.squares + other.squares + apart * apart * (self.count * other.count / count),
        }
    }
}

impl RollingSharpe {
    /// Half a year of `returns` at a time; `None` for fewer than 40 of them.
    pub(super) fn new(returns: &[f64], periods_per_year: f64) -> Option<Self> {
        let most = returns.len() / 2;
        // A cast saturates.
        let half = (periods_per_year / 2.0).round() as usize;
        (most >= LEAST).then(|| Self::over(returns, half.clamp(LEAST, most), periods_per_year))
    }

    pub(super) fn over(returns: &[f64], window: usize, periods_per_year: f64) -> Self {
        // A window is the end of one block of `window` returns and the beginning of the next.
        let mut beginnings = Vec::with_capacity(returns.len());
        let mut ends = Vec::with_capacity(returns.len());
        for block in returns.chunks(window) {
            let grow = |moments: &mut Moments, value: &f64| {
                *moments = moments.with(Moments::of(*value));
                Some(*moments)
            };
            beginnings.extend(block.iter().scan(Moments::default(), grow));
            let first = ends.len();
            ends.extend(block.iter().rev().scan(Moments::default(), grow));
            ends[first..].reverse();
        }
        let annual = periods_per_year.sqrt();
        let windows = ends.iter().zip(beginnings.iter().skip(window - 1)).enumerate();
        let ratio_of = |(start, (end, beginning)): (usize, (&Moments, &Moments))| {
            let whole = if start % window == 0 { *beginning } else { end.with(*beginning) };
            ratio(whole.mean, (whole.squares / (whole.count - 1.0)).sqrt()).map(|ratio| ratio * annual)
        };
        Self { window, values: windows.map(ratio_of).collect() }
    }

    /// The lowest, the highest and the last of the ratios that are defined.
    #[must_use]
    pub fn range(&self) -> Option<[f64; 3]> {
        let defined = || self.values.iter().flatten().copied();
        Some([defined().reduce(f64::min)?, defined().reduce(f64::max)?, defined().next_back()?])
    }
}
