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

use super::kernel_config::KernelConfig;
use super::layout::{Batch, NetworkStack};
use super::shape::Shape;
use super::weights::WorkingWeights;
use super::{block, stream, tile};
use crate::Result;
use crate::gpu::{Access, BindGroup, Command, Gpu, Kernel, Resource, Shader, Variant};
use crate::shaders::constants::network::{BEFORE_CELL, HEAD, RECURRENCE, WHOLE};

/// The kernel's source in a configuration.
#[must_use]
pub fn shader(kernel_config: &KernelConfig) -> Shader {
    if kernel_config.blocks.is_some() {
        block::forward::SHADER
    } else if kernel_config.streams() {
        stream::forward::SHADER
    } else {
        tile::forward::SHADER
    }
}

/// The kernels of the pass.
#[derive(Clone, Debug)]
pub struct Kernels {
    /// All layers.
    whole: Kernel,
    /// With a GRU in chunks of several slots: one after the other, as [`Phase::IN_ORDER`] has them.
    phases: Vec<(Phase, Kernel)>,
    kernel_config: KernelConfig,
}

impl Kernels {
    /// Compiles the kernels.
    ///
    /// # Errors
    /// As [`Kernel::new`].
    pub fn new(gpu: &Gpu, shape: &Shape, kernel_config: &KernelConfig) -> Result<Self> {
        let phases = Phase::of(shape, kernel_config)
            .map(|phase| Ok((phase, kernel(gpu, shape, kernel_config, phase)?)));
        Ok(Self {
            whole: kernel(gpu, shape, kernel_config, Phase::Whole)?,
            phases: phases.collect::<Result<_>>()?,
            kernel_config: *kernel_config,
        })
    }

    /// Binds the buffers.
    ///
    /// # Errors
    /// As [`Kernel::bind`].
    pub fn bind(&self, gpu: &Gpu, buffers: Buffers<'_>) -> Result<Pass> {
        let bound = |kernel: &Kernel| Ok((kernel.clone(), bind(gpu, kernel, buffers)?));
        let phases = self.phases.iter().map(|(phase, kernel)| Ok((*phase, bound(kernel)?)));
        Ok(Pass {
            whole: bound(&self.whole)?,
            phases: phases.collect::<Result<_>>()?,
            stride: gpu.uniform_stride::<Batch>(),
            kernel_config: self.kernel_config,
        })
    }
}

/// A part of the pass with a GRU: see `shaders/nn/stream/forward.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// All layers, walking through the slots of a chunk.
    Whole = WHOLE,
    /// The layers up to the gates of the input, of all slots at once.
    BeforeCell = BEFORE_CELL,
    /// The gates of the state and the cell, walking through the slots.
    Recurrence = RECURRENCE,
    /// The head, of all slots at once.
    Head = HEAD,
}

impl Phase {
    /// The phases that together are the whole, in the order of the forward pass.
    const IN_ORDER: [Self; 3] = [Self::BeforeCell, Self::Recurrence, Self::Head];

    /// The phases that these networks take one after the other in chunks of several slots; none if one kernel does everything.
    pub(crate) fn of(shape: &Shape, kernel_config: &KernelConfig) -> impl DoubleEndedIterator<Item = Self> {
        let apart = shape.chunk > 1 && kernel_config.streams();
        Self::IN_ORDER.into_iter().filter(move |_| apart)
    }

    /// The variant for this phase.
    pub(super) fn variant(self, shape: &Shape, kernel_config: &KernelConfig) -> Variant {
        let variant = kernel_config.stack(shape);
        if shape.recurrent() && kernel_config.streams() {
            variant.with("PHASE", self as u32)
        } else {
            variant
        }
    }

    /// Workgroups for a batch and `stacks` stacks: one per block of rows, or an invocation per quad of rows; where a GRU walks, per
    /// quad of sequences.
    pub(super) fn groups(self, kernel_config: &KernelConfig, batch: &Batch, stacks: u32) -> [u32; 3] {
        let per_slot = batch.agents * batch.quads;
        let walks = matches!(self, Self::Whole | Self::Recurrence);
        let sequences = match batch.recurrent.length {
            length if walks && length > 1 => (batch.rows / per_slot.max(1)).div_ceil(length) * per_slot,
            _ => batch.rows,
        };
        [sequences.div_ceil(kernel_config.quads_of_group()), stacks, 1]
    }
}

/// Compiles the kernel of a phase.
///
/// # Errors
/// As [`Kernel::new`].
pub(crate) fn kernel(gpu: &Gpu, shape: &Shape, kernel_config: &KernelConfig, phase: Phase) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Uniform, Write};
    let mut access = match kernel_config.blocks {
        Some(_) => block::forward::ACCESS.to_vec(),
        None => vec![DynamicUniform, Uniform, kernel_config.weights(), Read, Write, Write, Read, Write],
    };
    if shape.recurrent() {
        access.push(Write);
    }
    let variant = phase.variant(shape, kernel_config);
    Kernel::trusted(gpu, &shader(kernel_config), variant, &access, size_of::<Batch>())
}

/// The kernels of the pass with their buffers.
#[derive(Clone, Debug)]
pub struct Pass {
    whole: (Kernel, BindGroup),
    phases: Vec<(Phase, (Kernel, BindGroup))>,
    stride: u32,
    kernel_config: KernelConfig,
}

impl Pass {
    /// The dispatches of the batch with number `index` in the table, over the first `stacks` of its stacks. One, or three where the
    /// slots of a GRU's chunks are processed at once as far as that is possible.
    pub fn commands(&self, index: u32, batch: &Batch, stacks: u32) -> Vec<Command> {
        let at = |phase: Phase, (kernel, group): &(Kernel, BindGroup)| {
            let grid = phase.groups(&self.kernel_config, batch, stacks);
            Command::dispatch_at(kernel, group, index, self.stride, grid)
        };
        if self.phases.is_empty() || batch.recurrent.length <= 1 {
            return vec![at(Phase::Whole, &self.whole)];
        }
        self.phases.iter().map(|(phase, bound)| at(*phase, bound)).collect()
    }
}

/// Buffers of the kernels.
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

fn bind(gpu: &Gpu, kernel: &Kernel, buffers: Buffers<'_>) -> Result<BindGroup> {
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
