//! A whole stack forward: LayerNorm, then Linear, activation and LayerNorm for every hidden layer, then the head.
//!
//! Shapes: observations `[slot][feature][agent][env]`, activations `[row of the layout][row of the batch]`, head
//! `[output][row of the batch]`; a row is (slot, agent, environment), environment fastest. LayerNorm with the biased
//! variance and epsilon 1e-5, as in PyTorch. The critic's input is the concatenation of all agents' observations.

use super::layout::{Activation, Batch, Role};
use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "nn/forward", source: include_str!("../../shaders/nn/forward.wgsl") };

/// The decisions for this class of adapters.
#[must_use]
pub fn variant(class: Class, activation: Activation) -> Variant {
    Variant::independent(class).with("TANH", u32::from(activation == Activation::Tanh))
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, activation: Activation) -> Result<Kernel> {
    use Access::{Read, Table, Uniform, Write};
    let access = [Table, Uniform, Read, Read, Write, Write];
    Kernel::new(gpu, &SHADER, variant(gpu.class(), activation), &access, size_of::<Batch>())
}

/// Workgroups for `rows` quads of rows and `roles` roles.
#[must_use]
pub fn groups(variant: &Variant, rows: u32, roles: u32) -> [u32; 3] {
    [variant.groups(rows), roles, 1]
}

/// What the kernel reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Table of [`Batch`].
    pub batches: &'a wgpu::Buffer,
    /// Two [`Role`]s.
    pub roles: &'a wgpu::Buffer,
    /// Parameters of all networks.
    pub params: &'a wgpu::Buffer,
    /// Observations.
    pub observations: &'a wgpu::Buffer,
    /// Activations, kept for the backward pass.
    pub acts: &'a wgpu::Buffer,
    /// Logits and values.
    pub head: &'a wgpu::Buffer,
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: Buffers<'_>) -> Result<BindGroup> {
    let Buffers { batches, roles, params, observations, acts, head } = buffers;
    kernel.bind(gpu, &[batches, roles, params, observations, acts, head])
}

/// Uploads the roles of a layout for the network kernels.
///
/// # Errors
/// As [`Gpu::buffer`].
pub fn upload_roles(gpu: &Gpu, roles: &[Role; 2]) -> Result<wgpu::Buffer> {
    gpu.uniform("roles", roles)
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Case, cases};

    #[test]
    fn heads_agree_with_f64() {
        for case in cases() {
            let run = case.run();
            let (logits, values) = case.heads(&case.params);
            Case::compare("logits", &run.logits, &logits, 2e-5);
            Case::compare("values", &run.values, &values, 2e-5);
        }
    }

    #[test]
    fn large_and_tiny_observations_stay_finite_and_right() {
        for scale in [1e-6f32, 1e6] {
            let mut case = cases().remove(0);
            case.observations.iter_mut().for_each(|x| *x *= scale);
            let run = case.run();
            let (logits, values) = case.heads(&case.params);
            Case::compare("logits", &run.logits, &logits, 1e-4);
            Case::compare("values", &run.values, &values, 1e-4);
        }
    }

    #[test]
    fn a_nan_stays_in_its_row() {
        let mut case = cases().remove(0);
        let clean = case.run();
        // Feature 0 of agent 0 in environment 1 of slot 0.
        case.observations[1] = f32::NAN;
        let run = case.run();
        let envs = case.quads * 4;
        for (row, (before, after)) in clean.logits[0].iter().zip(&run.logits[0]).enumerate() {
            let poisoned = row % envs == 1 && row < envs;
            assert_eq!(after.is_nan(), poisoned, "row {row}");
            assert!(poisoned || before == after, "row {row} changed");
        }
    }
}
