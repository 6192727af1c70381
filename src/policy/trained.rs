//! A trained policy and all that is needed to use it on other candles.

use std::path::Path;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use crate::env::{Spec, TradingSettings};
use crate::mappo::Config;
use crate::market::ScalingStatistics;
use crate::model::Checkpoint;
use crate::nn::Layout;
use crate::{Error, Result};

/// What a model file says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
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
}

/// A trained policy.
#[derive(Clone, Debug)]
pub struct TrainedPolicy {
    pub(super) checkpoint: Checkpoint<Head>,
    pub(super) layout: Layout,
}

impl TrainedPolicy {
    /// Weights (a flat buffer with padding, as [`crate::mappo::Trainer::weights`] gives it) with their description.
    ///
    /// # Errors
    /// [`Error::Config`] if the description contradicts itself, [`Error::Shape`] for another number of weights.
    pub fn new(head: Head, weights: Vec<f32>) -> Result<Self> {
        let layout = layout(&head)?;
        let expected = layout.params as usize * 4;
        if weights.len() != expected {
            return Err(Error::shape("weights", expected, weights.len()));
        }
        Ok(Self { checkpoint: Checkpoint { head, weights }, layout })
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn load(path: &Path) -> Result<Self> {
        let (checkpoint, layout) = Checkpoint::load(path, layout)?;
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
    pub fn head(&self) -> &Head {
        &self.checkpoint.head
    }

    /// Trainable parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.layout.parameters()
    }
}

fn layout(head: &Head) -> Result<Layout> {
    let spec = Spec {
        agents: head.scaling.symbols.len() as u32,
        obs_dim: crate::env::observation_size(head.scaling.features.len()),
        actions: head.market.positions.len() as u32,
    };
    // The market has no state of its own.
    Layout::new(&head.config.shape(&spec, false, 0))
}
