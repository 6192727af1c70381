//! Environments that step in parallel on the device.
//!
//! The trainer knows nothing of markets: it sees agents, features, actions, rewards and ends of episodes.

#[cfg(test)]
mod bench;
pub mod communication;
pub mod cpu_env;
#[cfg(test)]
mod layout_tests;
pub mod ledger;
pub mod market;
pub mod spread;
mod state;
mod trading;

pub use crate::nn::Storage;
pub use communication::Communication;
pub use cpu_env::{CpuEnv, Outcome, Simulator};
pub use spread::Spread;
pub use state::{DeviceState, HostState, MAX_EPISODES, State, StateFields};
pub use trading::{Episodes, Trading, TradingSettings, observation_size};

use crate::Result;
use crate::gpu::{Class, Gpu, Plan, Recording, Shader, Variant};

/// Sizes that the trainer needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Agents of one environment.
    pub agents: u32,
    /// Features of one agent's observation.
    pub obs_dim: u32,
    /// Discrete actions of one agent, 2 to 32; of several choices, all of theirs together ([`Environment::choices`]).
    pub actions: u32,
}

/// The trainer's buffers that an environment reads and writes, and the sizes of this rollout.
///
/// E environments (a multiple of 4), N agents, T steps, K truncations at most; `env` is always the fastest index:
/// * `observations` in `storage` `[slot][agent][feature][env]`: slot t is what is seen before step t, slot T what is seen after the
///   last, slot T+1+k the last observation of the k-th episode that was truncated in this rollout. From number `first_state` on
///   follow, if `state_dim` is not 0, the environment's own states `[slot][number][env]`, the same slots of them;
/// * `actions` u32 `[t][agent][env]` (real numbers: [`Environment::continuous`]), `rewards` f32 `[t][agent][env]`;
/// * `dones_and_masks` u32: ends `[t][env]` (0 goes on, 1 terminated, 2+k truncated), then action masks `[slot][agent][env]`, one bit
///   per allowed action, slots 0 to T (0: the agent is not active, takes action 0, and counts in no loss);
/// * `episodes` f32 `[4][env]`, added to when an episode ends: its return (mean over agents), 1, its steps, 1 if terminated.
///
/// Kernels write observations through `package::lib::observe`, dones_and_masks and episodes through `package::lib::episode`.
#[derive(Clone, Copy, Debug)]
pub struct RolloutBuffers<'a> {
    /// E.
    pub envs: u32,
    /// T.
    pub steps: u32,
    /// Seed of the environment's own random numbers.
    pub seed: u64,
    /// How observations are stored: f32, f16, or two f16 in a u32, the first environment in the low half.
    pub storage: Storage,
    /// Numbers of the environment's own state to write ([`Environment::state_dim`]); 0: no critic sees it, and it has no room.
    pub state_dim: u32,
    /// Where the states begin in `observations`, in numbers.
    pub first_state: u32,
    /// See above.
    pub observations: &'a wgpu::Buffer,
    /// See above.
    pub actions: &'a wgpu::Buffer,
    /// See above.
    pub rewards: &'a wgpu::Buffer,
    /// See above.
    pub dones_and_masks: &'a wgpu::Buffer,
    /// See above.
    pub episodes: &'a wgpu::Buffer,
}

/// An environment's work for one rollout, as plain data.
#[derive(Clone, Debug)]
pub struct EnvRecording {
    /// Starts all environments afresh and writes slot 0.
    pub reset: Recording,
    /// Step t: reads the actions of t; writes rewards and dones_and_masks of t and slot t+1.
    pub steps: Vec<Recording>,
    /// What it is between rollouts: a checkpoint saves it.
    pub state: Vec<State>,
}

/// Something that agents can be trained in.
pub trait Environment {
    /// Its sizes.
    fn spec(&self) -> Spec;

    /// Whether actions are real numbers, [`Spec::actions`] of them an agent (1 to 16), from normal distributions whose
    /// deviations do not depend on what is seen. They have no bounds, unless the setting `squash` is on: then an
    /// environment gets their tanh, each strictly within (-1, 1). They lie in [`RolloutBuffers::actions`] as bits of f32,
    /// `[t][agent][number][env]`.
    fn continuous(&self) -> bool {
        false
    }

    /// Sizes of the choices that an action consists of (multi-discrete), one after the other in logits and masks; their sum is
    /// [`Spec::actions`]. The action is the number whose digits they are, the first the fastest: of sizes 5 and 10, action 37 is
    /// choice 2 of the first and 7 of the second. One choice, if left alone.
    fn choices(&self) -> Vec<u32> {
        vec![self.spec().actions]
    }

    /// Numbers of a state of its own, which only critics see, the same for all agents: with the setting `critic_input = "state"`
    /// it takes the place of all agents' observations. It lies beside them ([`RolloutBuffers`]). 0, if left alone: it has none.
    fn state_dim(&self) -> u32 {
        0
    }

    /// What tells it from others of the same sizes, its rules and data: a checkpoint of one is not for another.
    fn identity(&self) -> String {
        String::new()
    }

    /// Most episodes that one environment truncates within `steps` steps.
    fn truncations(&self, steps: u32) -> u32;

    /// Its own buffers for `envs` parallel environments and rollouts of `steps` steps, what is already on the device not
    /// counted.
    fn plan(&self, envs: u32, steps: u32) -> Plan;

    /// Allocates its state and records its work on the trainer's buffers.
    ///
    /// # Errors
    /// What allocation and compilation report.
    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording>;
}

/// Every kernel of this family with every variant it is compiled in.
#[must_use]
pub fn kernels(class: Class) -> Vec<(Shader, Variant)> {
    let storages = [Storage::F32, Storage::F16, Storage::Packed];
    let kernels = |storage| {
        [
            (communication::SHADER, communication::variant(class, storage)),
            (market::SHADER, market::variant(class, storage)),
            (spread::SHADER, spread::variant(class, storage)),
        ]
    };
    storages.into_iter().flat_map(kernels).collect()
}
