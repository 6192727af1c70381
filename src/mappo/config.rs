//! Settings of the algorithm.

use serde::{Deserialize, Serialize};

use crate::env::{Environment, Spec};
use crate::nn::{Activation, CriticInput, Layout, Precision, Shape, Sharing};
use crate::{Error, Result};

/// Rows whose mean advantage becomes 0 and whose standard deviation 1. Only rows of active agents count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdvantageNorm {
    /// Those of the rollout, as the reference does it.
    #[default]
    Rollout,
    /// Those of the minibatch.
    Minibatch,
    /// None: advantages stay as they are.
    None,
}

/// Who learns from a rollout when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// All agents at once.
    #[default]
    Mappo,
    /// One after the other, in another random order for every rollout: the objective of each has the ratios of those before it
    /// as a factor (HAPPO; Kuba et al., arXiv 2109.11251). For networks of one per agent. Every turn goes through the whole
    /// rollout, so updates take as many times as long as there are agents. Apart from the authors' code: one ValueNorm for all,
    /// which moves by a share in every turn, and advantages are normalised over all agents.
    Happo,
}

/// Settings of MAPPO; the defaults are the reference's (marlbenchmark/on-policy), the learning rates those for trading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed of everything random: same seed, same adapter, same bytes.
    pub seed: u64,
    /// Who learns from a rollout when.
    pub algorithm: Algorithm,
    /// Environments stepped in parallel; rounded up to a multiple of 4, lowered where memory is short.
    pub num_envs: u32,
    /// Steps of a rollout.
    pub rollout_steps: u32,
    /// Updates on one rollout.
    pub epochs: u32,
    /// Optimizer steps of an epoch, each on its share of the rollout's steps. Losses are means over a minibatch, and the
    /// running moments of the returns move with each.
    pub minibatches: u32,
    /// What advantages are normalised over.
    pub advantage_norm: AdvantageNorm,
    /// Micro-batches whose gradients are added up to that of a minibatch; raised where memory is short.
    pub accumulation: u32,
    /// Factor on the rewards that are learnt from; reported returns are without it.
    pub reward_scale: f64,
    /// Discount per step.
    pub gamma: f64,
    /// Weight of longer advantage estimates.
    pub gae_lambda: f64,
    /// Clip range of the probability ratio.
    pub clip: f64,
    /// Clip range of the value.
    pub value_clip: f64,
    /// Delta of the Huber loss of the value.
    pub huber_delta: f64,
    /// Entropy coefficient.
    pub entropy: f64,
    /// Where it ends: it moves there linearly over the iterations; unset: it stays.
    pub entropy_end: Option<f64>,
    /// KL divergence (k3, mean over the rollout) after which a rollout is not learnt from any more: the epochs that remain
    /// leave weights and moments alone; 0: never.
    pub target_kl: f64,
    /// Value loss coefficient.
    pub value_coefficient: f64,
    /// Largest gradient norm of a network; 0 does not clip.
    pub max_grad_norm: f64,
    /// Learning rate of the actors.
    pub actor_learning_rate: f64,
    /// Learning rate of the critics.
    pub critic_learning_rate: f64,
    /// Whether learning rates fall linearly to 0 over the iterations.
    pub learning_rate_decay: bool,
    /// Iterations: one rollout and its updates each.
    pub iterations: u32,
    /// AdamW: decay of the first moment.
    pub adam_beta1: f64,
    /// AdamW: decay of the second moment.
    pub adam_beta2: f64,
    /// AdamW: added to the root.
    pub adam_epsilon: f64,
    /// AdamW: weight decay.
    pub weight_decay: f64,
    /// Whether networks see observations normalised by their running mean and deviation, feature by feature
    /// (`ppo::running_mean_std`), and critics the environment's own state likewise. Agents that share networks share moments.
    /// These move after every rollout; what random play shows in a rollout that is then thrown away gives the first. For
    /// environments whose numbers come in units of their own. Where these are few, switch `input_norm` off: it leaves only their
    /// proportions.
    pub observation_norm: bool,
    /// Whether values are scaled by running moments of the returns.
    pub value_norm: bool,
    /// Decay of these moments.
    pub value_norm_beta: f64,
    /// Least variance they may report.
    pub value_norm_floor: f64,
    /// Widths of the hidden layers.
    pub hidden: Vec<u32>,
    /// Nonlinearity of the hidden layers.
    pub activation: Activation,
    /// Whether a LayerNorm comes before the first layer.
    pub input_norm: bool,
    /// Whether a LayerNorm comes after every hidden layer's activation.
    pub hidden_norm: bool,
    /// Whether actors and critics have a GRU between the hidden layers and the head, as wide as the last of these, that
    /// remembers what was seen earlier in the episode.
    pub recurrent: bool,
    /// Steps that gradients flow back through it: rollouts are learnt from in chunks of so many steps, which begin with what was
    /// remembered there when the rollout was played.
    pub chunk_length: u32,
    /// Whether the real numbers of an action are squashed into (-1, 1) by tanh; for environments with such actions only
    /// ([`Environment::continuous`]). Probabilities and entropies are those of the squashed numbers (`ppo::sample`,
    /// `ppo::loss`); the greedy action is the tanh of the mean.
    pub squash: bool,
    /// One network for all agents or one each.
    pub networks: Sharing,
    /// Whether shared networks are told which agent they act for.
    pub agent_identity: bool,
    /// What critics see: all agents' observations (MAPPO), the agent's own (IPPO), or the environment's own state
    /// ([`Environment::state_dim`]).
    pub critic_input: CriticInput,
    /// Storage precision.
    pub precision: Precision,
    /// Mebibytes of GPU memory to use at most; unset: what the smallest card of the adapter's kind can spare.
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
    /// The settings of marlbenchmark/on-policy's scripts for MPE (feed-forward, `train_mpe_spread.sh`), for 20 million steps
    /// of episodes of 25.
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

    /// The networks that these settings make for an environment.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, for [`Config::squash`] where actions are not real numbers, and for critics of
    /// a state that the environment does not have.
    pub fn layout(&self, environment: &dyn Environment) -> Result<Layout> {
        self.validate()?;
        let (choices, actions) = (environment.choices(), environment.spec().actions);
        if environment.continuous() {
            if !(1..=16).contains(&actions) {
                return Err(Error::config(
                    "actions",
                    format!("{actions} real numbers are out of range: from 1 to 16"),
                ));
            }
            return Layout::new(&self.shape(&environment.spec(), true, environment.state_dim()));
        }
        if self.squash {
            return Err(Error::config(
                "squash",
                "the environment's actions are choices; only real numbers can be squashed",
            ));
        }
        let sum = choices.iter().map(|size| u64::from(*size)).sum::<u64>();
        if choices.iter().any(|size| *size < 2) || sum != u64::from(actions) {
            let wanted = format!("sizes of at least 2 that add up to {actions}");
            return Err(Error::shape("choices of an action", wanted, format!("{choices:?}")));
        }
        Layout::new(&self.shape(&environment.spec(), false, environment.state_dim()))
    }

    /// Turns that agents take to learn from a rollout.
    pub(super) fn agent_steps(&self, agents: u32) -> u32 {
        match self.algorithm {
            Algorithm::Mappo => 1,
            Algorithm::Happo => agents,
        }
    }

    /// Steps of a chunk; 0 without recurrence.
    pub(super) fn chunk(&self) -> u32 {
        if self.recurrent { self.chunk_length.min(self.rollout_steps) } else { 0 }
    }

    /// Their shape, in an environment that has `state_dim` numbers of a state of its own.
    pub(crate) fn shape(&self, spec: &Spec, continuous: bool, state_dim: u32) -> Shape {
        Shape {
            agents: spec.agents,
            obs_dim: spec.obs_dim,
            actions: if continuous { 2 * spec.actions } else { spec.actions },
            constants: if continuous { spec.actions } else { 0 },
            hidden: self.hidden.clone(),
            sharing: self.networks,
            agent_identity: self.agent_identity,
            critic_input: self.critic_input,
            state_dim,
            activation: self.activation,
            input_norm: self.input_norm,
            hidden_norm: self.hidden_norm,
            chunk: self.chunk(),
        }
    }

    /// # Errors
    /// [`Error::Config`] that names the first setting out of range, and the range.
    pub fn validate(&self) -> Result<()> {
        let range = |key: &str, value: f64, low: f64, high: f64| {
            if value.is_finite() && (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Error::config(key, format!("{value} is out of range: from {low} to {high}")))
        };
        if self.algorithm == Algorithm::Happo && self.networks == Sharing::Shared {
            return Err(Error::config(
                "algorithm",
                "`happo` is for networks of one per agent: set `networks = \"separate\"`",
            ));
        }
        range("num_envs", f64::from(self.num_envs), 1.0, 1_048_576.0)?;
        range("rollout_steps", f64::from(self.rollout_steps), 1.0, 65_536.0)?;
        range("epochs", f64::from(self.epochs), 1.0, 1000.0)?;
        range("chunk_length", f64::from(self.chunk_length), 1.0, 65_536.0)?;
        let chunks = self.rollout_steps.div_ceil(self.chunk().max(1));
        if self.recurrent && self.minibatches > chunks {
            let found = self.minibatches;
            return Err(Error::config(
                "minibatches",
                format!(
                    "{found} minibatches of a rollout of {chunks} chunks (`chunk_length`), which stay whole"
                ),
            ));
        }
        range("minibatches", f64::from(self.minibatches), 1.0, f64::from(chunks.min(1024)))?;
        range("accumulation", f64::from(self.accumulation), 1.0, 65_536.0)?;
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
        range("max_grad_norm", self.max_grad_norm, 0.0, 1e6)?;
        range("actor_learning_rate", self.actor_learning_rate, 0.0, 1.0)?;
        range("critic_learning_rate", self.critic_learning_rate, 0.0, 1.0)?;
        range("iterations", f64::from(self.iterations), 1.0, 1e9)?;
        range("adam_beta1", self.adam_beta1, 0.0, 0.999_999)?;
        range("adam_beta2", self.adam_beta2, 0.0, 0.999_999_9)?;
        range("adam_epsilon", self.adam_epsilon, 1e-20, 1.0)?;
        range("weight_decay", self.weight_decay, 0.0, 1.0)?;
        range("value_norm_beta", self.value_norm_beta, 0.0, 0.999_999_9)?;
        range("value_norm_floor", self.value_norm_floor, 1e-20, 1e6)?;
        if let Some(budget) = self.memory_budget_mb {
            range("memory_budget_mb", budget as f64, 1.0, 1e7)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Spread;
    use crate::env::spread::Definition;

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
    fn choices_are_not_squashed() {
        let config = Config { squash: true, ..Default::default() };
        let error = config.layout(&Spread::new(Definition::Mpe2)).unwrap_err();
        assert!(matches!(&error, Error::Config { key, .. } if key == "squash"), "{error}");
        let older: Config = serde_json::from_str(r#"{"seed": 1}"#).unwrap();
        assert!(!older.squash, "settings from before there was one");
    }

    #[test]
    fn critics_of_a_state_are_refused_where_there_is_none() {
        let config = Config { critic_input: CriticInput::State, ..Default::default() };
        let error = config.layout(&Spread::new(Definition::Mpe2)).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "setting `critic_input`: `state` needs an environment with a state of its own, and this one has \
             none; `joint` shows critics all agents' observations"
        );
    }
}
