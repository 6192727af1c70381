//! Gradients with respect to the matrix products of a stack, from the head down to the first layer.
//!
//! Shapes as in [`super::forward`]; the gradient at the heads is expected at [`super::Layout::head_gradient`]. For n =
//! (x - mean) / d: dx = (dn - mean(dn) - n mean(dn n)) / d, then the activation's derivative. Gradients lie as activations
//! do, in blocks of rows. Through a GRU they flow back within a chunk of slots, up to where an episode began.

use super::forward::Phase;
use super::kernel_config::KernelConfig;
use super::layout::Batch;
use super::shape::Shape;
use super::weights::WorkingWeights;
use super::{block, stream, tile};
use crate::Result;
use crate::gpu::{Access, BindGroup, Command, Gpu, Kernel, Resource, Shader};

/// The kernel's source in a configuration.
#[must_use]
pub fn shader(kernel_config: &KernelConfig) -> Shader {
    if kernel_config.blocks.is_some() {
        block::backward::SHADER
    } else if kernel_config.streams() {
        stream::backward::SHADER
    } else {
        tile::backward::SHADER
    }
}

/// The kernels of the pass in the order in which they run: one, or with a GRU in chunks of several slots the phases of the forward pass
/// from the last to the first.
#[derive(Clone, Debug)]
pub struct Kernels {
    phases: Vec<(Phase, Kernel)>,
    kernel_config: KernelConfig,
}

impl Kernels {
    /// Compiles the kernels.
    ///
    /// # Errors
    /// As [`Kernel::new`].
    pub fn new(gpu: &Gpu, shape: &Shape, kernel_config: &KernelConfig) -> Result<Self> {
        let phases = phases(shape, kernel_config).into_iter();
        let phases = phases.map(|phase| Ok((phase, kernel(gpu, shape, kernel_config, phase)?)));
        Ok(Self { phases: phases.collect::<Result<_>>()?, kernel_config: *kernel_config })
    }

    /// Binds the buffers.
    ///
    /// # Errors
    /// As [`Kernel::bind`].
    pub fn bind(&self, gpu: &Gpu, buffers: Buffers<'_>) -> Result<Pass> {
        let bound =
            |(phase, kernel): &(Phase, Kernel)| Ok((*phase, kernel.clone(), bind(gpu, kernel, buffers)?));
        Ok(Pass {
            phases: self.phases.iter().map(bound).collect::<Result<_>>()?,
            stride: gpu.uniform_stride::<Batch>(),
            kernel_config: self.kernel_config,
        })
    }
}

/// The phases of the pass in the order in which they run.
pub(crate) fn phases(shape: &Shape, kernel_config: &KernelConfig) -> Vec<Phase> {
    let apart: Vec<_> = Phase::of(shape, kernel_config).rev().collect();
    if apart.is_empty() { vec![Phase::Whole] } else { apart }
}

/// Compiles the kernel of a phase.
///
/// # Errors
/// As [`Kernel::new`].
pub(crate) fn kernel(gpu: &Gpu, shape: &Shape, kernel_config: &KernelConfig, phase: Phase) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Uniform, Write};
    let mut access = match kernel_config.blocks {
        Some(_) => block::backward::ACCESS.to_vec(),
        None => vec![DynamicUniform, Uniform, kernel_config.weights(), Read, Read, Write],
    };
    if shape.recurrent() {
        access.push(Read);
    }
    let variant = phase.variant(shape, kernel_config);
    Kernel::trusted(gpu, &shader(kernel_config), variant, &access, size_of::<Batch>())
}

/// The kernels of the pass with their buffers.
#[derive(Clone, Debug)]
pub struct Pass {
    phases: Vec<(Phase, Kernel, BindGroup)>,
    stride: u32,
    kernel_config: KernelConfig,
}

impl Pass {
    /// The dispatches of the batch with number `index` in the table, over both stacks.
    pub fn commands(&self, index: u32, batch: &Batch) -> Vec<Command> {
        let at = |(phase, kernel, group): &(Phase, Kernel, BindGroup)| {
            let grid = phase.groups(&self.kernel_config, batch, 2);
            Command::dispatch_at(kernel, group, index, self.stride, grid)
        };
        self.phases.iter().map(at).collect()
    }
}

/// Buffers of the kernels.
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

fn bind(gpu: &Gpu, kernel: &Kernel, buffers: Buffers<'_>) -> Result<BindGroup> {
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
