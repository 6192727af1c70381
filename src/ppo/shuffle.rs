//! The random order of a rollout's steps in the minibatches of an epoch.
//!
//! A unit is one step of four environments (a quad) with all their agents; with a GRU, one sequence of `chunk` steps of them. Each
//! quad of environments has a permutation of its own, so that every minibatch holds the same number of units of every environment, in
//! random order. The permutation follows from seed, iteration and epoch alone.
//!
//! Result: the order, `[place][quad]` in u32s, behind the other parts of `dones_and_masks`. A minibatch is a range of places;
//! networks and losses read the rows of the step that a place lists. Sequences have `chunk` places each: where `chunk` does not
//! divide the rollout, the last sequence lists steps after the rollout's end, whose rows do not count.
//!
//! Permutation: 24 rounds of a swap-or-not network (Hoang, Morris and Rogaway, arXiv 1208.1176) with Threefry. Every invocation
//! computes one entry by itself: nothing is sorted, and no invocation waits for another.

use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/shuffle");

/// Separates this random stream from others of the same seed: a mask for the upper half of the seed.
pub const STREAM: u32 = 0x5FFE_2E00;

/// Counterpart of `Shuffle` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Shuffle {
    /// Lower half of the seed.
    pub seed_low: u32,
    /// Upper half of the seed, with [`STREAM`].
    pub seed_high: u32,
    /// Number of the epoch within the iteration, over all agent steps.
    pub epoch: u32,
    /// Environments / 4.
    pub quads: u32,
    /// Steps of a sequence; 1 without a GRU.
    pub chunk: u32,
    /// Sequences of a rollout, at least 2.
    pub chunks: u32,
    /// First u32 of the order in `dones_and_masks`.
    pub order: u32,
    /// Fills up to 16 bytes.
    pub pad: u32,
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Write};
    let access = [DynamicUniform, Read, Write];
    Kernel::trusted(gpu, &SHADER, Variant::wide(gpu.class()), &access, size_of::<Shuffle>())
}

/// Workgroups: an invocation per sequence and quad.
#[must_use]
pub fn groups(variant: &Variant, parameters: &Shuffle) -> [u32; 3] {
    let [x, y] = variant.rows(parameters.chunks * parameters.quads);
    [x, y, 1]
}

/// Binds a table of [`Shuffle`]s, the iteration and `dones_and_masks`.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: [&wgpu::Buffer; 3]) -> Result<BindGroup> {
    kernel.bind(gpu, &buffers)
}

#[cfg(test)]
#[path = "shuffle_tests.rs"]
pub mod tests;
