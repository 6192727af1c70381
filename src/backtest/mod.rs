//! Backtests of a policy's decisions on bars that it was not trained on: replay, metrics and result files.
//!
//! [`Backtest::replay`] applies target positions to candles, [`Metrics`] measures the resulting account, [`TearSheet`] shows it
//! by month, drawdown, position and instrument, and [`write()`] saves all of it.
//! Everything runs on the CPU in f64.

mod attribution;
mod files;
mod holdings;
mod metrics;
mod periods;
mod replay;
mod tearsheet;

pub use attribution::{Attribution, InstrumentAttribution, InstrumentProfit};
pub use files::{write, write_with};
pub use holdings::{Holding, HoldingTimes};
pub use metrics::{Account, Metrics, returns};
pub use periods::{PeriodsPerYear, infer_periods_per_year};
pub use replay::{Backtest, DatedTrade, ReplayOptions};
pub(crate) use replay::{account, window as check_bars};
pub use tearsheet::{DrawdownPeriod, Exposure, RollingSharpe, TearSheet, YearReturns};
