//! Environments in plain Rust: many copies of a user-defined simulator, stepped in parallel on CPU threads.
//!
//! The networks stay on the device. Every step downloads the actions, steps the simulators, and uploads observations, rewards and
//! episode ends: one round trip per step. `docs/environments.md` is a guide to writing one.

mod instance;
mod pool;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{EnvRecording, Environment, RolloutBuffers, Spec};
use crate::gpu::{Gpu, Plan};
use crate::{Error, Result};

/// State of the episode after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The episode continues.
    #[default]
    Continues,
    /// The episode reached a terminal state; no reward can follow.
    Terminated,
    /// The episode was cut off, for instance by a time limit; the value of its final observation is bootstrapped.
    Truncated,
}

/// One copy of an environment. Copies are independent and are stepped on different threads.
pub trait Simulator: Send {
    /// Numbers of agents, features and actions; constant, and the same for all copies.
    fn spec(&self) -> Spec;

    /// Whether actions are continuous, `spec().actions` real numbers per agent ([`Environment::continuous`]). Defaults to `false`.
    fn continuous(&self) -> bool {
        false
    }

    /// Sizes of the choices of a multi-discrete action ([`Environment::choices`]). Defaults to a single choice.
    fn choices(&self) -> Vec<u32> {
        vec![self.spec().actions]
    }

    /// The smallest number of steps after which an episode may be truncated, which bounds the memory for final observations.
    /// `None`, the default, means that episodes are never truncated.
    fn time_limit(&self) -> Option<u32> {
        None
    }

    /// Size of the global state that [`Simulator::state`] writes for the critic ([`Environment::state_dim`]). Defaults to 0: none.
    fn state_dim(&self) -> u32 {
        0
    }

    /// Starts an episode, with all randomness derived from `seed`, and writes the initial observations `[agent][feature]`;
    /// `observations` is zeroed beforehand.
    fn reset(&mut self, seed: u64, observations: &mut [f32]);

    /// Advances by one step and writes the observations `[agent][feature]` and the reward of every agent; both slices are zeroed
    /// beforehand. `actions` holds one discrete action per agent, or continuous ones `[agent][number]` as bits
    /// (`f32::from_bits`), after the tanh if `squash` is on. When the episode ends, `observations` are its final ones;
    /// [`Simulator::reset`] is called next.
    fn step(&mut self, actions: &[u32], observations: &mut [f32], rewards: &mut [f32]) -> Outcome;

    /// Writes the mask of allowed next actions of every agent, one bit per action. Defaults to all. An agent without an allowed
    /// action is inactive: it takes action 0 and its samples are excluded from the losses. Bits beyond the actions are an error, and so
    /// is an active agent without an allowed value of one of its [`choices`](Simulator::choices).
    fn allowed(&self, masks: &mut [u32]) {
        let _ = masks;
    }

    /// Writes the global state, [`Simulator::state_dim`] numbers; `state` is zeroed beforehand. Called after every reset and every
    /// step, including the last of an episode, if the critic uses the state; the actors never do.
    fn state(&self, state: &mut [f32]) {
        let _ = state;
    }

    /// Serialises everything that [`Simulator::load`] needs to resume; `None`, the default, if checkpoints are not supported.
    fn save(&self) -> Option<Vec<u8>> {
        None
    }

    /// Restores the state that [`Simulator::save`] serialised.
    ///
    /// # Errors
    /// A message if the bytes are invalid.
    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let _ = bytes;
        Err("this environment cannot be loaded: implement `Simulator::load`".into())
    }
}

type Make = Arc<dyn Fn() -> Box<dyn Simulator> + Send + Sync>;

/// Parallel copies of a [`Simulator`] as an environment to train in.
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
    /// Creates an environment whose copies are made by `make`. Checkpoints store `name` and are resumed only under the same name.
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
    /// Makes the copy for environment `env`.
    ///
    /// # Errors
    /// [`Error::Data`] if it panics while it is made, or has other sizes than the first copy.
    fn copy(&self, env: usize) -> Result<Box<dyn Simulator>> {
        let made = caught(|| {
            let simulator = (self.make)();
            let difference = self.difference(simulator.as_ref());
            (simulator, difference)
        });
        match made {
            Ok((simulator, None)) => Ok(simulator),
            Ok((_, Some(difference))) => Err(Error::Data(format!(
                "environment {env}: {difference}: all copies of a simulator must have the same sizes"
            ))),
            Err(message) => Err(Error::Data(format!(
                "environment {env}: the simulator panicked while it was made: {message}"
            ))),
        }
    }

    /// Difference between a copy and the first one.
    fn difference(&self, copy: &dyn Simulator) -> Option<String> {
        let limit = copy.time_limit().map(|steps| steps.max(1));
        let pairs = [
            ("spec", format!("{:?}", self.spec), format!("{:?}", copy.spec())),
            ("choices", format!("{:?}", self.choices), format!("{:?}", copy.choices())),
            ("continuous", self.continuous.to_string(), copy.continuous().to_string()),
            ("time_limit", format!("{:?}", self.limit), format!("{limit:?}")),
            ("state_dim", self.state_dim.to_string(), copy.state_dim().to_string()),
        ];
        let mut different = pairs.into_iter().filter(|(_, first, found)| first != found);
        different
            .next()
            .map(|(name, first, found)| format!("`{name}` is {found}, and {first} in the first copy"))
    }

    /// 32-bit words of the actions of all agents of one environment.
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
        // The word in snapshots of format 2.
        format!("host environment {}", self.name)
    }

    fn truncations(&self, steps: u32) -> u32 {
        self.limit.map_or(0, |limit| steps.div_ceil(limit))
    }

    fn plan(&self, envs: u32, _: u32) -> Plan {
        let mut plan = Plan::new();
        let actions = u64::from(envs) * u64::from(self.words());
        plan.words("actions for the CPU", actions);
        plan.words("readback of actions for the CPU", actions);
        plan
    }

    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        pool::record(self, gpu, rollout)
    }
}

/// Runs code of a simulator; a panic becomes its message. With `panic = "abort"` a panic still ends the process.
fn caught<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| message(payload.as_ref()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").into()
}

#[cfg(test)]
mod tests;
