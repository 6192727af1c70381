//! Metadata of a model file: all that acting takes, and nothing of the training.

use serde::{Deserialize, Serialize};

#[cfg(feature = "market")]
use super::market::MarketMetadata;
use crate::mappo::{Config, DeviceConfig, NetworkConfig};
use crate::nn::{Activation, CriticInput, Layout, Precision, Shape, Sharing};
use crate::ppo::ActionKind;
use crate::{Error, Result};

/// Most numbers of a continuous action.
const MOST_NUMBERS: u32 = 16;

/// A market's metadata, which a build without the feature `market` keeps as it finds them.
#[cfg(not(feature = "market"))]
pub type MarketMetadata = serde_json::Value;

/// Metadata of a model file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Version of phalanx that wrote the file.
    pub version: String,
    /// Sizes and structure of the networks.
    pub network: NetworkMetadata,
    /// The actions of an agent.
    pub actions: ActionSpec,
    /// Names of an agent's features, in order; empty if they have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Running statistics of the observations ([`crate::mappo::Trainer::observation_moments`]), `[agents * features]`, with those of
    /// the global state behind them if the critics read it; empty without `observation_norm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observation_moments: Vec<[f32; 4]>,
    /// Rules and scaling of a market; `None` for other environments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub market: Option<MarketMetadata>,
}

/// Sizes and structure of a policy's networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkMetadata {
    /// Agents of an environment.
    pub agents: u32,
    /// Features of an agent's observation.
    pub obs_dim: u32,
    /// Numbers of the global state; 0 if critics do not read it.
    #[serde(default)]
    pub state_dim: u32,
    /// Widths of the hidden layers.
    pub hidden: Vec<u32>,
    /// Activation function of the hidden layers.
    pub activation: Activation,
    /// Whether a LayerNorm precedes the first layer.
    pub input_norm: bool,
    /// Whether a LayerNorm follows every hidden layer's activation.
    pub hidden_norm: bool,
    /// Whether there is a GRU between the hidden layers and the head.
    pub recurrent: bool,
    /// Whether agents share networks.
    pub networks: Sharing,
    /// Whether shared networks know the agent's index.
    pub agent_identity: bool,
    /// Input of the critics.
    pub critic_input: CriticInput,
    /// Precision of the training, in which the networks act.
    pub precision: Precision,
}

/// The actions of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ActionSpec {
    /// One option of each of several choices; a discrete action has one choice.
    Discrete {
        /// Options of every choice.
        choices: Vec<u32>,
    },
    /// Real numbers.
    Continuous {
        /// Numbers of an action.
        numbers: u32,
        /// Whether they are squashed into (-1, 1) by tanh.
        squashed: bool,
    },
}

impl ActionSpec {
    /// Discrete actions: the sum over all choices. Continuous ones: the numbers.
    #[must_use]
    pub fn actions(&self) -> u32 {
        match self {
            Self::Discrete { choices } => choices.iter().copied().fold(0, u32::saturating_add),
            Self::Continuous { numbers, .. } => *numbers,
        }
    }

    /// Whether actions are real numbers.
    #[must_use]
    pub fn continuous(&self) -> bool {
        matches!(self, Self::Continuous { .. })
    }

    /// 32-bit words of an agent's action: 1, or the numbers of a continuous one.
    #[must_use]
    pub fn words(&self) -> u32 {
        self.kind().words(self.actions())
    }

    /// Outputs of an actor: logits, or means and logarithms of standard deviations.
    #[must_use]
    pub fn outputs(&self) -> u32 {
        self.kind().outputs(self.actions())
    }

    pub(super) fn kind(&self) -> ActionKind {
        match self {
            Self::Discrete { .. } => ActionKind::Choices,
            Self::Continuous { squashed, .. } => ActionKind::new(true, *squashed),
        }
    }

    fn validate(&self) -> Result<()> {
        let good = match self {
            Self::Discrete { choices } => {
                choices.iter().all(|size| *size >= 2) && (2..=32).contains(&self.actions())
            }
            Self::Continuous { numbers, .. } => (1..=MOST_NUMBERS).contains(numbers),
        };
        if good {
            return Ok(());
        }
        let wanted = format!("choices of at least 2 options, 32 in all, or 1 to {MOST_NUMBERS} real numbers");
        Err(Error::shape("`actions`", wanted, format!("{self:?}")))
    }
}

impl ModelMetadata {
    /// The metadata of networks trained with `config`.
    pub(super) fn of_training(
        config: &Config,
        [agents, obs_dim, state_dim]: [u32; 3],
        actions: ActionSpec,
    ) -> Self {
        let network = &config.network;
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            network: NetworkMetadata {
                agents,
                obs_dim,
                state_dim,
                hidden: network.hidden.clone(),
                activation: network.activation,
                input_norm: network.input_norm,
                hidden_norm: network.hidden_norm,
                recurrent: network.recurrent,
                networks: network.networks,
                agent_identity: network.agent_identity,
                critic_input: network.critic_input,
                precision: config.device.precision,
            },
            actions,
            features: vec![],
            observation_moments: vec![],
            market: None,
        }
    }

    /// Whether observations are normalised by running statistics.
    #[must_use]
    pub fn normalized(&self) -> bool {
        !self.observation_moments.is_empty()
    }

    /// Settings with which the device's kernels act as these networks.
    pub(super) fn config(&self) -> Config {
        let network = &self.network;
        Config {
            network: NetworkConfig {
                hidden: network.hidden.clone(),
                activation: network.activation,
                observation_norm: self.normalized(),
                input_norm: network.input_norm,
                hidden_norm: network.hidden_norm,
                recurrent: network.recurrent,
                squash: matches!(self.actions, ActionSpec::Continuous { squashed: true, .. }),
                networks: network.networks,
                agent_identity: network.agent_identity,
                critic_input: network.critic_input,
                ..NetworkConfig::default()
            },
            device: DeviceConfig { precision: network.precision, ..DeviceConfig::default() },
            ..Config::default()
        }
    }

    pub(super) fn shape(&self) -> Shape {
        let network = &self.network;
        let constants = if self.actions.continuous() { self.actions.actions() } else { 0 };
        Shape {
            agents: network.agents,
            obs_dim: network.obs_dim,
            actions: self.actions.outputs(),
            constants,
            hidden: network.hidden.clone(),
            sharing: network.networks,
            agent_identity: network.agent_identity,
            critic_input: network.critic_input,
            state_dim: network.state_dim,
            activation: network.activation,
            input_norm: network.input_norm,
            hidden_norm: network.hidden_norm,
            chunk: u32::from(network.recurrent),
        }
    }

    /// Validates everything and lays out the networks.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Shape`] and [`Error::Data`] name the setting or statistic at fault.
    pub fn layout(&self) -> Result<Layout> {
        self.actions.validate()?;
        let layout = Layout::new(&self.shape())?;
        #[cfg(feature = "market")]
        if let Some(market) = &self.market {
            market.validate(self)?;
        }
        let obs_dim = self.network.obs_dim as usize;
        if !self.features.is_empty() && self.features.len() != obs_dim {
            return Err(Error::shape("`features`", obs_dim, self.features.len()));
        }
        self.validate_observation_stats()?;
        Ok(layout)
    }

    /// Checks the statistics of normalised observations: one finite entry per agent and feature, and per number of the state.
    fn validate_observation_stats(&self) -> Result<()> {
        let stats = &self.observation_moments;
        let own = (self.network.agents * self.network.obs_dim) as usize;
        let whole = own + self.shape().stored_state() as usize;
        // Older files have none of the state: without them, there are no values.
        if !stats.is_empty() && stats.len() != own && stats.len() != whole {
            return Err(Error::shape("`observation_moments`", whole, stats.len()));
        }
        let valid = |[mean, remainder, squares, count]: &[f32; 4]| {
            [mean, remainder, squares, count].iter().all(|value| value.is_finite())
                && *squares >= 0.0
                && *count >= 0.0
        };
        match stats.iter().position(|stats| !valid(stats)) {
            Some(index) => Err(Error::Data(format!(
                "`observation_moments` {index} is {:?} ({}), expected finite numbers, the last two of at least 0",
                stats[index],
                self.column(index)
            ))),
            None => Ok(()),
        }
    }

    /// The name of feature `feature` of an observation: `feature 3` if it has none.
    #[must_use]
    pub fn feature(&self, feature: usize) -> String {
        self.features
            .get(feature)
            .map_or_else(|| format!("feature {feature}"), |name| format!("feature `{name}`"))
    }

    /// The name of an agent: an instrument's symbol, or `agent 2`.
    #[must_use]
    pub fn agent(&self, agent: usize) -> String {
        #[cfg(feature = "market")]
        if let Some(symbol) = self.market.as_ref().and_then(|market| market.scaling.symbols.get(agent)) {
            return symbol.clone();
        }
        format!("agent {agent}")
    }

    /// Feature and agent of a column of the observation statistics.
    fn column(&self, index: usize) -> String {
        let (agents, features) = (self.network.agents as usize, self.network.obs_dim.max(1) as usize);
        match index / features {
            agent if agent < agents => format!("{} of {}", self.feature(index % features), self.agent(agent)),
            _ => format!("number {} of the global state", index - agents * features),
        }
    }
}
