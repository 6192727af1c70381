//! The dynamic loss scale of mixed precision, with the semantics of `torch.amp.GradScaler`: a step whose gradient is not
//! finite is skipped by the network concerned and multiplies the scale by 0.5; 2000 good steps in a row multiply it by 2.
//! Scale and count live in the buffer of scalars; the host sees them in the record of an iteration, never in between.

use super::scalars;
use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "ppo/loss_scale", source: include_str!("../../shaders/ppo/loss_scale.wgsl") };

/// Workgroups: a handful of numbers.
pub const GROUPS: [u32; 3] = [1, 1, 1];

/// Scale at the start of a training in f16: 2^16.
pub const INITIAL: f32 = 65_536.0;

/// Counterpart of `LossScale` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct LossScale {
    /// Factor after `interval` good steps.
    pub growth: f32,
    /// Factor after a step whose gradient was not finite.
    pub backoff: f32,
    /// Good steps in a row; 0 leaves the scale alone.
    pub interval: f32,
    /// Networks.
    pub nets: u32,
}

impl LossScale {
    /// `GradScaler`'s defaults for training in f16.
    #[must_use]
    pub fn dynamic(nets: u32) -> Self {
        Self { growth: 2.0, backoff: 0.5, interval: 2000.0, nets }
    }

    /// A scale that stays, for training in f32.
    #[must_use]
    pub fn constant(nets: u32) -> Self {
        Self { interval: 0.0, ..Self::dynamic(nets) }
    }
}

/// Writes the scale that a training begins with into the buffer of scalars.
///
/// # Errors
/// As [`Gpu::write`].
pub fn start(gpu: &Gpu, buffer: &wgpu::Buffer, scale: f32) -> Result<()> {
    gpu.write(buffer, scalars::LOSS_SCALE as u64 * 4, bytemuck::bytes_of(&[scale, 0.0]))
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::new(gpu, &SHADER, Variant::new(1), &[Uniform, Read, Write], 0)
}

/// Binds parameters, optimizer state and scalars.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    parameters: &LossScale,
    optimizer: &wgpu::Buffer,
    scalars: &wgpu::Buffer,
) -> Result<BindGroup> {
    let uniform = gpu.uniform("loss_scale", parameters)?;
    kernel.bind(gpu, &[&uniform, optimizer, scalars])
}
