//! The gradient of the losses ([`super::loss`]) by the weights of both networks in one dispatch: forward pass, losses, backward pass and
//! the sums over the rows, for networks whose layers fit in workgroup memory (`nn/block.rs`).
//!
//! Shapes: observations and working weights as in [`crate::nn::forward`], targets and masks as in [`super::loss`]. Partial sums f32
//! `[workgroup][parameter]`, without the LayerNorms' gain and offset ([`crate::nn::reduce`] puts them back): a workgroup adds the
//! gradients of its blocks in order, over all micro-batches of a minibatch; [`crate::nn::reduce`] adds the workgroups' sums.

use super::{ActionKind, loss};
use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Resource, Shader, Variant};
use crate::nn::{Batch, KernelConfig, Shape, WorkingWeights};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/gradient");

/// The variant for this kernel configuration, which has blocks.
#[must_use]
pub fn variant(kernel_config: &KernelConfig, shape: &Shape, kind: ActionKind, agent_steps: bool) -> Variant {
    kind.apply(kernel_config.stack(shape)).when("in_blocks", true).when("agent_steps", agent_steps)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(
    gpu: &Gpu,
    kernel_config: &KernelConfig,
    shape: &Shape,
    kind: ActionKind,
    agent_steps: bool,
) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Uniform, Write};
    let access = [
        DynamicUniform,
        Uniform,
        Read,
        Write,
        Write,
        Write,
        Read,
        Read,
        Uniform,
        Read,
        Read,
        Read,
        Read,
        Write,
    ];
    let variant = variant(kernel_config, shape, kind, agent_steps);
    Kernel::trusted(gpu, &SHADER, variant, &access, size_of::<Batch>())
}

/// Workgroups: [`loss::Loss::partial_sums`] for each of the two stacks.
#[must_use]
pub fn groups(loss: &loss::Loss) -> [u32; 3] {
    [loss.partial_sums, 2, 1]
}

/// Buffers of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Table of [`Batch`].
    pub batches: &'a wgpu::Buffer,
    /// Two [`crate::nn::layout::NetworkStack`]s.
    pub stacks: &'a wgpu::Buffer,
    /// Working weights of all networks.
    pub weights: &'a WorkingWeights,
    /// Activations of the blocks that are being worked on, one place a workgroup.
    pub acts: &'a wgpu::Buffer,
    /// Means and inverse deviations of their LayerNorms.
    pub layer_norm_stats: &'a wgpu::Buffer,
    /// Partial sums.
    pub partials: &'a wgpu::Buffer,
    /// Ends of episodes, action masks and the order of shuffled minibatches.
    pub dones_and_masks: &'a wgpu::Buffer,
    /// Observations.
    pub observations: &'a wgpu::Buffer,
    /// Actions taken; of squashed actions the numbers before tanh.
    pub actions: &'a wgpu::Buffer,
    /// Log-probabilities, advantages, returns, and with ratios per choice the choices' log-probabilities.
    pub targets: &'a wgpu::Buffer,
    /// Values at the time of the rollout, normalised.
    pub values: &'a wgpu::Buffer,
    /// [`super::scalars`].
    pub scalars: &'a wgpu::Buffer,
    /// Partial sums of the losses.
    pub statistics: &'a wgpu::Buffer,
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind_all`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, loss: &loss::Loss, buffers: Buffers<'_>) -> Result<BindGroup> {
    let uniform = gpu.uniform("loss", loss)?;
    let Buffers { batches, stacks, weights, acts, layer_norm_stats, partials, .. } = buffers;
    let mut all = vec![batches.into(), stacks.into(), weights.resource()];
    all.extend([acts, layer_norm_stats, partials].map(Resource::from));
    let Buffers { dones_and_masks, observations, actions, targets, values, scalars, statistics, .. } =
        buffers;
    let rest = [dones_and_masks, observations, &uniform, actions, targets, values, scalars, statistics];
    all.extend(rest.map(Resource::from));
    kernel.bind_all(gpu, &all)
}
