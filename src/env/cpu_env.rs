//! Environments in ordinary Rust: the user's own simulator, many copies of it stepped side by side on the processor's threads.
//!
//! The networks stay on the device. Every step the actions come down, the simulators move, and observations, rewards and ends
//! go up: one exchange a step. How to write one: `docs/environments.md`.

mod instance;
mod pool;

use std::sync::Arc;

use super::{EnvRecording, Environment, RolloutBuffers, Spec};
use crate::Result;
use crate::gpu::{Gpu, Plan};

/// How a step left the episode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    #[default]
    Continues,
    /// It has come to an end of its own: nothing is to be gained any more.
    Terminated,
    /// It was cut off, at a time limit for instance; it could have gone on.
    Truncated,
}

/// One copy of an environment. Copies share nothing and are stepped on different threads.
pub trait Simulator: Send {
    /// Agents, features and actions; the same at all times and for all copies.
    fn spec(&self) -> Spec;

    /// Whether actions are real numbers, `spec().actions` of them an agent ([`Environment::continuous`]); no, if left alone.
    fn continuous(&self) -> bool {
        false
    }

    /// Sizes of the choices that an action consists of ([`Environment::choices`]); one choice, if left alone.
    fn choices(&self) -> Vec<u32> {
        vec![self.spec().actions]
    }

    /// The fewest steps after which an episode may be truncated; `None`: none ever is. Room for last observations is planned
    /// by it.
    fn time_limit(&self) -> Option<u32> {
        None
    }

    /// Numbers of a state that [`Simulator::state`] writes for the critics ([`Environment::state_dim`]); none, if left alone.
    fn state_dim(&self) -> u32 {
        0
    }

    /// Begins an episode with the random numbers that follow from `seed`, and writes what is seen first,
    /// `[agent][feature]`, which comes filled with 0.
    fn reset(&mut self, seed: u64, seen: &mut [f32]);

    /// Moves one step with an action for every agent; of real numbers with all of every agent's, `[agent][number]`, as bits
    /// (`f32::from_bits`), squashed ones after their tanh. Writes what is seen then, `[agent][feature]`, and every agent's
    /// reward; both come filled with 0. After an end, `seen` is the last of the episode; [`Simulator::reset`] follows.
    fn step(&mut self, actions: &[u32], seen: &mut [f32], rewards: &mut [f32]) -> Outcome;

    /// Which actions every agent may take next, a bit each; all, if left alone. An agent that may take none is not active: it is
    /// given action 0, and what it sees and does is not learnt from.
    fn allowed(&self, masks: &mut [u32]) {
        let _ = masks;
    }

    /// Writes the state as it is, [`Simulator::state_dim`] numbers, which come filled with 0. Asked for after every reset and
    /// every step, also the last of an episode, if critics see it; agents never do.
    fn state(&self, state: &mut [f32]) {
        let _ = state;
    }

    /// All that [`Simulator::load`] needs to go on from here; `None` if training cannot be saved.
    fn save(&self) -> Option<Vec<u8>> {
        None
    }

    /// Goes on from what [`Simulator::save`] returned.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let _ = bytes;
        Err("this environment cannot be saved".into())
    }
}

type Make = Arc<dyn Fn() -> Box<dyn Simulator> + Send + Sync>;

/// Copies of a [`Simulator`] as an environment to train in.
#[derive(Clone)]
pub struct CpuEnv {
    make: Make,
    spec: Spec,
    choices: Vec<u32>,
    continuous: bool,
    limit: Option<u32>,
    state_dim: u32,
    name: String,
}

impl std::fmt::Debug for CpuEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CpuEnv").field("name", &self.name).field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl CpuEnv {
    /// An environment whose copies `make` makes. The name tells it from others in checkpoints.
    pub fn new<S: Simulator + 'static>(name: &str, make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        let one = make();
        let (spec, choices, limit) = (one.spec(), one.choices(), one.time_limit());
        let (continuous, state_dim) = (one.continuous(), one.state_dim());
        let make: Make = Arc::new(move || Box::new(make()));
        let limit = limit.map(|steps| steps.max(1));
        Self { make, spec, choices, continuous, limit, state_dim, name: name.into() }
    }
}

impl CpuEnv {
    /// Words of all agents' actions.
    fn words(&self) -> u32 {
        self.spec.agents * if self.continuous { self.spec.actions } else { 1 }
    }
}

impl Environment for CpuEnv {
    fn spec(&self) -> Spec {
        self.spec
    }

    fn choices(&self) -> Vec<u32> {
        self.choices.clone()
    }

    fn continuous(&self) -> bool {
        self.continuous
    }

    fn state_dim(&self) -> u32 {
        self.state_dim
    }

    fn identity(&self) -> String {
        format!("host environment {}", self.name)
    }

    fn truncations(&self, steps: u32) -> u32 {
        self.limit.map_or(0, |limit| steps.div_ceil(limit))
    }

    fn plan(&self, envs: u32, _: u32) -> Plan {
        let mut plan = Plan::new();
        let actions = u64::from(envs) * u64::from(self.words());
        plan.words("actions for the host", actions);
        plan.words("actions on their way to the host", actions);
        plan
    }

    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        pool::record(self, gpu, rollout)
    }
}

#[cfg(test)]
mod tests;
