//! Trained policies: saving, loading, and decisions on candles.

mod evaluate;
mod trained;

pub use trained::{ModelMetadata, TrainedPolicy};
