//! Market data.

mod candles;

pub use candles::Candles;
