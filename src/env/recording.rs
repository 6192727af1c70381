//! Records environments that consist of a single kernel.

use super::{DeviceState, EnvRecording, RolloutBuffers, State};
use crate::Result;
use crate::gpu::{Access, Command, Gpu, Kernel};

impl EnvRecording {
    /// Access modes of the bindings of [`EnvRecording::of_kernel`]: parameters, actions, rewards, state, observations,
    /// `dones_and_masks`, episodes.
    pub const ACCESS: [Access; 7] = {
        use Access::{DynamicUniform, Read, Write};
        [DynamicUniform, Read, Write, Write, Write, Write, Write]
    };

    /// Records an environment that consists of one kernel with one invocation per environment: one dispatch for the reset and one
    /// per step.
    ///
    /// `kernel` binds the buffers of [`EnvRecording::ACCESS`] in that order, then `data`, further buffers of the environment.
    /// Its uniform buffer contains `parameters(step, reset)`; `reset` is true only in the dispatch that starts new episodes.
    ///
    /// # Errors
    /// Those of [`Gpu::uniform_table`] and [`Kernel::bind`].
    pub fn of_kernel<P: bytemuck::NoUninit>(
        gpu: &Gpu,
        rollout: &RolloutBuffers<'_>,
        kernel: &Kernel,
        state: DeviceState,
        data: &[&wgpu::Buffer],
        parameters: impl Fn(u32, bool) -> P,
    ) -> Result<Self> {
        let steps = 0..rollout.steps;
        let table: Vec<_> =
            steps.clone().map(|step| parameters(step, false)).chain([parameters(0, true)]).collect();
        let table = gpu.uniform_table("environment parameters", &table)?;
        let stride = gpu.uniform_stride::<P>();
        let group = kernel.bind(gpu, &[&rollout.bound(&table, &state), data].concat())?;
        let grid = [kernel.variant.groups(rollout.envs), 1, 1];
        let entry = |index| vec![Command::dispatch_at(kernel, &group, index, stride, grid)];
        Ok(Self {
            reset: entry(rollout.steps),
            steps: steps.map(entry).collect(),
            state: vec![State::Device(state)],
        })
    }
}
