//! Snapshots of a training run: weights, optimizer, normalisation, loss scale, counters, and the state of the environments.
//! A resumed run computes the same bytes as an uninterrupted one.

mod format;
#[cfg(feature = "market")]
mod older_market;
mod parts;
mod resume;
mod retention;

pub(super) use format::{ScalingStatistics, scaling_of};
pub use format::{SnapshotMetadata, read_metadata};
pub use retention::Snapshots;

#[cfg(test)]
mod tests;
