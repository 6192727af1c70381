//! Layout of the networks that the settings give in an environment.

use super::Config;
use crate::env::{Environment, Spec};
use crate::nn::{Layout, Shape};
use crate::{Error, Result};

/// Maximum number of continuous actions per agent.
const MAX_CONTINUOUS_ACTIONS: u32 = 16;

impl Config {
    /// Layout of the networks with these settings in an environment.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, for [`squash`](super::NetworkConfig::squash) with discrete actions, and for
    /// [`crate::nn::CriticInput::State`] without a global state; [`Error::Shape`] if the sizes of the choices do not sum to the
    /// number of actions.
    pub fn layout(&self, environment: &dyn Environment) -> Result<Layout> {
        self.validate()?;
        let (choices, actions) = (environment.choices(), environment.spec().actions);
        if environment.continuous() {
            if !(1..=MAX_CONTINUOUS_ACTIONS).contains(&actions) {
                return Err(Error::config(
                    "actions",
                    format!(
                        "{actions} continuous actions per agent are out of range: from 1 to {MAX_CONTINUOUS_ACTIONS}"
                    ),
                ));
            }
            return Layout::new(&self.shape(&environment.spec(), true, environment.state_dim()));
        }
        if self.network.squash {
            return Err(Error::config(
                "squash",
                "the environment's actions are discrete; only continuous actions can be squashed: set \
                 `squash = false`",
            ));
        }
        let sum = choices.iter().map(|size| u64::from(*size)).sum::<u64>();
        if choices.iter().any(|size| *size < 2) || sum != u64::from(actions) {
            let wanted = format!("sizes of at least 2 that add up to {actions}");
            return Err(Error::shape("choices of an action", wanted, format!("{choices:?}")));
        }
        Layout::new(&self.shape(&environment.spec(), false, environment.state_dim()))
    }

    /// Steps of truncated back-propagation through time; 0 without a GRU.
    pub(in crate::mappo) fn chunk(&self) -> u32 {
        if self.network.recurrent { self.network.chunk_length.min(self.ppo.rollout_steps) } else { 0 }
    }

    /// Shape of the networks in an environment with a global state of `state_dim` numbers.
    pub(crate) fn shape(&self, spec: &Spec, continuous: bool, state_dim: u32) -> Shape {
        let network = &self.network;
        Shape {
            agents: spec.agents,
            obs_dim: spec.obs_dim,
            actions: if continuous { 2 * spec.actions } else { spec.actions },
            constants: if continuous { spec.actions } else { 0 },
            hidden: network.hidden.clone(),
            sharing: network.networks,
            agent_identity: network.agent_identity,
            critic_input: network.critic_input,
            state_dim,
            activation: network.activation,
            input_norm: network.input_norm,
            hidden_norm: network.hidden_norm,
            chunk: self.chunk(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Spread;
    use crate::env::spread::Definition;
    use crate::nn::CriticInput;

    #[test]
    fn squash_is_rejected_for_discrete_actions() {
        let mut config = Config::default();
        config.network.squash = true;
        let error = config.layout(&Spread::new(Definition::Mpe2)).unwrap_err();
        assert!(matches!(&error, Error::Config { key, .. } if key == "squash"), "{error}");
    }

    #[test]
    fn critic_input_state_is_rejected_without_a_global_state() {
        let mut config = Config::default();
        config.network.critic_input = CriticInput::State;
        let error = config.layout(&Spread::new(Definition::Mpe2)).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "setting `critic_input`: `state` needs an environment with a global state, and this one has none: \
             use `joint`, the observations of all agents"
        );
    }
}
