//! Candles and what becomes of them: reading, checking, aligning and splitting on the host, features on the device.
//!
//! In a [`Candles`] every instrument has a valid bar at every timestamp, so that nothing later has to ask; a
//! [`MarketData`] is their features and prices on the device.

mod align;
mod candles;
mod columns;
mod csv;
mod data;
pub mod features;
mod lines;
mod rules;
pub mod scale;
mod splits;
mod timestamp;

pub use align::GapPolicy;
pub use candles::Candles;
pub use data::{ExtraFeatures, MarketData, Scaling, ScalingStatistics};
pub use splits::Splits;
pub use timestamp::{Clock, parse_timestamp};

use crate::gpu::{Class, Shader, Variant};

/// Every kernel of this family with every variant it is compiled in.
#[must_use]
pub fn kernels(class: Class) -> Vec<(Shader, Variant)> {
    vec![(features::SHADER, Variant::wide(class)), (scale::SHADER, Variant::independent(class))]
}
