//! The figures that a tear sheet shows beside the [`Metrics`](super::Metrics): months, rolling Sharpe ratio, drawdowns, exposure, holding
//! times, and the profit by instrument.

mod drawdowns;
mod exposure;
mod monthly;
mod rolling;

pub use drawdowns::DrawdownPeriod;
pub use exposure::Exposure;
pub use monthly::YearReturns;
pub use rolling::RollingSharpe;

use super::attribution::Attribution;
use super::holdings::HoldingTimes;
use super::{Backtest, metrics::returns};

/// Number of drawdowns that are listed.
const DRAWDOWNS: usize = 5;

/// Figures of the strategy of a [`Backtest`]. Undefined values are `None`, never NaN.
///
/// ```
/// use ndarray::{Array2, array};
/// use phalanx::backtest::{Backtest, PeriodsPerYear, ReplayOptions, TearSheet};
/// use phalanx::env::ledger::Costs;
/// use phalanx::market::Candles;
///
/// let prices = array![[10.0, 10.0, 12.0, 9.0]];
/// let start = jiff::civil::date(2024, 1, 30).at(0, 0, 0, 0);
/// let days = (0..4).map(|day| start + jiff::ToSpan::days(day)).collect();
/// let (high, low, close) = (prices.clone(), prices.clone(), prices.clone());
/// let candles = Candles::new(vec!["AAA".into()], days, prices, high, low, close, None)?;
/// let options = ReplayOptions {
///     costs: Costs::NONE,
///     max_leverage: None,
///     starting_equity: 1000.0,
///     bankruptcy_level: 0.1,
///     periods_per_year: PeriodsPerYear::given(252.0)?,
/// };
/// let backtest = Backtest::replay(&candles, 0..4, Array2::ones((3, 1)).view(), &options)?;
/// let sheet = TearSheet::new(&backtest);
/// assert_eq!(sheet.months[0].months[..2], [Some(0.0), Some(900.0 / 1000.0 - 1.0)]);
/// assert_eq!((sheet.drawdowns[0].depth, sheet.drawdowns[0].recovered), (-0.25, None));
/// assert_eq!(sheet.attribution.instruments[0].profit, -100.0);
/// # Ok::<(), phalanx::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TearSheet {
    /// Returns by month, one row per year, oldest first.
    pub months: Vec<YearReturns>,
    /// Sharpe ratio over the last half year, at every bar. `None` if the account has fewer than 40 returns.
    pub rolling_sharpe: Option<RollingSharpe>,
    /// Position values as fractions of the equity.
    pub exposure: Exposure,
    /// The worst drawdowns, at most five, deepest first.
    pub drawdowns: Vec<DrawdownPeriod>,
    /// Holding times of positions.
    pub holding_times: HoldingTimes,
    /// The profit by instrument.
    pub attribution: Attribution,
}

impl TearSheet {
    /// Computes all figures.
    #[must_use]
    pub fn new(backtest: &Backtest) -> Self {
        let Backtest { timestamps, equity, .. } = backtest;
        let closed = backtest.bankrupt_at.and_then(|date| timestamps.binary_search(&date).ok());
        Self {
            months: monthly::months(timestamps, equity, closed),
            rolling_sharpe: RollingSharpe::new(&returns(equity), backtest.periods_per_year.value()),
            exposure: Exposure::new(backtest.values.view(), equity),
            drawdowns: drawdowns::worst(timestamps, equity, DRAWDOWNS),
            holding_times: HoldingTimes::new(&backtest.holdings),
            attribution: Attribution::new(backtest),
        }
    }
}

#[cfg(test)]
mod tests;
