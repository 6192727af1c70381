//! Gradients with respect to the matrix products of a stack, from the head down to the first layer.
//!
//! Shapes as in [`super::forward`]; the gradient at the heads is expected at [`super::Layout::head_gradient`]. For n =
//! (x - mean) / d: dx = (dn - mean(dn) - n mean(dn n)) / d, then the activation's derivative. Gradients lie as activations
//! do, in blocks of rows. Through a GRU they flow back within a chunk of slots, up to where an episode began.

use super::block;
use super::kernel_config::KernelConfig;
use super::layout::Batch;
use super::shape::Shape;
use super::weights::WorkingWeights;
use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Resource, Shader};

/// The kernel's source.
const SHADER: Shader = crate::shaders::shader!("nn/backward");

/// The kernel's source in a configuration.
#[must_use]
pub fn shader(kernel_config: &KernelConfig) -> Shader {
    if kernel_config.blocks.is_some() { block::backward::SHADER } else { SHADER }
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, shape: &Shape, kernel_config: &KernelConfig) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Uniform, Write};
    let mut access = match kernel_config.blocks {
        Some(_) => block::backward::ACCESS.to_vec(),
        None => vec![DynamicUniform, Uniform, kernel_config.weights(), Read, Read, Write],
    };
    if shape.recurrent() {
        access.push(Read);
    }
    Kernel::trusted(gpu, &shader(kernel_config), kernel_config.stack(shape), &access, size_of::<Batch>())
}

/// Buffers of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Table of [`Batch`].
    pub batches: &'a wgpu::Buffer,
    /// Two [`super::layout::NetworkStack`]s.
    pub stacks: &'a wgpu::Buffer,
    /// Working weights of all networks.
    pub weights: &'a WorkingWeights,
    /// Activations.
    pub acts: &'a wgpu::Buffer,
    /// Means and inverse deviations of the LayerNorms.
    pub layer_norm_stats: &'a wgpu::Buffer,
    /// Gradients: the heads' are read, the others written.
    pub grads: &'a wgpu::Buffer,
    /// With a GRU, as the forward pass has them.
    pub dones_and_masks: Option<&'a wgpu::Buffer>,
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: Buffers<'_>) -> Result<BindGroup> {
    let Buffers { batches, stacks, weights, acts, layer_norm_stats, grads, dones_and_masks } = buffers;
    let mut all = vec![batches.into(), stacks.into(), weights.resource()];
    all.extend(
        [Some(acts), Some(layer_norm_stats), Some(grads), dones_and_masks]
            .into_iter()
            .flatten()
            .map(Resource::from),
    );
    kernel.bind_all(gpu, &all)
}
