//! Training settings.
//!
//! [`Config`] is one flat struct, whose fields are the keys of TOML files, checkpoints and model files. Each group of settings has
//! a file that checks its ranges: [`ppo`] the algorithm, [`network`] the networks, [`optimizer`] AdamW and its learning rates,
//! [`device`] precision and memory.

mod device;
mod network;
mod optimizer;
mod ppo;

use serde::{Deserialize, Serialize};

use crate::nn::{Activation, CriticInput, Precision, Sharing};
use crate::{Error, Result};

pub use ppo::{AdvantageNorm, Algorithm};

/// Settings of MAPPO. The defaults follow the reference implementation (marlbenchmark/on-policy), with learning rates for
/// trading.
///
/// ```
/// use phalanx::mappo::Config;
///
/// let config = Config { num_envs: 16, hidden: vec![32], gamma: 0.95, ..Config::default() };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Random seed. The same seed on the same adapter gives the same bytes.
    pub seed: u64,
    /// Whether all agents are updated together (MAPPO) or one after the other (HAPPO).
    pub algorithm: Algorithm,
    /// Number of parallel environments; rounded up to a multiple of 4, reduced if memory is short.
    pub num_envs: u32,
    /// Steps per rollout.
    pub rollout_steps: u32,
    /// Epochs of updates per rollout.
    pub epochs: u32,
    /// Minibatches per epoch, each a range of the rollout's steps with a separate optimizer step. Losses are means over a
    /// minibatch, and each minibatch updates the running statistics of the returns (ValueNorm).
    pub minibatches: u32,
    /// Rows over which advantages are normalised.
    pub advantage_norm: AdvantageNorm,
    /// Micro-batches per minibatch, whose gradients are accumulated; raised if memory is short.
    pub accumulation: u32,
    /// Multiplier of rewards in training; reported returns do not include it.
    pub reward_scale: f64,
    /// Discount factor per step.
    pub gamma: f64,
    /// Lambda of generalised advantage estimation.
    pub gae_lambda: f64,
    /// Clip range of the probability ratio.
    pub clip: f64,
    /// Clip range of the value.
    pub value_clip: f64,
    /// Delta of the value's Huber loss.
    pub huber_delta: f64,
    /// Entropy coefficient.
    pub entropy: f64,
    /// Entropy coefficient of the last iteration, reached linearly; unset: the coefficient is constant.
    pub entropy_end: Option<f64>,
    /// KL divergence (k3 estimate, mean over the rollout) above which the remaining epochs of a rollout are skipped: weights and
    /// running statistics do not change. 0: never.
    pub target_kl: f64,
    /// Value loss coefficient.
    pub value_coefficient: f64,
    /// Maximum gradient norm per network; 0 disables clipping.
    pub max_grad_norm: f64,
    /// Learning rate of the actors.
    pub actor_learning_rate: f64,
    /// Learning rate of the critics.
    pub critic_learning_rate: f64,
    /// Whether learning rates decay linearly to 0 over the iterations.
    pub learning_rate_decay: bool,
    /// Number of iterations, each a rollout and its updates.
    pub iterations: u32,
    /// AdamW: decay of the first moment.
    pub adam_beta1: f64,
    /// AdamW: decay of the second moment.
    pub adam_beta2: f64,
    /// AdamW: epsilon, added to the root of the second moment.
    pub adam_epsilon: f64,
    /// AdamW: weight decay.
    pub weight_decay: f64,
    /// Whether observations, and the global state if the critic uses it, are normalised feature by feature with a running
    /// mean and standard deviation (`ppo::running_mean_std`), for environments whose features have different units. Agents that
    /// share networks share the statistics. They are initialised by a rollout of random actions, which is then discarded, and
    /// updated after every rollout. With few features, disable `input_norm`: a LayerNorm keeps only their proportions.
    pub observation_norm: bool,
    /// Whether critics predict returns normalised by running statistics (ValueNorm).
    pub value_norm: bool,
    /// Decay of the running statistics of the returns.
    pub value_norm_beta: f64,
    /// Lower bound on the variance of the returns in ValueNorm.
    pub value_norm_floor: f64,
    /// Widths of the hidden layers.
    pub hidden: Vec<u32>,
    /// Activation function of the hidden layers.
    pub activation: Activation,
    /// Whether a LayerNorm precedes the first layer.
    pub input_norm: bool,
    /// Whether a LayerNorm follows every hidden layer's activation.
    pub hidden_norm: bool,
    /// Whether actors and critics have a GRU between the hidden layers and the head, as wide as the last hidden layer.
    pub recurrent: bool,
    /// Steps of truncated back-propagation through time: rollouts are split into sequences of this length, each of which starts
    /// from the GRU state stored during the rollout. Only used if `recurrent` is set.
    pub chunk_length: u32,
    /// Whether continuous actions are squashed into (-1, 1) by tanh; an error in environments with discrete actions
    /// ([`crate::env::Environment::continuous`]). Probabilities and entropies are those of the squashed actions
    /// (`ppo::sample`, `ppo::loss`); the greedy action is the tanh of the mean.
    pub squash: bool,
    /// Whether agents share networks or have separate ones.
    pub networks: Sharing,
    /// Whether shared networks receive the agent's index as a one-hot input.
    pub agent_identity: bool,
    /// Input of the critics: the joint observation of all agents (MAPPO), the agent's own (IPPO), or the global state
    /// ([`crate::env::Environment::state_dim`]).
    pub critic_input: CriticInput,
    /// Storage precision.
    pub precision: Precision,
    /// Limit on GPU memory in MiB; by default chosen for the adapter ([`crate::gpu::Budget::of`]).
    pub memory_budget_mb: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 1,
            algorithm: Algorithm::Mappo,
            num_envs: 128,
            rollout_steps: 64,
            epochs: 10,
            minibatches: 1,
            advantage_norm: AdvantageNorm::Rollout,
            accumulation: 4,
            reward_scale: 1.0,
            gamma: 0.99,
            gae_lambda: 0.95,
            clip: 0.2,
            value_clip: 0.2,
            huber_delta: 10.0,
            entropy: 0.01,
            entropy_end: None,
            target_kl: 0.0,
            value_coefficient: 1.0,
            max_grad_norm: 10.0,
            actor_learning_rate: 3e-4,
            critic_learning_rate: 3e-4,
            learning_rate_decay: true,
            iterations: 200,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-5,
            weight_decay: 1e-4,
            observation_norm: false,
            value_norm: true,
            value_norm_beta: 0.99999,
            value_norm_floor: 1e-6,
            hidden: vec![64, 64],
            activation: Activation::Relu,
            input_norm: true,
            hidden_norm: true,
            recurrent: false,
            chunk_length: 10,
            squash: false,
            networks: Sharing::Shared,
            agent_identity: true,
            critic_input: CriticInput::Joint,
            precision: Precision::F32,
            memory_budget_mb: None,
        }
    }
}

impl Config {
    /// The settings of marlbenchmark/on-policy's script for MPE (feed-forward, `train_mpe_spread.sh`), for 20 million
    /// environment steps in episodes of 25.
    #[must_use]
    pub fn on_policy_mpe() -> Self {
        Self {
            num_envs: 128,
            rollout_steps: 25,
            epochs: 10,
            accumulation: 1,
            actor_learning_rate: 7e-4,
            critic_learning_rate: 7e-4,
            learning_rate_decay: false,
            weight_decay: 0.0,
            iterations: 20_000_000 / (128 * 25),
            value_norm_floor: 1e-2,
            activation: Activation::Tanh,
            agent_identity: false,
            ..Self::default()
        }
    }

    /// Checks the range of every setting, and settings that depend on each other.
    ///
    /// # Errors
    /// [`Error::Config`] names the invalid setting and its range.
    pub fn validate(&self) -> Result<()> {
        ppo::validate(self)?;
        network::validate(self)?;
        optimizer::validate(self)?;
        device::validate(self)
    }
}

/// Checks that `value` lies within `low..=high`.
///
/// # Errors
/// [`Error::Config`] if it does not, or is NaN.
fn range(key: &str, value: impl Into<f64>, low: f64, high: f64) -> Result<()> {
    let value = value.into();
    if value.is_finite() && (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::config(key, format!("{value} is out of range: from {low} to {high}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_bad_values_are_named() {
        Config::default().validate().unwrap();
        let wrong = Config { gamma: 1.5, ..Default::default() };
        assert_eq!(
            wrong.validate().unwrap_err().to_string(),
            "setting `gamma`: 1.5 is out of range: from 0 to 1"
        );
        let wrong = Config { clip: f64::NAN, ..Default::default() };
        assert!(wrong.validate().unwrap_err().to_string().contains("`clip`"));
    }

    #[test]
    fn every_group_is_checked() {
        let base = Config::default;
        for (key, wrong) in [
            ("gamma", Config { gamma: 1.5, ..base() }),
            ("chunk_length", Config { chunk_length: 0, ..base() }),
            ("adam_beta1", Config { adam_beta1: 1.0, ..base() }),
            ("memory_budget_mb", Config { memory_budget_mb: Some(0), ..base() }),
        ] {
            let error = wrong.validate().unwrap_err();
            assert!(matches!(&error, Error::Config { key: named, .. } if named == key), "{key}: {error}");
        }
    }

    /// Checkpoints and model files hold the settings as one flat object.
    #[test]
    fn files_hold_flat_keys_and_unknown_ones_are_rejected() {
        let config = Config { hidden: vec![7], target_kl: 0.5, ..Config::default() };
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!((&json["target_kl"], &json["hidden"][0]), (&0.5.into(), &7.into()));
        assert_eq!(serde_json::from_value::<Config>(json).unwrap(), config);
        let older: Config = serde_json::from_str(r#"{"seed": 1}"#).unwrap();
        assert_eq!(older, Config::default(), "missing settings have their defaults");
        let error = serde_json::from_str::<Config>(r#"{"gama": 0.9}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `gama`"), "{error}");
    }
}
