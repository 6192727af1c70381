//! The rollout kernel: a workgroup owns whole environments with all their agents and plays many steps of them in one dispatch, from
//! observations through the actors' networks and the draw of actions to the environments' next step.
//!
//! Shapes as in [`RolloutBuffers`], [`crate::nn::forward`] and [`crate::ppo::sample`], whose numbers it also computes.

use std::sync::LazyLock;

use super::functions::{self, Step};
use super::{DeviceEnv, EnvRecording, Environment, RolloutBuffers, Spec, State};
use crate::Result;
use crate::gpu::{Access, Command, GROUPS_IN_A_ROW, Gpu, Kernel, Resource, Shader, Variant};
use crate::nn::{Batch, Blocks, KernelConfig, Layout, MAX_LOOP_ITERATIONS, Shape, Sharing, WorkingWeights};
use crate::ppo::ActionKind;
use crate::ppo::sample::Sample;

/// The kernel's entry point.
const ENTRY: Shader = crate::shaders::shader!("env/rollout");

/// The kernel's shader without the environment.
fn shader() -> Shader {
    static SOURCE: LazyLock<String> = LazyLock::new(|| functions::with_entry(&ENTRY));
    Shader { source: &SOURCE, ..ENTRY }
}

/// Most steps of a dispatch: far less than a second on a slow GPU, after which drivers would reset it.
const MOST_STEPS: u32 = 32;

/// `@binding` numbers after those of environments: parameters of the draw, iteration, targets, draws before tanh, batch, weights, stacks.
const NETWORK_BINDINGS: [(u32, Access); 7] = {
    use Access::{Read, Uniform, Write};
    [(20, Uniform), (21, Read), (22, Write), (23, Write), (24, Uniform), (25, Read), (26, Uniform)]
};

/// The binding of the numbers before tanh, which only squashed actions have.
const DRAWS: u32 = 23;

/// The actors of a rollout kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Actors<'a> {
    /// A configuration with blocks.
    pub(crate) kernel_config: &'a KernelConfig,
    pub(crate) layout: &'a Layout,
    pub(crate) kind: ActionKind,
    /// The rows of all slots.
    pub(crate) batch: Batch,
    /// Its step is not used.
    pub(crate) sample: Sample,
    pub(crate) stacks: &'a wgpu::Buffer,
    pub(crate) weights: &'a WorkingWeights,
    pub(crate) iteration: &'a wgpu::Buffer,
    pub(crate) targets: &'a wgpu::Buffer,
    pub(crate) draws: Option<&'a wgpu::Buffer>,
}

/// How environments are divided among workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Division {
    /// Quads of environments of a workgroup.
    env_quads: u32,
    /// Quads of rows that pass through the networks at a time.
    pass_quads: u32,
}

impl Division {
    /// As many environments as fill a block of rows with their agents; if every agent has its own network, with those of one agent.
    fn new(blocks: Blocks, agents: u32, sharing: Sharing) -> Self {
        let env_quads = match sharing {
            Sharing::Shared => (blocks.quads / agents).max(1),
            Sharing::Separate => blocks.quads,
        };
        Self { env_quads, pass_quads: blocks.quads }
    }

    /// Most steps of a dispatch on an adapter that stops the loops of an invocation after a number of iterations: by a count of
    /// those of the networks, and a generous guess at those of the environment.
    fn steps_of_short_loops(self, spec: Spec, layout: &Layout) -> u32 {
        let stack = &layout.stacks[0];
        let layers = &stack.layer[..stack.layers as usize];
        let a_pass: u64 = layers.iter().map(|layer| 2 * u64::from(layer.inputs) + 40).sum();
        let [agents, features] = [spec.agents, spec.obs_dim + spec.actions].map(u64::from);
        let passes = (agents * u64::from(self.env_quads)).div_ceil(self.pass_quads.into());
        let a_step = passes * a_pass + 4 * agents * (agents + features);
        (MAX_LOOP_ITERATIONS / 2 / a_step).clamp(1, MOST_STEPS.into()) as u32
    }

    /// Workgroups for `quads` quads of environments.
    fn groups(self, quads: u32) -> u32 {
        quads.div_ceil(self.env_quads)
    }
}

/// The variant of the kernel, for a configuration with blocks.
fn variant(kernel_config: &KernelConfig, shape: &Shape, kind: ActionKind) -> Variant {
    kind.apply(kernel_config.stack(shape)).when("in_rollout", true)
}

impl DeviceEnv {
    /// The rollout kernel's source in a configuration with blocks, to be validated and translated.
    ///
    /// # Errors
    /// [`crate::Error::Shader`] if the parts that environments share do not compose.
    pub(super) fn rollout_source(&self, kernel_config: &KernelConfig) -> Result<Option<(String, Variant)>> {
        if kernel_config.blocks.is_none() {
            return Ok(None);
        }
        let kind = ActionKind::new(self.continuous(), true);
        let variant = variant(kernel_config, &Shape::default(), kind);
        Ok(Some((self.source_of(&shader(), &variant)?, variant)))
    }

    /// Compiles the rollout kernel; `None` if the networks are not in blocks, or the device binds too few buffers.
    ///
    /// # Errors
    /// As [`Kernel::new`].
    pub(crate) fn rollout_kernel(
        &self,
        gpu: &Gpu,
        kernel_config: &KernelConfig,
        layout: &Layout,
        kind: ActionKind,
    ) -> Result<Option<Kernel>> {
        if kernel_config.blocks.is_none() {
            return Ok(None);
        }
        let own = EnvRecording::ACCESS.into_iter().map(|access| match access {
            // The actions are drawn by the kernel.
            Access::Read => Access::Write,
            other => other,
        });
        let own = (0..).zip(own.chain(self.further_access()));
        let squashed = kind == ActionKind::Squashed;
        let network = NETWORK_BINDINGS.into_iter().filter(|(binding, _)| squashed || *binding != DRAWS);
        let access: Vec<_> = own.chain(network).collect();
        let limits = gpu.device().limits();
        let count = |kinds: &[Access]| access.iter().filter(|(_, access)| kinds.contains(access)).count();
        if count(&[Access::Read, Access::Write]) > limits.max_storage_buffers_per_shader_stage as usize
            || count(&[Access::Uniform, Access::DynamicUniform])
                > limits.max_uniform_buffers_per_shader_stage as usize
        {
            return Ok(None);
        }
        let variant = variant(kernel_config, &layout.shape, kind);
        let source = self.source_of(&shader(), &variant)?;
        let (table, checked) = (size_of::<Step>(), self.checked(gpu));
        Kernel::from_source(gpu, self.name(), source, variant, &access, table, checked).map(Some)
    }

    /// As [`Environment::record`], with the actors: every recording of steps plays several of them. `None` if the kernel does not
    /// suit the networks or the device.
    ///
    /// # Errors
    /// Errors of allocation and compilation.
    pub(crate) fn record_rollout(
        &self,
        gpu: &Gpu,
        rollout: &RolloutBuffers<'_>,
        actors: Actors<'_>,
    ) -> Result<Option<EnvRecording>> {
        let Actors { kernel_config, layout, kind, .. } = actors;
        let Some(blocks) = kernel_config.blocks else {
            return Ok(None);
        };
        let agents = self.spec().agents;
        let division = Division::new(blocks, agents, layout.shape.sharing);
        let groups = division.groups(rollout.envs / 4);
        if groups > GROUPS_IN_A_ROW {
            return Ok(None);
        }
        let Some(kernel) = self.rollout_kernel(gpu, kernel_config, layout, kind)? else {
            return Ok(None);
        };
        let (state, further) = self.allocate(gpu, rollout)?;
        let Division { env_quads, pass_quads } = division;
        let most = match gpu.stops_long_loops() {
            true => division.steps_of_short_loops(self.spec(), layout),
            false => MOST_STEPS,
        };
        let entry = |step: u32, reset| {
            let end = rollout.steps.min(step + most);
            Step { end, env_quads, pass_quads, ..self.step(rollout, step, reset) }
        };
        let starts: Vec<u32> = (0..rollout.steps).step_by(most as usize).collect();
        let table: Vec<_> = starts.iter().map(|step| entry(*step, false)).chain([entry(0, true)]).collect();
        let table = gpu.uniform_table("environment parameters", &table)?;
        let draw = gpu.uniform("draw", &actors.sample)?;
        let batch = gpu.uniform("acting", &actors.batch)?;
        let shared = [
            &table,
            rollout.actions,
            rollout.rewards,
            state.buffer(),
            rollout.observations,
            rollout.dones_and_masks,
            rollout.episodes,
        ];
        let mut bound: Vec<Resource<'_>> = shared.into_iter().chain(&further).map(Resource::from).collect();
        bound.extend([&draw, actors.iteration, actors.targets].map(Resource::from));
        bound.extend(actors.draws.map(Resource::from));
        bound.extend([Resource::from(&batch), actors.weights.resource(), Resource::from(actors.stacks)]);
        let group = kernel.bind_all(gpu, &bound)?;
        let stride = gpu.uniform_stride::<Step>();
        let play = |index| vec![Command::dispatch_at(&kernel, &group, index, stride, [groups, 1, 1])];
        Ok(Some(EnvRecording {
            reset: play(starts.len() as u32),
            steps: (0..starts.len() as u32).map(play).collect(),
            state: vec![State::Device(state)],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_environments_fill_a_block() {
        let [large, small] = [Blocks::sized(16, 64), Blocks::sized(4, 128)];
        for (blocks, agents, sharing, env_quads, groups) in [
            (large, 4, Sharing::Shared, 4, 64),
            (large, 3, Sharing::Shared, 5, 52),
            (large, 1, Sharing::Shared, 16, 16),
            (large, 24, Sharing::Shared, 1, 256),
            (small, 4, Sharing::Shared, 1, 256),
            (large, 4, Sharing::Separate, 16, 16),
        ] {
            let division = Division::new(blocks, agents, sharing);
            assert_eq!(division, Division { env_quads, pass_quads: blocks.quads });
            assert_eq!(division.groups(256), groups);
            // Every environment has an invocation of its own.
            assert!(4 * env_quads <= blocks.workgroup());
        }
    }
}
