//! Market data: candles on the CPU, features and prices on the device.
//!
//! [`Candles`] are read from CSV and Parquet files or memory, validated, and aligned by a [`GapPolicy`]: every instrument has a valid
//! bar at every timestamp, so later stages need no checks of their own. [`Splits`] separates training bars from test bars.
//! [`MarketData`] computes and scales the [`FEATURES`] on the device.
//!
//! The kernels behind [`MarketData`] run without bounds checks and are private to the crate: [`MarketData::new`] is the
//! only way to them, and it checks all sizes.

mod account_data;
mod align;
mod aligned_size;
mod annotations;
mod candles;
mod data;
mod features;
mod fit;
#[cfg(test)]
mod layout_tests;
mod live;
mod load;
mod offsets;
mod real_bars;
mod rules;
pub(crate) mod scale;
mod scale_join;
mod scale_stats;
mod sources;
mod spacing;
mod splits;
mod statistics;
mod symbols;
mod timestamp;

pub(crate) use account_data::AccountData;
pub use align::GapPolicy;
pub(crate) use annotations::years_between;
pub use candles::Candles;
pub(crate) use data::LIMIT as FEATURE_LIMIT;
pub use data::{ExtraFeatures, MarketData};
pub use features::{FEATURE_HISTORY, FEATURES, FILLED};
pub use live::{Live, LiveBar};
pub use load::{Adjust, Finding, LoadLimits, LoadNote, LoadOptions, LoadReport, Loaded, NotJoinedReason};
pub use real_bars::RealBars;
pub(crate) use spacing::{are_of_two_lengths, median_spacing};
pub use splits::Splits;
pub use statistics::{Scaling, ScalingStatistics};
pub use symbols::symbol_cell;
pub use timestamp::{TimestampFormat, parse_timestamp};

use crate::gpu::{Class, Shader, Variant};

/// The kernels of this module, each with every variant it is compiled in.
#[must_use]
pub(crate) fn kernels(class: Class) -> Vec<(Shader, Variant)> {
    vec![
        (features::SHADER, Variant::wide(class)),
        (scale::SHADER, scale::variant(class)),
        (scale_stats::SHADER, scale_stats::variant(class)),
        (scale_join::SHADER, scale_join::variant(class)),
    ]
}
