//! A whole stack forward: LayerNorm, then Linear, activation and LayerNorm for every hidden layer, then the head.
//!
//! Shapes: observations `[slot][agent][feature][env]`, activations `[block of rows][row of the layout][row within the
//! block]` ([`super::KernelConfig::block`] quads a block), head `[output][row of the batch]`, LayerNorm statistics `[row of
//! the layout][row of the batch]`; a row is (slot, agent, environment), environment fastest. LayerNorm with the biased
//! variance and epsilon 1e-5, as in PyTorch; its gain and offset are in the working weights ([`super::fold`]). The critic's
//! input is the concatenation of all agents' observations.
//!
//! With a GRU ([`Shape::recurrent`]; Cho et al., arXiv 1406.1078, as PyTorch computes it): with the last hidden layer's
//! normalised output x and the state h, r = sigmoid(W_r x + b_r + U_r h + c_r), z likewise, n = tanh(W_n x + b_n + r (U_n h +
//! c_n)), h' = n + z (h - n); the head reads LayerNorm(h').

use super::block;
use super::kernel_config::KernelConfig;
use super::layout::{Batch, NetworkStack};
use super::shape::Shape;
use super::weights::WorkingWeights;
use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Resource, Shader};

/// The kernel's source.
const SHADER: Shader = crate::shaders::shader!("nn/forward");

/// The kernel's source in a configuration.
#[must_use]
pub fn shader(kernel_config: &KernelConfig) -> Shader {
    if kernel_config.blocks.is_some() { block::forward::SHADER } else { SHADER }
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, shape: &Shape, kernel_config: &KernelConfig) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Uniform, Write};
    let mut access = match kernel_config.blocks {
        Some(_) => block::forward::ACCESS.to_vec(),
        None => vec![DynamicUniform, Uniform, kernel_config.weights(), Read, Write, Write, Read, Write],
    };
    if shape.recurrent() {
        access.push(Write);
    }
    Kernel::trusted(gpu, &shader(kernel_config), kernel_config.stack(shape), &access, size_of::<Batch>())
}

/// Workgroups for a batch and `stacks` stacks: one per block of rows, or an invocation per quad of rows, with a GRU per quad of
/// sequences.
#[must_use]
pub fn groups(kernel_config: &KernelConfig, batch: &Batch, stacks: u32) -> [u32; 3] {
    let per_slot = batch.agents * batch.quads;
    let sequences = match batch.recurrent.length {
        0 | 1 => batch.rows,
        length => (batch.rows / per_slot.max(1)).div_ceil(length) * per_slot,
    };
    [sequences.div_ceil(kernel_config.quads_of_group()), stacks, 1]
}

/// Buffers of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Table of [`Batch`].
    pub batches: &'a wgpu::Buffer,
    /// Two [`NetworkStack`]s.
    pub stacks: &'a wgpu::Buffer,
    /// Working weights of all networks.
    pub weights: &'a WorkingWeights,
    /// Observations.
    pub observations: &'a wgpu::Buffer,
    /// Activations, kept for the backward pass.
    pub acts: &'a wgpu::Buffer,
    /// Logits and values.
    pub head: &'a wgpu::Buffer,
    /// Means and inverse deviations of the LayerNorms, f32.
    pub layer_norm_stats: &'a wgpu::Buffer,
    /// Dones and masks as in [`crate::ppo::gae`]; then, with a GRU, one row more at [`super::RecurrentPart::endings`]: the step before
    /// slot 0; then the order of shuffled minibatches ([`Batch::order`]). A GRU's state begins as 0 if its entry is not 0.
    pub dones_and_masks: &'a wgpu::Buffer,
    /// With a GRU.
    pub memory: Option<Memory<'a>>,
}

/// State of a GRU between dispatches.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// States, f32: `[place][stack][entry][row of a slot]`. Place 0 is that of the state in passing; then come those that
    /// enter slots 0, chunk, 2 chunk and so on up to the rollout's end; then those that truncated episodes left behind.
    pub states: &'a wgpu::Buffer,
}

impl Memory<'_> {
    /// Places of the states.
    #[must_use]
    pub fn places(steps: u32, chunk: u32, truncations: u32) -> u32 {
        // One at least for truncated episodes: nothing is written elsewhere when an environment has more than it said.
        2 + steps / chunk.max(1) + truncations.max(1)
    }

    /// Place of the state that enters slot `slot`.
    #[must_use]
    pub fn place(slot: u32, chunk: u32) -> u32 {
        if slot.is_multiple_of(chunk) { 1 + slot / chunk } else { 0 }
    }
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: Buffers<'_>) -> Result<BindGroup> {
    let Buffers {
        batches,
        stacks,
        weights,
        observations,
        acts,
        head,
        layer_norm_stats,
        dones_and_masks,
        memory,
    } = buffers;
    let mut all = vec![batches.into(), stacks.into(), weights.resource()];
    let rest = match kernel.name == block::forward::SHADER.name {
        true => [acts, layer_norm_stats, head, dones_and_masks, observations],
        false => [observations, acts, head, dones_and_masks, layer_norm_stats],
    };
    all.extend(rest.map(Resource::from));
    all.extend(memory.map(|memory| Resource::from(memory.states)));
    kernel.bind_all(gpu, &all)
}

/// Uploads the stacks of a layout for the network kernels.
///
/// # Errors
/// As [`Gpu::buffer`].
pub fn upload_stacks(gpu: &Gpu, stacks: &[NetworkStack; 2]) -> Result<wgpu::Buffer> {
    gpu.uniform("stacks", stacks)
}
