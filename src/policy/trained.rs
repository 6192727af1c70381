//! A trained policy and all that is needed to use it on other candles.

use std::path::Path;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use crate::env::{Spec, TradingSettings};
use crate::mappo::Config;
use crate::market::ScalingStatistics;
use crate::model::Checkpoint;
use crate::nn::{Layout, Shape};
use crate::{Error, Result};

/// What a model file says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Settings of the training.
    pub config: Config,
    /// Rules of the market it was trained in.
    pub market: TradingSettings,
    /// Statistics of the training bars, with the instruments and features in order.
    pub scaling: ScalingStatistics,
    /// First bar that was trained on.
    pub train_from: DateTime,
    /// Last bar that was trained on.
    pub train_to: DateTime,
    /// First bar that was held out.
    pub test_from: DateTime,
    /// Version of the library that wrote it.
    pub version: String,
    /// What [`crate::mappo::Trainer::observation_moments`] gives, `[agents * features]`: empty without `observation_norm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observation_moments: Vec<[f32; 4]>,
}

/// A trained policy.
#[derive(Clone, Debug)]
pub struct TrainedPolicy {
    pub(super) checkpoint: Checkpoint<ModelMetadata>,
    pub(super) layout: Layout,
}

impl TrainedPolicy {
    /// Weights (a flat buffer with padding, as [`crate::mappo::Trainer::weights`] gives it) with their description.
    ///
    /// # Errors
    /// [`Error::Config`] if the description contradicts itself, [`Error::Shape`] for another number of weights or moments.
    pub fn new(metadata: ModelMetadata, weights: Vec<f32>) -> Result<Self> {
        let layout = layout(&metadata)?;
        let expected = layout.params as usize * 4;
        if weights.len() != expected {
            return Err(Error::shape("weights", expected, weights.len()));
        }
        moments_fit(&metadata, &layout)?;
        Ok(Self { checkpoint: Checkpoint { metadata, weights }, layout })
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// As [`Checkpoint::load`]; [`Error::Checkpoint`] if the moments of the observations are not those of its features.
    pub fn load(path: &Path) -> Result<Self> {
        let (checkpoint, layout) = Checkpoint::load(path, layout)?;
        moments_fit(&checkpoint.metadata, &layout)
            .map_err(|error| Error::Checkpoint { path: path.into(), reason: error.to_string() })?;
        Ok(Self { checkpoint, layout })
    }

    /// Writes a model file, whole or not at all.
    ///
    /// # Errors
    /// As [`Checkpoint::save`].
    pub fn save(&self, path: &Path) -> Result<()> {
        self.checkpoint.save(path, &self.layout)
    }

    /// What the model says of itself.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        &self.checkpoint.metadata
    }

    /// Trainable parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.layout.parameters()
    }
}

/// Every feature that is normalised needs its own, and none of another number is of use.
fn moments_fit(metadata: &ModelMetadata, layout: &Layout) -> Result<()> {
    let Shape { agents, obs_dim, .. } = layout.shape;
    let expected = if metadata.config.observation_norm { (agents * obs_dim) as usize } else { 0 };
    let found = metadata.observation_moments.len();
    if found != expected {
        return Err(Error::shape("moments of the observations", expected, found));
    }
    Ok(())
}

fn layout(metadata: &ModelMetadata) -> Result<Layout> {
    let spec = Spec {
        agents: metadata.scaling.symbols.len() as u32,
        obs_dim: crate::env::observation_size(metadata.scaling.features.len()),
        actions: metadata.market.positions.len() as u32,
    };
    // The market has no state of its own.
    Layout::new(&metadata.config.shape(&spec, false, 0))
}
