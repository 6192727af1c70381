//! Snapshots of a training run: weights, optimizer, normalisation, loss scale, counters, and the state of the environments.
//! A resumed run computes the same bytes as an uninterrupted one.

mod format;
mod parts;
mod resume;
mod retention;

pub use format::{SnapshotMetadata, read_metadata};
pub(super) use format::{Statistics, scaling_of};
pub use retention::Snapshots;

#[cfg(test)]
mod tests;
