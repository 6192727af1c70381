//! Backtests of a policy's decisions on bars that it was not trained on: replay, metrics and result files.
//!
//! [`Backtest::replay`] applies target positions to candles, [`Metrics`] measures the resulting account, [`write()`] saves both.
//! Everything runs on the CPU in f64.

mod files;
mod metrics;
mod periods;
mod replay;

pub use files::write;
pub use metrics::{Account, Metrics, returns};
pub use periods::{PeriodsPerYear, infer_periods_per_year};
pub use replay::{Backtest, DatedTrade, ReplayOptions};
pub(crate) use replay::{account, window as check_bars};
