//! A trained policy of any environment: its file, and its two engines.

use std::path::Path;
use std::sync::Arc;

use super::cpu::Networks;
#[cfg(feature = "market")]
use super::format_1::Format1;
#[cfg(feature = "market")]
use super::market::MarketMetadata;
use super::metadata::{ActionSpec, ModelMetadata};
use crate::mappo::Trainer;
use crate::model::envelope::{self, failed};
use crate::model::{Checkpoint, FORMAT};
use crate::nn::{Layout, Precision};
use crate::{Error, Result};

/// A trained policy: networks, normalisation of the observations and the space of actions, without anything of the training.
///
/// [`Policy::act`] decides on the CPU in microseconds, [`super::DevicePolicy`] for thousands of environments on the device. Both take
/// the same actions.
///
/// ```no_run
/// use phalanx::policy::{ActionMode, Policy};
///
/// let policy = Policy::load("cartpole.safetensors".as_ref())?;
/// let mut state = policy.state(1)?;
/// let actions = policy.act(&mut state, &[0.01, -0.02, 0.03, 0.04], &[], ActionMode::Greedy)?;
/// println!("option {}", actions.choice(0, 0, 0));
/// # Ok::<(), phalanx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) checkpoint: Checkpoint<ModelMetadata>,
    pub(super) layout: Layout,
    pub(super) networks: Arc<Networks>,
}

impl Policy {
    /// Creates a policy from metadata and weights, a flat buffer with padding as returned by [`Trainer::weights`].
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Shape`] if the number of weights or of observation statistics does
    /// not match the networks, [`Error::Data`] for a weight or a statistic that is not finite.
    pub fn new(metadata: ModelMetadata, weights: Vec<f32>) -> Result<Self> {
        let layout = metadata.layout()?;
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
        Ok(Self::of(Checkpoint { metadata, weights }, layout))
    }

    fn of(checkpoint: Checkpoint<ModelMetadata>, layout: Layout) -> Self {
        let networks = Arc::new(Networks::new(
            &layout,
            checkpoint.metadata.network.precision,
            &checkpoint.metadata.observation_moments,
            &checkpoint.weights,
        ));
        Self { checkpoint, layout, networks }
    }

    /// The same policy with metadata of the market that it was trained in, which [`Policy::targets`] and [`super::Live`] need.
    ///
    /// # Errors
    /// [`Error::Config`] for rules out of range; [`Error::Shape`] for those of a market with other instruments, features or actions.
    #[cfg(feature = "market")]
    pub fn with_market(self, market: MarketMetadata) -> Result<Self> {
        let Checkpoint { metadata, weights } = self.checkpoint;
        Self::new(ModelMetadata { features: market.features(), market: Some(market), ..metadata }, weights)
    }

    /// The same policy with names for an agent's features, in order.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of features.
    pub fn with_features(self, features: Vec<String>) -> Result<Self> {
        let Checkpoint { metadata, weights } = self.checkpoint;
        Self::new(ModelMetadata { features, ..metadata }, weights)
    }

    /// The same networks acting in another precision than that of their training.
    ///
    /// # Errors
    /// As [`Policy::new`].
    pub fn with_precision(&self, precision: Precision) -> Result<Self> {
        let Checkpoint { mut metadata, weights } = self.checkpoint.clone();
        metadata.network.precision = precision;
        Self::new(metadata, weights)
    }

    /// Reads a model file and validates everything in it: sizes, rules, statistics, and that every weight is finite. Files of format 1,
    /// which held the training configuration and were of markets, are read too.
    ///
    /// # Errors
    /// As [`Checkpoint::load`]; [`Error::Checkpoint`] names the file and the invalid setting, statistic or tensor.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = envelope::read_file(path)?;
        Self::of_bytes(path, &bytes)
    }

    fn of_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        let format = Checkpoint::<()>::format(bytes).map_err(|reason| failed(path, reason))?;
        if format < FORMAT {
            return Self::of_format_1(path, bytes);
        }
        let (checkpoint, layout) = Checkpoint::of_bytes(path, bytes, ModelMetadata::layout)?;
        Ok(Self::of(checkpoint, layout))
    }

    #[cfg(feature = "market")]
    fn of_format_1(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut converted = None;
        let layout = |old: &Format1| converted.insert(old.convert()?).layout();
        let (Checkpoint { weights, .. }, layout) = Checkpoint::of_bytes(path, bytes, layout)?;
        let metadata = converted.ok_or_else(|| failed(path, "it has no metadata".into()))?;
        Ok(Self::of(Checkpoint { metadata, weights }, layout))
    }

    #[cfg(not(feature = "market"))]
    fn of_format_1(path: &Path, _: &[u8]) -> Result<Self> {
        let reason = "it has format 1, of a market: use a build with the feature `market`";
        Err(failed(path, reason.into()))
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

    /// The metadata of the market that the policy was trained in.
    ///
    /// # Errors
    /// [`Error::Data`] if it is the policy of another environment.
    #[cfg(feature = "market")]
    pub fn market(&self) -> Result<&MarketMetadata> {
        self.metadata().market.as_ref().ok_or_else(|| {
            Error::Data(
                "the model is that of an environment without instruments: use one that was trained on candles"
                    .into(),
            )
        })
    }

    /// The flat parameter buffer, with padding.
    #[must_use]
    pub fn weights(&self) -> &[f32] {
        &self.checkpoint.weights
    }

    /// Layout of [`Policy::weights`].
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of trainable parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.layout.parameters()
    }
}

impl Trainer {
    /// The present policy. A market's rules and scaling are added with [`Policy::with_market`].
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::Data`] if a weight is not finite.
    pub fn policy(&self) -> Result<Policy> {
        self.policy_of(self.weights()?, self.observation_moments()?)
    }

    /// The policy with these weights and statistics of the observations, those of an earlier iteration for instance.
    ///
    /// # Errors
    /// As [`Policy::new`].
    pub fn policy_of(&self, weights: Vec<f32>, observation_moments: Vec<[f32; 4]>) -> Result<Policy> {
        let (sizes, config) = (self.sizes(), self.config());
        let actions = match sizes.kind.continuous() {
            true => ActionSpec::Continuous { numbers: sizes.spec.actions, squashed: config.network.squash },
            false => ActionSpec::Discrete { choices: sizes.choice_sizes() },
        };
        let sizes = [sizes.spec.agents, sizes.spec.obs_dim, sizes.state_dim];
        let metadata = ModelMetadata::of_training(config, sizes, actions);
        Policy::new(ModelMetadata { observation_moments, ..metadata }, weights)
    }
}

#[cfg(all(test, feature = "market"))]
#[path = "policy_tests.rs"]
mod tests;
