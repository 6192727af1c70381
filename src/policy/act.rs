//! Decisions on the CPU.

use std::sync::Arc;

use super::actions::Actions;
use super::distribution::{Place, choose, draw, probabilities};
use super::metadata::{ActionSpec, ModelMetadata};
use super::policy::Policy;
use super::state::PolicyState;
use crate::mappo::ActionMode;
use crate::nn::CriticInput;
use crate::{Error, Result};

impl Policy {
    /// Actions for the observations `[environment][agent][feature]`, before they are normalised. `masks` are `[environment][agent]`, one
    /// bit per allowed action ([`crate::env::RolloutBuffers`]), or empty if all are allowed; an agent without an allowed action takes
    /// action 0. Sampled actions depend on the seed of the state, on the number of decisions so far and on the number of environments, in
    /// the same way as those of [`super::DevicePolicy`]. Allocates nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of observations or masks; [`Error::Data`] names the agent and the feature of an observation
    /// that is not finite; then nothing has changed. [`Error::Data`] for outputs of a network that are not finite.
    pub fn act<'a>(
        &self,
        state: &'a mut PolicyState,
        observations: &[f32],
        masks: &[u32],
        mode: ActionMode,
    ) -> Result<&'a Actions> {
        self.check(state, observations, masks)?;
        self.evaluate(state, observations, masks)?;
        self.decide(state, mode);
        Ok(&state.actions)
    }

    /// Computes the actors' outputs for observations and masks that were checked, and moves the memory on.
    pub(super) fn evaluate(
        &self,
        state: &mut PolicyState,
        observations: &[f32],
        masks: &[u32],
    ) -> Result<()> {
        let metadata = self.metadata();
        let (agents, obs_dim) = (metadata.network.agents as usize, metadata.network.obs_dim as usize);
        if masks.is_empty() {
            state.masks.fill(u32::MAX);
        } else {
            state.masks.copy_from_slice(masks);
        }
        let outputs = metadata.actions.outputs() as usize;
        let memory = self.networks.memory;
        for environment in 0..state.environments {
            for agent in 0..agents {
                let row = environment * agents + agent;
                let PolicyState { observations: prepared, actor_memory, scratch, outputs: all, .. } =
                    &mut *state;
                let own = &mut prepared[..obs_dim];
                self.networks.prepare(agent * obs_dim, &observations[row * obs_dim..][..obs_dim], own);
                let remembered = &mut actor_memory[row * memory..][..memory];
                let computed = self.networks.actor(agent, own, remembered, scratch);
                all[row * outputs..][..outputs].copy_from_slice(computed);
            }
        }
        if let Some(index) = state.outputs.iter().position(|output| !output.is_finite()) {
            return Err(Error::Data(format!(
                "output {} of the network of {} is {}: the observations or weights are beyond its precision",
                index % outputs,
                metadata.agent(index / outputs % agents),
                state.outputs[index]
            )));
        }
        Ok(())
    }

    /// Turns the actors' outputs into actions, and counts the decision.
    pub(super) fn decide(&self, state: &mut PolicyState, mode: ActionMode) {
        let metadata = self.metadata();
        let agents = metadata.network.agents as usize;
        let outputs = metadata.actions.outputs() as usize;
        let words = metadata.actions.words() as usize;
        let quads = state.environments.div_ceil(4);
        let seed = (mode == ActionMode::Sampled).then_some((state.seed, state.decisions));
        for environment in 0..state.environments {
            for agent in 0..agents {
                let row = environment * agents + agent;
                let computed = &state.outputs[row * outputs..][..outputs];
                let place = Place {
                    row: agent * quads + environment / 4,
                    rows: agents * quads,
                    lane: environment % 4,
                };
                let random = seed.map(|(seed, step)| (place.numbers(seed, step), place.lane));
                let actions = &mut state.actions;
                let raw = &mut actions.raw[row * words..][..words];
                actions.log_probabilities[row] = match &metadata.actions {
                    ActionSpec::Discrete { choices } => {
                        choose(choices, computed, state.masks[row], random, &mut raw[0])
                    }
                    ActionSpec::Continuous { squashed, .. } => {
                        draw(*squashed, computed, state.masks[row] == 0, random, raw)
                    }
                };
            }
        }
        state.decisions = state.decisions.wrapping_add(1);
    }

    /// The distribution of the last decision's actions, `[environment][agent][number]`. Of discrete actions: the probability of every
    /// option, choice by choice, 0 for those that are not allowed. Of continuous ones: the means, then the standard deviations, before
    /// they are squashed.
    #[must_use]
    pub fn probabilities<'a>(&self, state: &'a mut PolicyState) -> &'a [f32] {
        let outputs = self.metadata().actions.outputs() as usize;
        let PolicyState { outputs: computed, probabilities: found, masks, .. } = &mut *state;
        let rows = computed.chunks_exact(outputs).zip(found.chunks_exact_mut(outputs)).zip(&*masks);
        for ((computed, found), mask) in rows {
            match &self.metadata().actions {
                ActionSpec::Discrete { choices } => probabilities(choices, computed, *mask, found),
                ActionSpec::Continuous { numbers, .. } => {
                    let numbers = *numbers as usize;
                    found[..numbers].copy_from_slice(&computed[..numbers]);
                    let deviations = found[numbers..].iter_mut().zip(&computed[numbers..]);
                    deviations.for_each(|(deviation, log)| *deviation = log.exp());
                }
            }
        }
        &state.probabilities
    }

    /// The critics' values of every agent's situation, `[environment][agent]`, in units of the returns that the critic was trained on: with
    /// `value_norm` these are normalised. `global` are the numbers of the global states, `[environment][number]`, for critics that read
    /// them, and else empty. With a GRU every call moves the critics' memory on by one step.
    ///
    /// # Errors
    /// As [`Policy::act`].
    pub fn values<'a>(
        &self,
        state: &'a mut PolicyState,
        observations: &[f32],
        global: &[f32],
    ) -> Result<&'a [f32]> {
        let network = &self.metadata().network;
        let [agents, obs_dim] = [network.agents, network.obs_dim].map(|size| size as usize);
        self.check(state, observations, &[])?;
        let read = self.layout.shape.stored_state() as usize;
        if global.len() != state.environments * read {
            return Err(Error::shape(
                "numbers of the global states",
                state.environments * read,
                global.len(),
            ));
        }
        if let Some(index) = global.iter().position(|value| !value.is_finite()) {
            return Err(Error::Data(format!("number {index} of the global states is {}", global[index])));
        }
        if !self.networks.normalizes(agents * obs_dim + read) {
            return Err(Error::Data(
                "the model file has no statistics of the global state, so its critics cannot be asked for values".into(),
            ));
        }
        let (whole, memory) = (agents * obs_dim, self.networks.memory);
        for environment in 0..state.environments {
            let PolicyState { observations: prepared, global: own, critic_memory, scratch, values, .. } =
                &mut *state;
            self.networks.prepare(0, &observations[environment * whole..][..whole], prepared);
            if read > 0 {
                self.networks.prepare(whole, &global[environment * read..][..read], own);
            }
            for agent in 0..agents {
                let input = match network.critic_input {
                    CriticInput::Own => &prepared[agent * obs_dim..][..obs_dim],
                    CriticInput::Joint => &prepared[..],
                    CriticInput::State => &own[..],
                };
                let row = environment * agents + agent;
                let remembered = &mut critic_memory[row * memory..][..memory];
                values[row] = self.networks.critic(agent, input, remembered, scratch);
            }
        }
        Ok(&state.values)
    }

    pub(super) fn check(&self, state: &PolicyState, observations: &[f32], masks: &[u32]) -> Result<()> {
        if !Arc::ptr_eq(&state.networks, &self.networks) {
            let reason = "the state belongs to another policy: `Policy::state` creates one for this";
            return Err(Error::Data(reason.into()));
        }
        check(self.metadata(), state.environments, observations, masks)
    }
}

/// Checks the observations and masks of a decision.
pub(super) fn check(
    metadata: &ModelMetadata,
    environments: usize,
    observations: &[f32],
    masks: &[u32],
) -> Result<()> {
    let [agents, obs_dim] = [metadata.network.agents, metadata.network.obs_dim].map(|size| size as usize);
    let rows = environments * agents;
    if observations.len() != rows * obs_dim {
        let expected = format!("{} [environment][agent][feature]", rows * obs_dim);
        return Err(Error::shape("observations", expected, observations.len()));
    }
    if !masks.is_empty() && masks.len() != rows {
        return Err(Error::shape("masks", format!("{rows} [environment][agent], or none"), masks.len()));
    }
    match observations.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::Data(format!(
            "{} of {} in environment {} is {}, expected a finite number",
            metadata.feature(index % obs_dim),
            metadata.agent(index / obs_dim % agents),
            index / obs_dim / agents,
            observations[index]
        ))),
    }
}
