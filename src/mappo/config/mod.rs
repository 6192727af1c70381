//! Training settings.
//!
//! [`Config`] has a group of settings per file, which also checks their ranges: [`ppo`] the algorithm, [`network`] the networks,
//! [`optimizer`] AdamW and its learning rates, [`device`] precision and memory. Checks across groups are in this file. In TOML
//! files, checkpoints and model files the settings are one flat object ([`serialize`]).

mod device;
mod layout;
mod network;
mod optimizer;
mod ppo;
mod serialize;

use crate::nn::{Activation, Sharing};
use crate::ranges::check as range;
use crate::{Error, Result};

pub use device::DeviceConfig;
pub use network::NetworkConfig;
pub use optimizer::OptimizerConfig;
pub use ppo::{AdvantageNorm, Algorithm, PpoConfig, Ratio};

/// Settings of MAPPO, in four groups. The defaults are for trading; [`Config::on_policy_mpe`] has those of the reference
/// implementation (marlbenchmark/on-policy) on its benchmark. `docs/reference.md` lists where defaults and algorithm differ from it.
///
/// ```
/// use phalanx::mappo::Config;
///
/// let mut config = Config::default();
/// config.ppo.num_envs = 16;
/// config.ppo.gamma = 0.95;
/// config.network.hidden = vec![32];
/// assert!(config.validate().is_ok());
/// ```
///
/// As one expression:
///
/// ```
/// use phalanx::mappo::{Config, NetworkConfig, PpoConfig};
///
/// let config = Config {
///     ppo: PpoConfig { num_envs: 16, gamma: 0.95, ..Default::default() },
///     network: NetworkConfig { hidden: vec![32], ..Default::default() },
///     ..Default::default()
/// };
/// assert!(config.validate().is_ok());
/// ```
///
/// Serialised, the settings are one flat object without the groups (`gamma = 0.95`). Missing keys have their defaults, unknown
/// ones are rejected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The algorithm: rollouts, returns, losses and ValueNorm.
    pub ppo: PpoConfig,
    /// The networks and their inputs.
    pub network: NetworkConfig,
    /// AdamW, its learning rates and gradient clipping.
    pub optimizer: OptimizerConfig,
    /// Precision and memory on the device.
    pub device: DeviceConfig,
}

impl Config {
    /// The settings of marlbenchmark/on-policy's script for MPE (feed-forward, `train_mpe_spread.sh`), for 20 million
    /// environment steps in episodes of 25.
    #[must_use]
    pub fn on_policy_mpe() -> Self {
        Self {
            ppo: PpoConfig {
                num_envs: 128,
                rollout_steps: 25,
                epochs: 10,
                iterations: 20_000_000 / (128 * 25),
                value_norm_floor: 1e-2,
                ..Default::default()
            },
            network: NetworkConfig {
                activation: Activation::Tanh,
                input_norm: true,
                agent_identity: false,
                ..Default::default()
            },
            optimizer: OptimizerConfig {
                actor_learning_rate: 7e-4,
                critic_learning_rate: 7e-4,
                learning_rate_decay: false,
                weight_decay: 0.0,
                ..Default::default()
            },
            device: DeviceConfig { accumulation: 1, ..Default::default() },
        }
    }

    /// Checks the range of every setting, and settings that depend on each other.
    ///
    /// # Errors
    /// [`Error::Config`] names the invalid setting and its range.
    pub fn validate(&self) -> Result<()> {
        if self.ppo.algorithm == Algorithm::Happo && self.network.networks == Sharing::Shared {
            return Err(Error::config(
                "algorithm",
                "`happo` needs separate networks: set `networks = \"separate\"`",
            ));
        }
        self.ppo.validate()?;
        self.network.validate()?;
        self.validate_minibatches()?;
        self.optimizer.validate()?;
        self.device.validate()
    }

    /// Of every environment, minibatches hold whole steps or, with a GRU, whole sequences.
    fn validate_minibatches(&self) -> Result<()> {
        let minibatches = self.ppo.minibatches;
        let chunks = self.ppo.rollout_steps.div_ceil(self.chunk().max(1));
        if self.network.recurrent && minibatches > chunks {
            return Err(Error::config(
                "minibatches",
                format!(
                    "{minibatches} is too many: a rollout has {chunks} sequences of `chunk_length` steps, which cannot \
                     be split further; lower `minibatches` or `chunk_length`"
                ),
            ));
        }
        range("minibatches", minibatches, 1.0, f64::from(chunks.min(1024)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of the default settings after a change.
    fn error(change: impl FnOnce(&mut Config)) -> Error {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err()
    }

    #[test]
    fn defaults_are_valid_and_bad_values_are_named() {
        Config::default().validate().unwrap();
        Config::on_policy_mpe().validate().unwrap();
        assert_eq!(
            error(|config| config.ppo.gamma = 1.5).to_string(),
            "setting `gamma`: 1.5 is out of range: from 0 to 1"
        );
        assert!(error(|config| config.ppo.clip = f64::NAN).to_string().contains("`clip`"));
    }

    #[test]
    fn every_group_is_checked() {
        for (key, error) in [
            ("gamma", error(|config| config.ppo.gamma = 1.5)),
            ("chunk_length", error(|config| config.network.chunk_length = 0)),
            ("hidden", error(|config| config.network.hidden.clear())),
            ("hidden", error(|config| config.network.hidden = vec![1; 9])),
            ("hidden", error(|config| config.network.hidden = vec![64, 0])),
            ("hidden", error(|config| config.network.hidden = vec![u32::MAX])),
            ("adam_beta1", error(|config| config.optimizer.adam_beta1 = 1.0)),
            ("memory_budget_mb", error(|config| config.device.memory_budget_mb = Some(0))),
        ] {
            assert!(matches!(&error, Error::Config { key: named, .. } if named == key), "{key}: {error}");
        }
    }

    #[test]
    fn settings_of_different_groups_are_checked_together() {
        let happo = error(|config| config.ppo.algorithm = Algorithm::Happo);
        assert_eq!(
            happo.to_string(),
            "setting `algorithm`: `happo` needs separate networks: set `networks = \"separate\"`"
        );
        let minibatches = error(|config| {
            config.network.recurrent = true;
            config.ppo.minibatches = 8;
        });
        assert_eq!(
            minibatches.to_string(),
            "setting `minibatches`: 8 is too many: a rollout has 7 sequences of `chunk_length` steps, which cannot be \
             split further; lower `minibatches` or `chunk_length`"
        );
    }
}
