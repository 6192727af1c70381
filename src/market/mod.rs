//! Candles: reading them from files, checking them, aligning them, splitting them in time.
//!
//! Everything here runs on the host, before training. What comes out is a [`Candles`] in which every
//! instrument has a valid bar at every timestamp, so that nothing later has to ask.

mod align;
mod candles;
mod columns;
mod csv;
mod lines;
mod rules;
mod splits;
mod timestamp;

pub use align::GapPolicy;
pub use candles::Candles;
pub use splits::Splits;
pub use timestamp::parse_timestamp;
