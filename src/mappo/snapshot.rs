//! Snapshots of a training run: weights, optimizer, normalisation, loss scale, counters, and the state of the environments.
//! A run that is resumed from one computes the same bytes as a run that was never stopped.

mod format;
mod parts;
mod resume;
mod retention;

pub use format::{SnapshotMetadata, read_metadata};
pub use retention::Snapshots;

#[cfg(test)]
mod tests;
