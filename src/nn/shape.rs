//! The settings that determine all sizes of the networks.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, ranges};

/// Most linear layers of a network: four hidden ones, two of a GRU, and the head.
pub const MAX_LAYERS: usize = crate::shaders::constants::network::MAX_LAYERS as usize;

/// Most hidden layers.
pub const MAX_HIDDEN_LAYERS: u32 = MAX_LAYERS as u32 - 3;

/// Most outputs of a hidden layer.
pub const MAX_WIDTH: u32 = 1024;

/// Nonlinearity of the hidden layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(x, 0)
    #[default]
    Relu,
    /// tanh(x)
    Tanh,
    /// x times the normal distribution function of x, exact (not the tanh approximation).
    Gelu,
    /// x / (1 + exp(-x))
    Silu,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Relu, Self::Tanh, Self::Gelu, Self::Silu];

    /// Gain of the orthogonal initialisation (`torch.nn.init.calculate_gain`; GELU and SiLU, which PyTorch does not list, use
    /// ReLU's).
    #[must_use]
    pub fn gain(self) -> f64 {
        match self {
            Self::Relu | Self::Gelu | Self::Silu => std::f64::consts::SQRT_2,
            Self::Tanh => 5.0 / 3.0,
        }
    }

    /// Name in settings, and condition in the shaders.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Tanh => "tanh",
            Self::Gelu => "gelu",
            Self::Silu => "silu",
        }
    }

    /// Whether the derivative follows from the value; otherwise kernels store the argument, too.
    pub(super) fn invertible(self) -> bool {
        matches!(self, Self::Relu | Self::Tanh)
    }
}

/// Whether agents share their networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// One actor and one critic for all agents.
    #[default]
    Shared,
    /// One actor and one critic per agent.
    Separate,
}

/// Input of the critics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CriticInput {
    /// The observations of all agents one after the other: MAPPO.
    #[default]
    Joint,
    /// The agent's own observation: IPPO.
    Own,
    /// The global state, which only critics read, the same for all agents.
    State,
}

/// Sizes and structure of the networks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Agents of an environment.
    pub agents: u32,
    /// Features of one agent's observation.
    pub obs_dim: u32,
    /// Outputs of an actor, 2 to 32: logits, or means and logarithms of standard deviations.
    pub actions: u32,
    /// Number of the last outputs that do not depend on the observation: logarithms of standard deviations.
    pub constants: u32,
    /// Widths of the hidden layers, one to four.
    pub hidden: Vec<u32>,
    /// Whether agents share networks.
    pub sharing: Sharing,
    /// Whether a shared network knows which agent it acts for, by a bias per agent in the first layer: equivalent to a one-hot
    /// agent number beside the normalised observation.
    pub agent_identity: bool,
    /// Input of the critics.
    pub critic_input: CriticInput,
    /// Features of the global state; used only with [`CriticInput::State`].
    pub state_dim: u32,
    /// Nonlinearity of the hidden layers.
    pub activation: Activation,
    /// Whether a LayerNorm comes before the first layer.
    pub input_norm: bool,
    /// Whether a LayerNorm comes after the activation of every hidden layer, and after the GRU.
    pub hidden_norm: bool,
    /// Steps of truncated back-propagation through the GRU between the last hidden layer and the head, which is as wide as that
    /// layer. 0: no GRU.
    pub chunk: u32,
}

impl Default for Shape {
    /// One agent with one feature and two actions; two layers of 64, ReLU, LayerNorm everywhere.
    fn default() -> Self {
        Self {
            agents: 1,
            obs_dim: 1,
            actions: 2,
            constants: 0,
            hidden: vec![64, 64],
            sharing: Sharing::Shared,
            agent_identity: true,
            critic_input: CriticInput::Joint,
            state_dim: 0,
            activation: Activation::Relu,
            input_norm: true,
            hidden_norm: true,
            chunk: 0,
        }
    }
}

impl Shape {
    /// Whether there is a GRU.
    #[must_use]
    pub fn recurrent(&self) -> bool {
        self.chunk > 0
    }

    /// Entries of a GRU's state per row; 0 without a GRU.
    #[must_use]
    pub fn memory(&self) -> u32 {
        if self.recurrent() { self.hidden.last().copied().unwrap_or(0) } else { 0 }
    }

    /// Features of the environment's state stored for the critics; 0 if they do not read it.
    #[must_use]
    pub fn stored_state(&self) -> u32 {
        if self.critic_input == CriticInput::State { self.state_dim } else { 0 }
    }

    /// # Errors
    /// [`Error::Config`] for sizes out of range.
    pub(super) fn check(&self) -> Result<()> {
        let range =
            |key: &str, value: u32, low: u32, high: u32| ranges::check(key, value, low.into(), high.into());
        range("agents", self.agents, 1, 1024)?;
        range("observation features", self.obs_dim, 1, 65_536 / self.agents.max(1))?;
        if self.critic_input == CriticInput::State && self.state_dim == 0 {
            let text = "`state` needs an environment with a global state, and this one has none: \
                        use `joint`, the observations of all agents";
            return Err(Error::config("critic_input", text));
        }
        range("numbers of the environment's state", self.stored_state(), 0, 65_536)?;
        range("actions", self.actions, 2, 32)?;
        range("constant outputs of an actor", self.constants, 0, self.actions - 1)?;
        range("hidden layers", self.hidden.len() as u32, 1, MAX_HIDDEN_LAYERS)?;
        range("chunk_length", self.chunk, 0, 65_536)?;
        self.hidden.iter().try_for_each(|width| range("hidden", *width, 1, MAX_WIDTH))
    }
}
