//! Trained policies: saved, loaded, and at work on candles.

mod evaluate;
mod trained;

pub use trained::{ModelMetadata, TrainedPolicy};
