//! Settings of the algorithm: rollouts, returns, losses, ValueNorm.

use serde::{Deserialize, Serialize};

use super::{Config, range};
use crate::nn::Sharing;
use crate::{Error, Result};

/// Rows over which advantages are normalised to mean 0 and standard deviation 1. Only rows of active agents count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdvantageNorm {
    /// The whole rollout, as in the reference.
    #[default]
    Rollout,
    /// The minibatch.
    Minibatch,
    /// None: advantages are not normalised.
    None,
}

/// Whether a rollout updates all agents together or one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// All agents together.
    #[default]
    Mappo,
    /// One agent after the other, in a new random order for every rollout: the objective of an agent is multiplied by the
    /// probability ratios of the agents before it (HAPPO; Kuba et al., arXiv 2109.11251). Requires separate networks. Every agent
    /// step processes the whole rollout, so the time of updates is proportional to the number of agents. Two differences from the
    /// authors' code: all agents share one ValueNorm, updated by an equal share in every agent step, and advantages are normalised
    /// over all agents.
    Happo,
}

impl Config {
    /// Agent steps of an update: one per agent with HAPPO, else one.
    pub(in crate::mappo) fn agent_steps(&self, agents: u32) -> u32 {
        match self.algorithm {
            Algorithm::Mappo => 1,
            Algorithm::Happo => agents,
        }
    }
}

pub(super) fn validate(config: &Config) -> Result<()> {
    if config.algorithm == Algorithm::Happo && config.networks == Sharing::Shared {
        return Err(Error::config(
            "algorithm",
            "`happo` needs separate networks: set `networks = \"separate\"`",
        ));
    }
    range("num_envs", config.num_envs, 1.0, 1_048_576.0)?;
    range("rollout_steps", config.rollout_steps, 1.0, 65_536.0)?;
    range("epochs", config.epochs, 1.0, 1000.0)?;
    range("accumulation", config.accumulation, 1.0, 65_536.0)?;
    range("reward_scale", config.reward_scale, 1e-9, 1e9)?;
    range("gamma", config.gamma, 0.0, 1.0)?;
    range("gae_lambda", config.gae_lambda, 0.0, 1.0)?;
    range("clip", config.clip, 1e-4, 10.0)?;
    range("value_clip", config.value_clip, 1e-4, 1e6)?;
    range("huber_delta", config.huber_delta, 1e-4, 1e6)?;
    range("entropy", config.entropy, 0.0, 10.0)?;
    range("entropy_end", config.entropy_end.unwrap_or_default(), 0.0, 10.0)?;
    range("target_kl", config.target_kl, 0.0, 1e6)?;
    range("value_coefficient", config.value_coefficient, 0.0, 100.0)?;
    range("iterations", config.iterations, 1.0, 1e9)?;
    range("value_norm_beta", config.value_norm_beta, 0.0, 0.999_999_9)?;
    range("value_norm_floor", config.value_norm_floor, 1e-20, 1e6)
}
