//! Settings of the algorithm: rollouts, returns, losses, ValueNorm.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::env::Environment;
use crate::ranges::check as range;

/// Rows over which advantages are normalised to mean 0 and standard deviation 1. Only rows of active agents count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdvantageNorm {
    /// The whole rollout, as in the reference; agents with separate networks each normalise those of their own rows.
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
    /// step processes the whole rollout, so the time of updates is proportional to the number of agents, and evaluates the agent's
    /// policy twice more for its ratios. Every agent has a critic, as in marlbenchmark/on-policy; the authors' code (PKU-MARL/HARL)
    /// trains one for all.
    Happo,
}

/// The probability ratios that are clipped in actions of several choices ([`Environment::choices`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ratio {
    /// One per choice, as in marlbenchmark/on-policy: the surrogates of the choices are added up, the entropy is the mean of
    /// theirs.
    #[default]
    PerChoice,
    /// That of the whole action, the product of the choices' ratios: one surrogate per action, the entropy is the sum of those
    /// of the choices.
    Joint,
}

/// The algorithm: rollouts, returns, losses and ValueNorm.
#[derive(Clone, Debug, PartialEq)]
pub struct PpoConfig {
    /// Random seed of the whole run: initial weights, environments, actions. The same seed on the same adapter gives the same
    /// bytes. TOML files hold integers below 2^63 only; larger seeds have to be set in code.
    pub seed: u64,
    /// Whether all agents are updated together (MAPPO) or one after the other (HAPPO).
    pub algorithm: Algorithm,
    /// Number of parallel environments; rounded up to a multiple of 4.
    pub num_envs: u32,
    /// Steps per rollout.
    pub rollout_steps: u32,
    /// Number of iterations, each a rollout and its updates.
    pub iterations: u32,
    /// Epochs of updates per rollout.
    pub epochs: u32,
    /// Minibatches per epoch, with a separate optimizer step each. In every epoch the steps of a rollout (with a GRU, sequences of
    /// `chunk_length` steps) are dealt to the minibatches at random, separately for each four environments, so that all
    /// minibatches hold equally many steps of every environment. Losses are means over a minibatch, and each minibatch updates
    /// the running statistics of the returns (ValueNorm).
    pub minibatches: u32,
    /// Rows over which advantages are normalised.
    pub advantage_norm: AdvantageNorm,
    /// Multiplier of rewards in training; reported returns do not include it.
    pub reward_scale: f64,
    /// Discount factor per step.
    pub gamma: f64,
    /// Lambda of generalised advantage estimation.
    pub gae_lambda: f64,
    /// Clip range of the probability ratio.
    pub clip: f64,
    /// Ratios that are clipped in actions of several choices. Without effect on actions of one choice, continuous actions, and
    /// HAPPO, which clips the ratio of the whole action as its reference does.
    pub ratio: Ratio,
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
    /// Whether critics predict returns normalised by running statistics (ValueNorm); agents with separate networks each have their
    /// own.
    pub value_norm: bool,
    /// Decay of the running statistics of the returns.
    pub value_norm_beta: f64,
    /// Lower bound on the variance of the returns in ValueNorm.
    pub value_norm_floor: f64,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            algorithm: Algorithm::Mappo,
            num_envs: 128,
            rollout_steps: 64,
            iterations: 200,
            epochs: 10,
            minibatches: 1,
            advantage_norm: AdvantageNorm::Rollout,
            reward_scale: 1.0,
            gamma: 0.99,
            gae_lambda: 0.95,
            clip: 0.2,
            ratio: Ratio::PerChoice,
            value_clip: 0.2,
            huber_delta: 10.0,
            entropy: 0.01,
            entropy_end: None,
            target_kl: 0.0,
            value_coefficient: 1.0,
            value_norm: true,
            value_norm_beta: 0.99999,
            value_norm_floor: 1e-6,
        }
    }
}

impl PpoConfig {
    /// Agent steps of an update: one per agent with HAPPO, else one.
    pub(in crate::mappo) fn agent_steps(&self, agents: u32) -> u32 {
        match self.algorithm {
            Algorithm::Mappo => 1,
            Algorithm::Happo => agents,
        }
    }

    /// Choices of an action whose ratios are clipped one by one; 0: the ratio of the whole action is clipped.
    pub(in crate::mappo) fn clipped_choices(&self, environment: &dyn Environment) -> u32 {
        let choices = environment.choices().len() as u32;
        let per_choice = self.ratio == Ratio::PerChoice && self.algorithm == Algorithm::Mappo;
        if per_choice && choices > 1 && !environment.continuous() { choices } else { 0 }
    }

    /// Checks every range except that of `minibatches`, which depends on the networks.
    pub(super) fn validate(&self) -> Result<()> {
        range("num_envs", self.num_envs, 1.0, 1_048_576.0)?;
        range("rollout_steps", self.rollout_steps, 1.0, 65_536.0)?;
        range("epochs", self.epochs, 1.0, 1000.0)?;
        range("reward_scale", self.reward_scale, 1e-9, 1e9)?;
        range("gamma", self.gamma, 0.0, 1.0)?;
        range("gae_lambda", self.gae_lambda, 0.0, 1.0)?;
        range("clip", self.clip, 1e-4, 10.0)?;
        range("value_clip", self.value_clip, 1e-4, 1e6)?;
        range("huber_delta", self.huber_delta, 1e-4, 1e6)?;
        range("entropy", self.entropy, 0.0, 10.0)?;
        range("entropy_end", self.entropy_end.unwrap_or_default(), 0.0, 10.0)?;
        range("target_kl", self.target_kl, 0.0, 1e6)?;
        range("value_coefficient", self.value_coefficient, 0.0, 100.0)?;
        range("iterations", self.iterations, 1.0, 1e9)?;
        range("value_norm_beta", self.value_norm_beta, 0.0, 0.999_999_9)?;
        range("value_norm_floor", self.value_norm_floor, 1e-20, 1e6)
    }
}
