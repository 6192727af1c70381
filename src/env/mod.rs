//! Vectorised environments: many copies step in parallel, on the device or on CPU threads.
//!
//! The trainer is independent of markets: it only handles agents, features, actions, rewards and episode ends.

#[cfg(test)]
mod bench;
pub mod communication;
#[cfg(feature = "cpu-env")]
mod cpu_env;
mod device_env;
mod functions;
#[cfg(test)]
mod layout_tests;
pub mod ledger;
#[cfg(feature = "market")]
mod market;
mod recording;
mod rollout;
pub mod spread;
#[cfg(feature = "market")]
mod starts;
mod state;
mod step;
#[cfg(feature = "market")]
mod trading;
#[cfg(feature = "market")]
mod trading_settings;

pub use crate::nn::Storage;
pub use communication::Communication;
#[cfg(feature = "cpu-env")]
pub use cpu_env::{CpuEnv, Outcome, Simulator};
pub use device_env::{DeviceEnv, DeviceEnvBuilder};
#[cfg(all(test, feature = "market"))]
pub(crate) use market::tests::small_market;
pub(crate) use rollout::Actors;
pub use spread::Spread;
pub use state::{DeviceState, HostState, LARGEST_MAGNITUDE, MAX_EPISODES, State, StateFields};
#[cfg(feature = "market")]
pub use trading::{Episodes, Trading};
#[cfg(feature = "market")]
pub use trading_settings::{ActionSpace, TradingSettings, observation_size};

use crate::Result;
use crate::gpu::{Class, Gpu, Plan, Recording, Variant};
#[cfg(feature = "market")]
use crate::market::ScalingStatistics;
use crate::nn::representative;

/// Sizes of an environment that the trainer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Agents per environment.
    pub agents: u32,
    /// Features per observation of an agent.
    pub obs_dim: u32,
    /// Discrete actions per agent, 2 to 32; for multi-discrete actions the sum over all choices ([`Environment::choices`]).
    pub actions: u32,
}

/// The trainer's buffers that an environment reads and writes, and the sizes of the rollout.
///
/// E environments (a multiple of 4), N agents, T steps, at most K truncations per environment; `env` is always the fastest index:
/// * `observations` in `storage` `[slot][agent][feature][env]`: slot t is observed before step t, slot T after the last step, and
///   slot T+1+k is the final observation of the k-th episode truncated in this rollout. If `state_dim` is not 0, the global states
///   `[slot][number][env]` follow from element `first_state` on, with the same slots;
/// * `actions` u32 `[t][agent][env]` (continuous ones: [`Environment::continuous`]), `rewards` f32 `[t][agent][env]`;
/// * `dones_and_masks` u32: episode ends `[t][env]` (0 continues, 1 terminated, 2+k truncated), then action masks
///   `[slot][agent][env]` for slots 0 to T, one bit per allowed action (0: the agent is inactive, takes action 0 and contributes to
///   no loss);
/// * `episodes` f32 `[4][env]`, accumulated at every episode end: return (mean over agents), 1, steps, 1 if terminated.
///
/// Kernels write observations through `package::lib::observe`, `dones_and_masks` and `episodes` through `package::lib::episode`.
#[derive(Clone, Copy, Debug)]
pub struct RolloutBuffers<'a> {
    /// Number of environments, E.
    pub envs: u32,
    /// Steps per rollout, T.
    pub steps: u32,
    /// Seed of the environment's random numbers.
    pub seed: u64,
    /// Element type of observations: f32, f16, or two f16 in a u32 with the lower environment in the low 16 bits.
    pub storage: Storage,
    /// Size of the global state to write ([`Environment::state_dim`]); 0 if the critic does not use it, then no space is
    /// reserved for it.
    pub state_dim: u32,
    /// Offset of the global states in `observations`, in elements.
    pub first_state: u32,
    /// Observations, and global states.
    pub observations: &'a wgpu::Buffer,
    /// Actions of every step.
    pub actions: &'a wgpu::Buffer,
    /// Rewards of every step.
    pub rewards: &'a wgpu::Buffer,
    /// Episode ends and action masks.
    pub dones_and_masks: &'a wgpu::Buffer,
    /// Totals of the episodes that ended.
    pub episodes: &'a wgpu::Buffer,
}

impl<'a> RolloutBuffers<'a> {
    /// The buffers of [`EnvRecording::ACCESS`].
    fn bound<'b>(&self, parameters: &'b wgpu::Buffer, state: &'b DeviceState) -> [&'b wgpu::Buffer; 7]
    where
        'a: 'b,
    {
        let Self { actions, rewards, observations, dones_and_masks, episodes, .. } = *self;
        [parameters, actions, rewards, state.buffer(), observations, dones_and_masks, episodes]
    }

    /// Compares the buffers' sizes with those of an environment: kernels of this crate are compiled without bounds checks.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] for a buffer that is too small.
    fn check(&self, environment: &dyn Environment) -> Result<()> {
        let spec = environment.spec();
        let [envs, steps, agents] = [self.envs, self.steps, spec.agents].map(u128::from);
        let slots = steps + 1 + u128::from(environment.truncations(self.steps));
        let mut observed = slots * agents * u128::from(spec.obs_dim) * envs;
        if self.state_dim > 0 {
            let states = slots * u128::from(self.state_dim) * envs;
            observed = observed.max(u128::from(self.first_state) + states);
        }
        let numbers = if environment.continuous() { spec.actions } else { 1 };
        let rows = steps * agents * envs;
        for (what, buffer, needed) in [
            (
                "bytes of observations",
                self.observations,
                observed * u128::from(self.storage.precision().bytes()),
            ),
            ("bytes of actions", self.actions, 4 * rows * u128::from(numbers)),
            ("bytes of rewards", self.rewards, 4 * rows),
            (
                "bytes of dones_and_masks",
                self.dones_and_masks,
                4 * (steps * envs + (steps + 1) * agents * envs),
            ),
            ("bytes of episodes", self.episodes, 16 * envs),
        ] {
            if u128::from(buffer.size()) < needed {
                return Err(crate::Error::shape(what, needed, buffer.size()));
            }
        }
        Ok(())
    }
}

/// The recorded commands of an environment for one rollout, and its state.
#[derive(Clone, Debug)]
pub struct EnvRecording {
    /// Starts a new episode in every environment and writes slot 0.
    pub reset: Recording,
    /// Step t reads the actions of t and writes the rewards and `dones_and_masks` of t and the observations of slot t+1.
    pub steps: Vec<Recording>,
    /// State between rollouts, saved in checkpoints.
    pub state: Vec<State>,
}

/// An environment that agents are trained in.
pub trait Environment {
    /// Numbers of agents, features and actions.
    fn spec(&self) -> Spec;

    /// Whether actions are continuous: [`Spec::actions`] real numbers per agent (1 to 16) from normal distributions with
    /// state-independent standard deviations. They are unbounded unless the setting `squash` is on; then the environment receives
    /// their tanh, strictly within (-1, 1). [`RolloutBuffers::actions`] holds them as f32 bits, `[t][agent][number][env]`.
    /// Defaults to `false`.
    fn continuous(&self) -> bool {
        false
    }

    /// Sizes of the choices of a multi-discrete action, concatenated in logits and masks; they sum to [`Spec::actions`].
    /// An action encodes its choices in mixed radix, the first choice fastest: with sizes 5 and 10, action 37 is option 2 of the
    /// first choice and option 7 of the second. Defaults to a single choice.
    fn choices(&self) -> Vec<u32> {
        vec![self.spec().actions]
    }

    /// Size of the global state, which is shared by all agents and visible to the critic only: with the setting
    /// `critic_input = "state"` it replaces the agents' joint observation. It is stored beside the observations
    /// ([`RolloutBuffers`]). Defaults to 0: no global state.
    fn state_dim(&self) -> u32 {
        0
    }

    /// Identifies rules and data, beyond the sizes: a checkpoint is resumed only in an environment with the same identity. A wrapper that
    /// forwards it must forward [`Environment::candles`] and `scaling` too.
    fn identity(&self) -> String {
        String::new()
    }

    /// Identifies the candles of a market up to the last bar of its episodes, volumes included: a checkpoint that has it is resumed only on
    /// the same ones. Defaults to `None`.
    fn candles(&self) -> Option<String> {
        None
    }

    /// The statistics with which a market's features are scaled, for checkpoints: a resumed run is given them instead of fitting them
    /// again. Defaults to `None`.
    #[cfg(feature = "market")]
    fn scaling(&self) -> Option<&ScalingStatistics> {
        None
    }

    /// Upper bound on the episodes that one environment truncates within `steps` steps.
    fn truncations(&self, steps: u32) -> u32;

    /// Memory plan for `envs` parallel environments and rollouts of `steps` steps, without buffers that are already allocated.
    fn plan(&self, envs: u32, steps: u32) -> Plan;

    /// This environment as WGSL functions, if it consists of them: then networks that fit in a GPU's workgroup memory play many
    /// steps of it in one dispatch, and [`Environment::record`] is not called. An environment that adds something of its own in
    /// `record` must not return that of another one. Sizes and identity must be the same. Defaults to `None`: the environment is recorded.
    ///
    /// # Errors
    /// As [`DeviceEnvBuilder::build`].
    fn device_env(&self) -> Result<Option<DeviceEnv>> {
        Ok(None)
    }

    /// Allocates the state and records the commands on the trainer's buffers.
    ///
    /// # Errors
    /// Errors of allocation and kernel compilation.
    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording>;
}

const STORAGES: [Storage; 3] = [Storage::F32, Storage::F16, Storage::Packed];

/// The source of a kernel that is put together, and the configuration that it is for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KernelSource {
    /// Plain WGSL.
    pub text: String,
    /// Constants and conditions.
    pub variant: Variant,
}

/// Names and sources of the kernels of this crate's environments that are WGSL functions, in every variant that is compiled for an
/// adapter class.
///
/// # Errors
/// [`crate::Error::Shader`] if one does not compose.
#[doc(hidden)]
pub fn sources(class: Class) -> Result<Vec<(String, KernelSource)>> {
    let environments = [
        (communication::SHADER, Communication::new(communication::Task::Reference).functions()?),
        (spread::SHADER, Spread::new(spread::Definition::Mpe2).functions()?),
        #[cfg(feature = "market")]
        (market::SHADER, market::example(false)?),
        #[cfg(feature = "market")]
        (market::SHADER, market::example(true)?),
    ];
    let mut all = Vec::new();
    for (shader, environment) in &environments {
        let mut add = |text, variant| all.push((shader.name.to_string(), KernelSource { text, variant }));
        for storage in STORAGES {
            let variant = step::variant(class, storage);
            add(environment.source(&variant)?, variant);
        }
        for kernel_config in representative(class) {
            if let Some((text, variant)) = environment.rollout_source(&kernel_config)? {
                add(text, variant);
            }
        }
    }
    Ok(all)
}
