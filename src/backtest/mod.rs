//! What a policy's decisions would have earned on bars it has not seen: replay, metrics, files.

mod files;
mod metrics;
mod periods;
mod replay;

pub use files::write;
pub use metrics::{Account, Metrics};
pub use periods::infer_periods_per_year;
pub use replay::{Backtest, DatedTrade, ReplayOptions};
