//! Model files of format 1, which held the whole training configuration, and were of markets only.

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::bars::TrainingBars;
use super::market::MarketMetadata;
use super::metadata::{ActionSpec, ModelMetadata};
use crate::env::{TradingSettings, observation_size};
use crate::mappo::Config;
use crate::market::ScalingStatistics;
use crate::{Error, Result};

/// Metadata of format 1.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Format1 {
    config: Config,
    market: TradingSettings,
    scaling: ScalingStatistics,
    train_from: DateTime,
    train_to: DateTime,
    test_from: DateTime,
    version: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    observation_moments: Vec<[f32; 4]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bars: Option<TrainingBars>,
}

impl Format1 {
    /// The same in the present format. Validates only what [`ModelMetadata::layout`] could not see any more.
    pub(super) fn convert(&self) -> Result<ModelMetadata> {
        let expected = self.scaling.symbols.len() * (self.scaling.features.len() + 2);
        let normalized = self.config.network.observation_norm;
        let found = self.observation_moments.len();
        if found != if normalized { expected } else { 0 } {
            return Err(Error::shape("`observation_moments`", if normalized { expected } else { 0 }, found));
        }
        let actions = match self.market.continuous() {
            true => ActionSpec::Continuous { numbers: 1, squashed: self.config.network.squash },
            false => ActionSpec::Discrete { choices: vec![self.market.actions()] },
        };
        let sizes = [self.scaling.symbols.len() as u32, observation_size(self.scaling.features.len()), 0];
        let market = MarketMetadata {
            settings: self.market.clone(),
            scaling: self.scaling.clone(),
            train_from: self.train_from,
            train_to: self.train_to,
            test_from: self.test_from,
            bars: self.bars,
        };
        Ok(ModelMetadata {
            version: self.version.clone(),
            features: market.features(),
            observation_moments: self.observation_moments.clone(),
            market: Some(market),
            ..ModelMetadata::of_training(&self.config, sizes, actions)
        })
    }
}
