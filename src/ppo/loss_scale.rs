//! The dynamic loss scale of mixed precision, with the semantics of `torch.amp.GradScaler`: a step whose gradient is not
//! finite is skipped by the network concerned and multiplies the scale by 0.5; 2000 good steps in a row multiply it by 2.
//! Scale and count are kept in the buffer of scalars; [`super::adamw`] divides the scale out of the gradients,
//! [`super::end_step`] moves it. The host reads it once per iteration, with the other metrics.

use super::scalars;
use crate::Result;
use crate::gpu::Gpu;

/// Initial scale in f16: 2^16.
pub const INITIAL: f32 = 65_536.0;

/// Growth and backoff of the scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// Factor after `interval` good steps.
    pub growth: f32,
    /// Factor after a step whose gradient was not finite.
    pub backoff: f32,
    /// Good steps in a row; 0 leaves the scale alone.
    pub interval: u32,
}

impl LossScale {
    /// `GradScaler`'s defaults, for training in f16.
    pub const DYNAMIC: Self = Self { growth: 2.0, backoff: 0.5, interval: 2000 };

    /// A scale that stays, for training in f32.
    pub const CONSTANT: Self = Self { growth: 1.0, backoff: 1.0, interval: 0 };
}

/// Writes the initial scale into the buffer of scalars.
///
/// # Errors
/// As [`Gpu::write`].
pub fn start(gpu: &Gpu, buffer: &wgpu::Buffer, scale: f32) -> Result<()> {
    gpu.write(buffer, scalars::LOSS_SCALE as u64 * 4, bytemuck::bytes_of(&[scale, 0.0]))
}
