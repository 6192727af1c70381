//! Trained policies: saving, loading, and decisions on candles.

mod bars;
mod evaluate;
mod trained;

pub use bars::TrainingBars;
pub use trained::{ModelMetadata, TrainedPolicy};
