//! The rollout kernel: a workgroup owns whole environments with all their agents and plays many steps of them in one dispatch, from
//! observations through the actors' networks and the draw of actions to the environments' next step.
//!
//! Shapes as in [`RolloutBuffers`], [`crate::nn::forward`] and [`crate::ppo::sample`], whose numbers it also computes.

use std::sync::LazyLock;

use super::functions::{self, Step};
use super::{DeviceEnv, EnvRecording, Environment, RolloutBuffers, Spec, State};
use crate::gpu::{Access, Command, GROUPS_IN_A_ROW, Gpu, Kernel, Resource, Shader, Variant};
use crate::nn::{
    Batch, Blocks, KernelConfig, Layout, MAX_LOOP_ITERATIONS, MOST_MULTIPLY_ADDS, Shape, Sharing,
    WorkingWeights,
};
use crate::ppo::ActionKind;
use crate::ppo::sample::Sample;
use crate::{Error, Result};

/// The kernel's entry point.
const ENTRY: Shader = crate::shaders::shader!("env/rollout");

/// The kernel's shader without the environment.
fn shader() -> Shader {
    static SOURCE: LazyLock<String> = LazyLock::new(|| functions::with_entry(&ENTRY));
    Shader { source: &SOURCE, ..ENTRY }
}

/// Most steps of a dispatch: more would save little.
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

/// The division of a rollout among workgroups and dispatches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Division {
    /// Quads of environments of a workgroup: `phalanx_ENV_QUADS` in the shader.
    env_quads: u32,
    groups: u32,
    /// Most steps of a dispatch.
    steps: u32,
}

impl Division {
    /// As many environments as fill a block of rows with their agents. `None` if they are too many for one dispatch.
    fn new(blocks: Blocks, spec: Spec, layout: &Layout, quads: u32) -> Option<Self> {
        let env_quads = (blocks.quads / spec.agents).max(1);
        let groups = quads.div_ceil(env_quads);
        let rows = 4 * u64::from(quads) * u64::from(spec.agents);
        let a_step = rows.saturating_mul(layout.multiply_adds(0)).max(1);
        let steps = (MOST_MULTIPLY_ADDS / a_step).clamp(1, MOST_STEPS.into()) as u32;
        (groups <= GROUPS_IN_A_ROW).then_some(Self { env_quads, groups, steps })
    }

    /// Fewer steps for an adapter that stops the loops of an invocation after a number of iterations: by a count of those of the
    /// networks, and a generous guess at those of the environment.
    fn with_short_loops(self, blocks: Blocks, spec: Spec, layout: &Layout) -> Self {
        let stack = &layout.stacks[0];
        let layers = &stack.layer[..stack.layers as usize];
        let a_pass: u64 = layers.iter().map(|layer| 2 * u64::from(layer.inputs) + 40).sum();
        let [agents, features] = [spec.agents, spec.obs_dim + spec.actions].map(u64::from);
        let passes = (agents * u64::from(self.env_quads)).div_ceil(blocks.quads.into());
        let a_step = passes * a_pass + 4 * agents * (agents + features);
        let most = (MAX_LOOP_ITERATIONS / 2 / a_step).max(1);
        Self { steps: u64::from(self.steps).min(most) as u32, ..self }
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

    /// Whether one kernel can act with these networks and play `envs` environments: the networks are in blocks and shared by all
    /// agents, and the device binds enough buffers.
    pub(crate) fn plays_with(
        &self,
        gpu: &Gpu,
        actors: (&KernelConfig, &Layout, ActionKind),
        envs: u32,
    ) -> bool {
        let access = self.rollout_access(actors.2);
        let limits = gpu.device().limits();
        let count =
            |kinds: &[Access]| access.iter().filter(|(_, access)| kinds.contains(access)).count() as u32;
        self.division(gpu, (actors.0, actors.1), envs).is_some()
            && count(&[Access::Read, Access::Write]) <= limits.max_storage_buffers_per_shader_stage
            && count(&[Access::Uniform, Access::DynamicUniform])
                <= limits.max_uniform_buffers_per_shader_stage
    }

    /// `None` if the networks are not in blocks, every agent has its own, or the environments are too many for one dispatch.
    fn division(
        &self,
        gpu: &Gpu,
        (kernel_config, layout): (&KernelConfig, &Layout),
        envs: u32,
    ) -> Option<Division> {
        // Networks of their own would need a pass of few environments for every agent.
        let shared = layout.shape.sharing == Sharing::Shared;
        let blocks = kernel_config.blocks.filter(|_| shared && envs.is_multiple_of(4))?;
        let division = Division::new(blocks, self.spec(), layout, envs / 4)?;
        let division = match gpu.stops_long_loops() {
            true => division.with_short_loops(blocks, self.spec(), layout),
            false => division,
        };
        Some(Division { steps: division.steps.min(self.steps_per_dispatch()), ..division })
    }

    /// The kernel's bindings: those of the environment, then those of the networks.
    fn rollout_access(&self, kind: ActionKind) -> Vec<(u32, Access)> {
        let own = EnvRecording::ACCESS.into_iter().map(|access| match access {
            // The actions are drawn by the kernel.
            Access::Read => Access::Write,
            other => other,
        });
        let squashed = kind == ActionKind::Squashed;
        let network = NETWORK_BINDINGS.into_iter().filter(|(binding, _)| squashed || *binding != DRAWS);
        (0..).zip(own.chain(self.further_access())).chain(network).collect()
    }

    /// Compiles the kernel for networks that it plays with ([`DeviceEnv::plays_with`]).
    ///
    /// # Errors
    /// As [`Kernel::new`].
    pub(crate) fn rollout_kernel(
        &self,
        gpu: &Gpu,
        kernel_config: &KernelConfig,
        layout: &Layout,
        kind: ActionKind,
    ) -> Result<Kernel> {
        let variant = variant(kernel_config, &layout.shape, kind);
        let source = self.source_of(&shader(), &variant)?;
        let (access, table, checked) = (self.rollout_access(kind), size_of::<Step>(), self.checked(gpu));
        Kernel::from_source(gpu, self.name(), source, variant, &access, table, checked)
    }

    /// As [`Environment::record`], with actors that it plays with: every recording of steps plays several of them.
    ///
    /// # Errors
    /// Errors of allocation and compilation; [`Error::Config`] for other actors.
    pub(crate) fn record_rollout(
        &self,
        gpu: &Gpu,
        rollout: &RolloutBuffers<'_>,
        actors: Actors<'_>,
    ) -> Result<EnvRecording> {
        let Actors { kernel_config, layout, kind, .. } = actors;
        let division = self.division(gpu, (kernel_config, layout), rollout.envs);
        let Some(Division { groups, steps, .. }) = division else {
            return Err(Error::config("device_env", "these networks are not played with in one kernel"));
        };
        let kernel = self.rollout_kernel(gpu, kernel_config, layout, kind)?;
        let (state, further) = self.allocate(gpu, rollout)?;
        let entry = |step: u32, reset| {
            let end = rollout.steps.min(step + steps);
            Step { end, ..self.step(rollout, step, reset) }
        };
        let starts: Vec<u32> = (0..rollout.steps).step_by(steps as usize).collect();
        let table: Vec<_> = starts.iter().map(|step| entry(*step, false)).chain([entry(0, true)]).collect();
        let table = gpu.uniform_table("environment parameters", &table)?;
        let draw = gpu.uniform("draw", &actors.sample)?;
        let batch = gpu.uniform("acting", &actors.batch)?;
        let mut bound: Vec<Resource<'_>> =
            rollout.bound(&table, &state).into_iter().chain(&further).map(Resource::from).collect();
        bound.extend([&draw, actors.iteration, actors.targets].map(Resource::from));
        bound.extend(actors.draws.map(Resource::from));
        bound.extend([Resource::from(&batch), actors.weights.resource(), Resource::from(actors.stacks)]);
        let group = kernel.bind_all(gpu, &bound)?;
        let stride = gpu.uniform_stride::<Step>();
        let play = |index| vec![Command::dispatch_at(&kernel, &group, index, stride, [groups, 1, 1])];
        Ok(EnvRecording {
            reset: play(starts.len() as u32),
            steps: (0..starts.len() as u32).map(play).collect(),
            state: vec![State::Device(state)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(agents: u32, hidden: u32) -> (Spec, Layout) {
        let (obs_dim, actions) = (18, 3);
        let shape = Shape { agents, obs_dim, actions, hidden: vec![hidden; 2], ..Shape::default() };
        (Spec { agents, obs_dim, actions }, Layout::new(&shape).unwrap())
    }

    #[test]
    fn whole_environments_fill_a_block() {
        let [large, small] = [Blocks::sized(16, 64), Blocks::sized(4, 128)];
        for (blocks, agents, env_quads, groups) in [
            (large, 4, 4, 64),
            (large, 3, 5, 52),
            (large, 1, 16, 16),
            (large, 24, 1, 256),
            (small, 4, 1, 256),
        ] {
            let (spec, layout) = layout(agents, blocks.width);
            let division = Division::new(blocks, spec, &layout, 256).unwrap();
            assert_eq!(division, Division { env_quads, groups, steps: MOST_STEPS });
            // Every environment has an invocation of its own.
            assert!(4 * env_quads <= blocks.workgroup());
        }
        let (spec, layout) = layout(24, 64);
        assert_eq!(Division::new(large, spec, &layout, GROUPS_IN_A_ROW + 1), None);
    }

    #[test]
    fn a_dispatch_does_a_bounded_amount_of_work() {
        let (spec, layout) = layout(4, 128);
        let blocks = Blocks::sized(8, 128);
        let mut seen = Vec::new();
        for quads in [64, 1024, 4096, 16384, 1 << 17] {
            let steps = Division::new(blocks, spec, &layout, quads).map_or(0, |division| division.steps);
            let work = u64::from(steps * 16) * u64::from(quads) * layout.multiply_adds(0);
            assert!(steps <= 1 || work <= MOST_MULTIPLY_ADDS, "{steps} steps of {quads} quads");
            seen.push(steps);
        }
        assert!(seen[0] == MOST_STEPS && seen.is_sorted_by(|a, b| a >= b) && seen[3] < 8, "{seen:?}");
    }
}
