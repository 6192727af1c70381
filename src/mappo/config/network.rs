//! Settings of the networks and their inputs.

use crate::nn::{Activation, CriticInput, MAX_HIDDEN_LAYERS, MAX_WIDTH, Sharing};
use crate::ranges::check as range;
use crate::{Error, Result};

/// The networks and their inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// Widths of the hidden layers.
    pub hidden: Vec<u32>,
    /// Activation function of the hidden layers.
    pub activation: Activation,
    /// Whether observations, and the global state if the critic uses it, are normalised feature by feature with a running
    /// mean and standard deviation (`ppo::running_mean_std`), for environments whose features have different units. Agents that
    /// share networks share the statistics. They are initialised by a rollout of random actions, which is then discarded, and
    /// updated after every rollout.
    pub observation_norm: bool,
    /// Whether a LayerNorm precedes the first layer. It suits dozens of features of one kind; of a few raw ones it leaves only their
    /// proportions, and agents learn little (`docs/learning.md`).
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
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            hidden: vec![64, 64],
            activation: Activation::Relu,
            observation_norm: false,
            input_norm: false,
            hidden_norm: true,
            recurrent: false,
            chunk_length: 10,
            squash: false,
            networks: Sharing::Shared,
            agent_identity: true,
            critic_input: CriticInput::Joint,
        }
    }
}

impl NetworkConfig {
    /// Checks the hidden layers and `chunk_length`; [`crate::nn::Layout::new`] checks what depends on the environment.
    pub(super) fn validate(&self) -> Result<()> {
        let layers = self.hidden.len() as u32;
        if !(1..=MAX_HIDDEN_LAYERS).contains(&layers) {
            let reason = format!("{layers} layers are out of range: from 1 to {MAX_HIDDEN_LAYERS}");
            return Err(Error::config("hidden", reason));
        }
        self.hidden.iter().try_for_each(|width| range("hidden", *width, 1.0, f64::from(MAX_WIDTH)))?;
        range("chunk_length", self.chunk_length, 1.0, 65_536.0)
    }
}
