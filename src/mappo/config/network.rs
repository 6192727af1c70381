//! Settings of the networks, and the resulting layout in an environment.

use super::{Config, range};
use crate::env::{Environment, Spec};
use crate::nn::{Layout, Shape};
use crate::{Error, Result};

/// Maximum number of continuous actions per agent.
const MAX_CONTINUOUS_ACTIONS: u32 = 16;

impl Config {
    /// Layout of the networks with these settings in an environment.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, for [`Config::squash`] with discrete actions, and for
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
        if self.squash {
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
        if self.recurrent { self.chunk_length.min(self.rollout_steps) } else { 0 }
    }

    /// Shape of the networks in an environment with a global state of `state_dim` numbers.
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
}

/// Checks `chunk_length` and `minibatches`; [`Layout::new`] checks the widths of the layers.
pub(super) fn validate(config: &Config) -> Result<()> {
    range("chunk_length", config.chunk_length, 1.0, 65_536.0)?;
    let chunks = config.rollout_steps.div_ceil(config.chunk().max(1));
    if config.recurrent && config.minibatches > chunks {
        return Err(Error::config(
            "minibatches",
            format!(
                "{} is too many: a rollout has {chunks} sequences of `chunk_length` steps, which cannot be split \
                 further; lower `minibatches` or `chunk_length`",
                config.minibatches
            ),
        ));
    }
    range("minibatches", config.minibatches, 1.0, f64::from(chunks.min(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Spread;
    use crate::env::spread::Definition;
    use crate::nn::CriticInput;

    #[test]
    fn squash_is_rejected_for_discrete_actions() {
        let config = Config { squash: true, ..Default::default() };
        let error = config.layout(&Spread::new(Definition::Mpe2)).unwrap_err();
        assert!(matches!(&error, Error::Config { key, .. } if key == "squash"), "{error}");
    }

    #[test]
    fn critic_input_state_is_rejected_without_a_global_state() {
        let config = Config { critic_input: CriticInput::State, ..Default::default() };
        let error = config.layout(&Spread::new(Definition::Mpe2)).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "setting `critic_input`: `state` needs an environment with a global state, and this one has none: \
             use `joint`, the observations of all agents"
        );
    }
}
