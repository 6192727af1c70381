//! Decisions for thousands of environments on the device.

use super::act::check;
use super::acting::Acting;
use super::actions::Actions;
use super::metadata::{ActionSpec, ModelMetadata};
use super::policy::Policy;
use crate::env::{EnvRecording, Environment, RolloutBuffers, Spec};
use crate::gpu::{Command, Gpu, Plan, Recording};
use crate::mappo::ActionMode;
use crate::mappo::buffers::RecurrentBuffers;
use crate::nn::Precision;
use crate::nn::forward::Memory;
use crate::{Error, Result};

/// A policy on the device, for a fixed number of environments: kernels are compiled and buffers allocated once.
///
/// The observations may also be written by kernels of the caller ([`DevicePolicy::observations`]), and the actions may stay on the device
/// ([`DevicePolicy::actions`]): then a decision is [`DevicePolicy::submit`], and nothing is read back.
#[derive(Debug)]
pub struct DevicePolicy {
    gpu: Gpu,
    acting: Acting,
    /// Keeps the new states of the GRUs for the next decision.
    remember: Recording,
    metadata: ModelMetadata,
    environments: usize,
    /// 1 for environments in which an episode begins.
    ended: Vec<u32>,
    decisions: u32,
    decided: Actions,
}

/// An environment whose observations come from the caller.
struct Given<'a>(&'a ModelMetadata);

impl Environment for Given<'_> {
    fn spec(&self) -> Spec {
        let network = &self.0.network;
        Spec { agents: network.agents, obs_dim: network.obs_dim, actions: self.0.actions.actions() }
    }

    fn continuous(&self) -> bool {
        self.0.actions.continuous()
    }

    fn choices(&self) -> Vec<u32> {
        match &self.0.actions {
            ActionSpec::Discrete { choices } => choices.clone(),
            ActionSpec::Continuous { numbers, .. } => vec![*numbers],
        }
    }

    fn state_dim(&self) -> u32 {
        self.0.network.state_dim
    }

    fn truncations(&self, _: u32) -> u32 {
        0
    }

    fn plan(&self, _: u32, _: u32) -> Plan {
        Plan::new()
    }

    fn record(&self, _: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        let steps = (0..rollout.steps).map(|_| Recording::new()).collect();
        Ok(EnvRecording { reset: Recording::new(), steps, state: vec![] })
    }
}

impl DevicePolicy {
    /// Uploads the policy for `environments` environments, all at the beginning of an episode. `mode` and `seed` are those of all decisions.
    ///
    /// # Errors
    /// [`Error::Config`] for no environments, or more than the kernels can process; [`Error::Buffer`] if the device cannot bind a buffer for
    /// so many; errors of compilation and allocation.
    pub fn new(gpu: &Gpu, policy: &Policy, environments: usize, mode: ActionMode, seed: u64) -> Result<Self> {
        let metadata = policy.metadata();
        // The CPU's state has the same limit.
        crate::ranges::check("environments", environments as f64, 1.0, 1_048_576.0)?;
        let sizes = [environments as u32, 1];
        let acting = Acting::new(gpu, policy, &Given(metadata), sizes, mode, seed)?;
        let own = Self {
            gpu: gpu.clone(),
            remember: remember(&acting),
            ended: vec![1; acting.sizes.envs as usize],
            decided: Actions::new(&metadata.actions, environments, metadata.network.agents as usize),
            metadata: metadata.clone(),
            acting,
            environments,
            decisions: 0,
        };
        own.write_masks(&[])?;
        Ok(own)
    }

    /// The buffer of the observations that a decision reads, f32 `[agent][feature][environment]`, with the number of environments rounded
    /// up to a multiple of 4. A caller's kernel may write it.
    ///
    /// With f16 networks without `observation_norm` the elements are f16, two in a word, the lower environment in the low bits.
    #[must_use]
    pub fn observations(&self) -> &wgpu::Buffer {
        self.acting.buffers.observed()
    }

    /// The buffer of the actions, u32 `[agent][environment]`, or bits of f32 `[agent][number][environment]`, for a caller's kernel.
    #[must_use]
    pub fn actions(&self) -> &wgpu::Buffer {
        &self.acting.buffers.rollout.actions
    }

    /// Environments of the buffers: a multiple of 4.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.acting.sizes.envs as usize
    }

    /// An episode begins in this environment: the GRUs forget what they remember of it.
    ///
    /// # Panics
    /// If there is no such environment.
    pub fn reset(&mut self, environment: usize) {
        self.ended[..self.environments][environment] = 1;
    }

    /// Submits one decision on the observations in [`DevicePolicy::observations`], and waits for nothing.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::Gpu`].
    pub fn submit(&mut self) -> Result<()> {
        let own = &self.acting.buffers.rollout;
        self.gpu.write(&own.iteration, 0, bytemuck::bytes_of(&self.decisions))?;
        if self.acting.buffers.recurrent.is_some() {
            let endings = self.acting.sizes.endings() * 4;
            self.gpu.write(&own.dones_and_masks, endings, bytemuck::cast_slice(&self.ended))?;
            self.ended.fill(0);
        }
        self.acting.recorder.encode(&self.acting.rollout.collect)?;
        self.acting.recorder.encode(&self.remember)?;
        self.acting.recorder.submit()?;
        self.decisions = self.decisions.wrapping_add(1);
        Ok(())
    }

    /// Actions for the observations `[environment][agent][feature]` and masks `[environment][agent]`, as [`Policy::act`] takes them.
    ///
    /// # Errors
    /// As [`Policy::act`]; [`Error::Data`] for outputs of a network that are not finite; errors of the device.
    pub fn act(&mut self, observations: &[f32], masks: &[u32]) -> Result<&Actions> {
        let [envs, agents] =
            [self.acting.sizes.envs, self.acting.sizes.spec.agents].map(|size| size as usize);
        check(&self.metadata, self.environments, observations, masks)?;
        self.write_observations(observations)?;
        self.write_masks(masks)?;
        self.submit()?;
        let raw: Vec<u32> = self.gpu.read(self.actions())?;
        let bytes = (agents * envs * 4) as u64;
        let log_probabilities = self.gpu.read_range(&self.acting.buffers.rollout.targets, 0, bytes)?;
        let log_probabilities: Vec<f32> = bytemuck::pod_collect_to_vec(&log_probabilities);
        if let Some(row) = log_probabilities.iter().position(|value| !value.is_finite()) {
            return Err(Error::Data(format!(
                "the log-probability of {} in environment {} is {}: the observations or weights are beyond the networks' precision",
                self.metadata.agent(row / envs),
                row % envs,
                log_probabilities[row]
            )));
        }
        let words = self.metadata.actions.words() as usize;
        let decided = &mut self.decided;
        for environment in 0..self.environments {
            for agent in 0..agents {
                let row = environment * agents + agent;
                decided.log_probabilities[row] = log_probabilities[agent * envs + environment];
                for word in 0..words {
                    decided.raw[row * words + word] = raw[(agent * words + word) * envs + environment];
                }
            }
        }
        Ok(&self.decided)
    }

    /// Writes `[environment][agent][feature]` as `[agent][feature][environment]`.
    fn write_observations(&self, observations: &[f32]) -> Result<()> {
        let Spec { agents, obs_dim, .. } = self.acting.sizes.spec;
        let (columns, envs) = ((agents * obs_dim) as usize, self.acting.sizes.envs as usize);
        let mut turned = vec![0f32; columns * envs];
        for (environment, row) in observations.chunks_exact(columns).enumerate() {
            for (column, value) in row.iter().enumerate() {
                turned[column * envs + environment] = *value;
            }
        }
        match self.acting.storage.precision() {
            Precision::F32 => self.gpu.write(self.observations(), 0, bytemuck::cast_slice(&turned)),
            Precision::F16 => {
                let halves: Vec<u16> =
                    turned.iter().map(|value| half::f16::from_f32(*value).to_bits()).collect();
                self.gpu.write(self.observations(), 0, bytemuck::cast_slice(&halves))
            }
        }
    }

    fn write_masks(&self, masks: &[u32]) -> Result<()> {
        let [envs, agents] =
            [self.acting.sizes.envs, self.acting.sizes.spec.agents].map(|size| size as usize);
        let mut turned = vec![u32::MAX; agents * envs];
        for (environment, row) in masks.chunks_exact(agents).enumerate() {
            for (agent, mask) in row.iter().enumerate() {
                turned[agent * envs + environment] = *mask;
            }
        }
        let first = u64::from(self.acting.sizes.first_mask()) * 4;
        self.gpu.write(&self.acting.buffers.rollout.dones_and_masks, first, bytemuck::cast_slice(&turned))
    }
}

/// Copies the new states of the GRUs to where the next decision reads them.
fn remember(Acting { buffers, sizes, layout, .. }: &Acting) -> Recording {
    let Some(RecurrentBuffers { states, carried_states: between, .. }) = &buffers.recurrent else {
        return Recording::new();
    };
    let bytes = sizes.memory_bytes(layout);
    let place = |slot| u64::from(Memory::place(slot, 1)) * bytes;
    let copy = |source: &wgpu::Buffer, source_offset, target: &wgpu::Buffer, target_offset| Command::Copy {
        source: source.clone(),
        source_offset,
        target: target.clone(),
        target_offset,
        bytes,
    };
    vec![copy(states, place(1), between, 0), copy(between, 0, states, place(0))]
}
