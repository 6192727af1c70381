//! Memory of a policy from one decision to the next.

use std::sync::Arc;

use super::actions::Actions;
use super::cpu::{Networks, Scratch};
use super::policy::Policy;
use crate::ranges;
use crate::{Error, Result};

/// Most environments of one state.
const MOST_ENVIRONMENTS: u32 = 1 << 20;

/// Memory of a policy's GRUs in some environments, the random numbers of sampled actions, and buffers for the results, so that decisions
/// allocate nothing. [`Policy::state`] creates it.
#[derive(Clone, Debug)]
pub struct PolicyState {
    /// The networks of the policy that it belongs to.
    pub(super) networks: Arc<Networks>,
    pub(super) environments: usize,
    pub(super) seed: u64,
    /// Decisions so far: the counter of the random numbers.
    pub(super) decisions: u32,
    /// `[environment][agent][entry]`
    pub(super) actor_memory: Vec<f32>,
    pub(super) critic_memory: Vec<f32>,
    pub(super) actions: Actions,
    /// Outputs of the actors, `[environment][agent][output]`.
    pub(super) outputs: Vec<f32>,
    /// Masks of the last decision, `[environment][agent]`.
    pub(super) masks: Vec<u32>,
    pub(super) probabilities: Vec<f32>,
    /// `[environment][agent]`
    pub(super) values: Vec<f32>,
    /// Prepared observations of one environment, and its global state.
    pub(super) observations: Vec<f32>,
    pub(super) global: Vec<f32>,
    pub(super) scratch: Scratch,
}

impl Policy {
    /// A state for `environments` environments, all at the beginning of an episode. Sampled actions have seed 0:
    /// [`PolicyState::with_seed`].
    ///
    /// # Errors
    /// [`Error::Config`] for more than 1,048,576 environments, or none.
    pub fn state(&self, environments: usize) -> Result<PolicyState> {
        ranges::check("environments", environments as f64, 1.0, f64::from(MOST_ENVIRONMENTS))?;
        let metadata = self.metadata();
        let network = &metadata.network;
        let [agents, obs_dim, state_dim] =
            [network.agents, network.obs_dim, network.state_dim].map(|size| size as usize);
        let rows = environments * agents;
        let memory = || vec![0.0; rows * self.networks.memory];
        let outputs = metadata.actions.outputs() as usize;
        Ok(PolicyState {
            networks: self.networks.clone(),
            environments,
            seed: 0,
            decisions: 0,
            actor_memory: memory(),
            critic_memory: memory(),
            actions: Actions::new(&metadata.actions, environments, agents),
            outputs: vec![0.0; rows * outputs],
            masks: vec![u32::MAX; rows],
            probabilities: vec![0.0; rows * outputs],
            values: vec![0.0; rows],
            observations: vec![0.0; agents * obs_dim],
            global: vec![0.0; state_dim],
            scratch: self.networks.scratch(),
        })
    }
}

impl PolicyState {
    /// The same with a seed for sampled actions.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Number of environments.
    #[must_use]
    pub fn environments(&self) -> usize {
        self.environments
    }

    /// Clears the memory of an environment in which an episode begins.
    ///
    /// # Panics
    /// If there is no such environment.
    pub fn reset(&mut self, environment: usize) {
        assert!(environment < self.environments, "environment {environment} of {}", self.environments);
        for memory in [&mut self.actor_memory, &mut self.critic_memory] {
            let size = memory.len() / self.environments;
            memory[environment * size..][..size].fill(0.0);
        }
    }

    /// The memory of the policy: decisions so far, then the GRU states of the actors and of the critics, `[environment][agent][entry]`.
    /// [`PolicyState::restore`] continues from it, also in another process.
    #[must_use]
    pub fn memory(&self) -> (u32, &[f32], &[f32]) {
        (self.decisions, &self.actor_memory, &self.critic_memory)
    }

    /// Continues from [`PolicyState::memory`].
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of entries, [`Error::Data`] for one that is not finite.
    pub fn restore(&mut self, decisions: u32, actors: &[f32], critics: &[f32]) -> Result<()> {
        for (what, saved) in [("memory of the actors", actors), ("memory of the critics", critics)] {
            if saved.len() != self.actor_memory.len() {
                return Err(Error::shape(what, self.actor_memory.len(), saved.len()));
            }
            if let Some(index) = saved.iter().position(|value| !value.is_finite()) {
                return Err(Error::Data(format!("{what}: number {index} is {}", saved[index])));
            }
        }
        self.decisions = decisions;
        self.actor_memory.copy_from_slice(actors);
        self.critic_memory.copy_from_slice(critics);
        Ok(())
    }
}
