//! A whole stack forward: LayerNorm, then Linear, activation and LayerNorm for every hidden layer, then the head.
//!
//! Shapes: observations `[slot][agent][feature][env]`, activations `[block of rows][row of the layout][row within the
//! block]` ([`super::Decisions::block`] quads a block), head `[output][row of the batch]`, moments `[row of the
//! layout][row of the batch]`; a row is (slot, agent, environment), environment fastest. LayerNorm with the biased variance
//! and epsilon 1e-5, as in PyTorch; its gain and offset are in the working weights ([`super::fold`]). The critic's input is
//! the concatenation of all agents' observations.

use super::layout::{Batch, Role};
use super::precision::Decisions;
use super::shape::Activation;
use super::weights::WorkingWeights;
use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "nn/forward", source: include_str!("../../shaders/nn/forward.wgsl") };

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, activation: Activation, decisions: &Decisions) -> Result<Kernel> {
    use Access::{Read, Table, Uniform, Write};
    let access = [Table, Uniform, decisions.weights(), Read, Write, Write, Write];
    Kernel::trusted(gpu, &SHADER, decisions.variant(Some(activation)), &access, size_of::<Batch>())
}

/// Workgroups for `rows` quads of rows and `roles` roles.
#[must_use]
pub fn groups(decisions: &Decisions, rows: u32, roles: u32) -> [u32; 3] {
    [rows.div_ceil(decisions.block()), roles, 1]
}

/// What the kernel reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Table of [`Batch`].
    pub batches: &'a wgpu::Buffer,
    /// Two [`Role`]s.
    pub roles: &'a wgpu::Buffer,
    /// Working weights of all networks.
    pub weights: &'a WorkingWeights,
    /// Observations.
    pub observations: &'a wgpu::Buffer,
    /// Activations, kept for the backward pass.
    pub acts: &'a wgpu::Buffer,
    /// Logits and values.
    pub head: &'a wgpu::Buffer,
    /// Means and inverse deviations of the LayerNorms, f32.
    pub moments: &'a wgpu::Buffer,
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: Buffers<'_>) -> Result<BindGroup> {
    let Buffers { batches, roles, weights, observations, acts, head, moments } = buffers;
    let weights = weights.resource();
    kernel.bind_all(
        gpu,
        &[
            batches.into(),
            roles.into(),
            weights,
            observations.into(),
            acts.into(),
            head.into(),
            moments.into(),
        ],
    )
}

/// Uploads the roles of a layout for the network kernels.
///
/// # Errors
/// As [`Gpu::buffer`].
pub fn upload_roles(gpu: &Gpu, roles: &[Role; 2]) -> Result<wgpu::Buffer> {
    gpu.uniform("roles", roles)
}
