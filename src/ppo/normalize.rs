//! Observations normalised by their running statistics ([`super::running_mean_std`]): (x - mean) / deviation, clamped to +/-
//! [`LIMIT`].
//!
//! Shapes: f32 `[slot][agent][feature][env]`, followed by the global states `[slot][number][env]`; the result has the same
//! shape in the storage of the networks.

use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};
use crate::nn::Storage;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/normalize");

/// Largest absolute value of a normalised observation.
pub const LIMIT: f32 = 10.0;

/// Counterpart of `Normalize` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Normalize {
    /// First slot.
    pub first_slot: u32,
    /// Slots.
    pub slots: u32,
    /// Environments / 4.
    pub quads: u32,
    /// Features of all agents together.
    pub observed: u32,
    /// Numbers of the global state.
    pub state_dim: u32,
    /// First quad of the states.
    pub first_state: u32,
    /// See [`LIMIT`].
    pub limit: f32,
    /// Fills up to 16 bytes.
    pub pad: u32,
}

/// The variant for this class of adapters and this storage.
#[must_use]
pub fn variant(class: crate::gpu::Class, storage: Storage) -> Variant {
    storage.apply(Variant::wide(class))
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, storage: Storage) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Write};
    let size = size_of::<Normalize>();
    Kernel::trusted(gpu, &SHADER, variant(gpu.class(), storage), &[DynamicUniform, Read, Read, Write], size)
}

/// Workgroups: one invocation per quad.
#[must_use]
pub fn groups(variant: &Variant, parameters: &Normalize) -> [u32; 3] {
    let columns = parameters.observed + parameters.state_dim;
    let [x, y] = variant.rows(parameters.slots * columns * parameters.quads);
    [x, y, 1]
}

/// Binds a table of parameters, raw observations, their running statistics, and the result.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: [&wgpu::Buffer; 4]) -> Result<BindGroup> {
    kernel.bind(gpu, &buffers)
}
