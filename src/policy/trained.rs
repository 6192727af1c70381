//! A trained policy with everything needed to use it on other candles, and its file.

use std::path::Path;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::bars::TrainingBars;
use crate::env::{Spec, TradingSettings};
use crate::mappo::Config;
use crate::market::ScalingStatistics;
use crate::model::Checkpoint;
use crate::nn::{Layout, Shape};
use crate::{Error, Result};

/// Metadata of a model file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Training settings.
    pub config: Config,
    /// Market settings of the training.
    pub market: TradingSettings,
    /// Scaling statistics of the training bars, with the names of instruments and features in order.
    pub scaling: ScalingStatistics,
    /// First training bar.
    pub train_from: DateTime,
    /// Last training bar.
    pub train_to: DateTime,
    /// First held-out bar.
    pub test_from: DateTime,
    /// Version of phalanx that wrote the file.
    pub version: String,
    /// Running statistics of the observations ([`crate::mappo::Trainer::observation_moments`]), `[agents * features]`; empty
    /// without `observation_norm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observation_moments: Vec<[f32; 4]>,
    /// The kind of bars of the training; `None` in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bars: Option<TrainingBars>,
}

/// A trained policy.
#[derive(Clone, Debug)]
pub struct TrainedPolicy {
    pub(super) checkpoint: Checkpoint<ModelMetadata>,
    pub(super) layout: Layout,
}

impl TrainedPolicy {
    /// Creates a policy from metadata and weights, a flat buffer with padding as returned by [`crate::mappo::Trainer::weights`].
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Shape`] if the number of weights or of observation statistics does
    /// not match the settings, [`Error::Data`] for a weight or a statistic that is not finite.
    pub fn new(metadata: ModelMetadata, weights: Vec<f32>) -> Result<Self> {
        let layout = layout(&metadata)?;
        let expected = layout.params as usize * 4;
        if weights.len() != expected {
            return Err(Error::shape("weights", expected, weights.len()));
        }
        if let Some(index) = weights.iter().position(|weight| !weight.is_finite()) {
            let before = layout.tensors.iter().filter(|tensor| tensor.first <= index);
            let tensor = before.max_by_key(|tensor| tensor.first);
            let tensor = tensor.map_or("none", |tensor| tensor.name.as_str());
            return Err(Error::Data(format!(
                "weight {index} is {}, expected a finite number (tensor `{tensor}`)",
                weights[index]
            )));
        }
        Ok(Self { checkpoint: Checkpoint { metadata, weights }, layout })
    }

    /// Reads a model file and validates everything in it: the market settings, the statistics, and that every weight is finite.
    ///
    /// # Errors
    /// As [`Checkpoint::load`]; [`Error::Checkpoint`] names the file and the invalid setting, statistic or tensor.
    pub fn load(path: &Path) -> Result<Self> {
        let (checkpoint, layout) = Checkpoint::load(path, layout)?;
        Ok(Self { checkpoint, layout })
    }

    /// Writes a model file atomically, after it was read back and compared.
    ///
    /// # Errors
    /// As [`Checkpoint::save`].
    pub fn save(&self, path: &Path) -> Result<()> {
        self.checkpoint.save(path, &self.layout)
    }

    /// The model's metadata.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        &self.checkpoint.metadata
    }

    /// Number of trainable parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.layout.parameters()
    }
}

/// Checks the statistics of normalised observations: one finite entry per agent and feature.
fn validate_observation_stats(metadata: &ModelMetadata, layout: &Layout) -> Result<()> {
    let Shape { agents, obs_dim, .. } = layout.shape;
    let expected = if metadata.config.network.observation_norm { (agents * obs_dim) as usize } else { 0 };
    let stats = &metadata.observation_moments;
    if stats.len() != expected {
        return Err(Error::shape("`observation_moments`", expected, stats.len()));
    }
    match stats.iter().position(|stats| stats.iter().any(|value| !value.is_finite())) {
        Some(index) => {
            let (scaling, features) = (&metadata.scaling, obs_dim.max(1) as usize);
            let position = ["position", "weight of the position"].map(String::from);
            let mut names = scaling.features.iter().chain(&position);
            Err(Error::Data(format!(
                "`observation_moments` {index} is {:?} (feature `{}` of {}), expected finite numbers",
                stats[index],
                names.nth(index % features).map_or("", String::as_str),
                scaling.symbols.get(index / features).map_or("", String::as_str),
            )))
        }
        None => Ok(()),
    }
}

/// Validates the metadata, except for settings that only training uses, and derives the layout of the networks.
fn layout(metadata: &ModelMetadata) -> Result<Layout> {
    metadata.market.validate().map_err(|error| match error {
        Error::Config { key, reason } => Error::Config { key: format!("market.{key}"), reason },
        other => other,
    })?;
    let spec = Spec {
        agents: metadata.scaling.symbols.len() as u32,
        obs_dim: crate::env::observation_size(metadata.scaling.features.len()),
        actions: metadata.market.actions(),
    };
    // The market has no global state.
    let layout = Layout::new(&metadata.config.shape(&spec, metadata.market.continuous(), 0))?;
    metadata.scaling.validate()?;
    validate_observation_stats(metadata, &layout)?;
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn metadata() -> ModelMetadata {
        let day = date(2020, 1, 1).at(0, 0, 0, 0);
        let mut config = Config::default();
        config.network.hidden = vec![4];
        config.network.observation_norm = true;
        ModelMetadata {
            config,
            market: TradingSettings::default(),
            scaling: ScalingStatistics {
                features: vec!["return".into()],
                symbols: vec!["AAA".into(), "BBB".into()],
                moments: vec![[0.0, 1.0]; 2],
            },
            train_from: day,
            train_to: day,
            test_from: day,
            version: "0.1.0".into(),
            observation_moments: vec![[0.0, 0.0, 1.0, 1.0]; 6],
            bars: None,
        }
    }

    #[test]
    fn files_with_invalid_settings_statistics_or_weights_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let good = metadata();
        let layout = layout(&good).unwrap();
        let weights = vec![0.5; layout.params as usize * 4];
        let policy = TrainedPolicy::new(good.clone(), weights.clone()).unwrap();
        policy.save(&path).unwrap();
        assert_eq!(TrainedPolicy::load(&path).unwrap().metadata(), &good);

        let market = |market: TradingSettings| ModelMetadata { market, ..good.clone() };
        let defaults = TradingSettings::default;
        let scaling = |moments| ModelMetadata {
            scaling: ScalingStatistics { moments, ..good.scaling.clone() },
            ..good.clone()
        };
        let mut stats = vec![[0.0f32; 4]; 6];
        stats[3][1] = f32::MAX;
        let too_few = ModelMetadata { observation_moments: stats[..5].to_vec(), ..good.clone() };
        for (forged, wanted) in [
            (
                market(TradingSettings { commission_bps: -1.0, ..defaults() }),
                "setting `market.commission_bps`: -1 ",
            ),
            (
                market(TradingSettings { positions: vec![0.0; 33], ..defaults() }),
                "setting `market.positions`: 33 ",
            ),
            (
                market(TradingSettings { max_leverage: Some(-1.0), ..defaults() }),
                "setting `market.max_leverage`: -1 ",
            ),
            (
                market(TradingSettings { bankruptcy_level: 2.0, ..defaults() }),
                "setting `market.bankruptcy_level`: 2 ",
            ),
            (too_few, "`observation_moments`: expected 6, got 5"),
            (scaling(vec![[0.0, 1.0]; 3]), "`scaling.moments`: expected 2, got 3"),
            (
                scaling(vec![[0.0, 1.0], [0.0, -1.0]]),
                "`scaling.moments` 1 is [0.0, -1.0] (feature `return` of BBB)",
            ),
        ] {
            Checkpoint { metadata: forged.clone(), weights: weights.clone() }.save(&path, &layout).unwrap();
            let error = TrainedPolicy::load(&path).unwrap_err();
            assert!(matches!(error, Error::Checkpoint { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("model.safetensors") && text.contains(wanted), "{wanted}: {text}");
            assert!(TrainedPolicy::new(forged, weights.clone()).unwrap_err().to_string().contains(wanted));
        }
        stats[3][1] = f32::NAN;
        let forged = ModelMetadata { observation_moments: stats, ..good.clone() };
        let error = TrainedPolicy::new(forged, weights.clone()).unwrap_err().to_string();
        let wanted = "`observation_moments` 3 is [0.0, NaN, 0.0, 0.0] (feature `return` of BBB)";
        assert!(error.contains(wanted), "{error}");

        let mut broken = weights;
        let first = layout.tensors[0].first as usize;
        broken[first] = f32::INFINITY;
        let forged = Checkpoint { metadata: good.clone(), weights: broken.clone() };
        std::fs::write(&path, forged.serialize(&layout).unwrap()).unwrap();
        let error = TrainedPolicy::load(&path).unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && error.contains("tensor `actor.0."), "{error}");
        let error = TrainedPolicy::new(good, broken).unwrap_err().to_string();
        assert!(error.contains(&format!("weight {first} is inf, expected a finite number")), "{error}");
    }
}
