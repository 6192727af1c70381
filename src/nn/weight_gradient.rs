//! Gradients with respect to all matrices and biases of all networks, in one dispatch, as if LayerNorms had no gain and
//! offset ([`super::reduce`] puts them back).
//!
//! Matrix: `N[i][o]` = sum over rows of `n[i] dz[o]` with the normalised input n. Bias: sum of dz. The rows are cut into
//! splits; [`super::reduce`] adds the splits. A micro-batch that does not start its minibatch adds to them ([`Batch::starts_sum`]).
//!
//! Four kernels with the same bindings compute it: [`stream::weight_gradient`] on GPUs, [`stream::weight_gradient_cooperative`] on matrix
//! units, [`tile::weight_gradient_subgroup`] on llvmpipe, [`tile::weight_gradient`] elsewhere. [`shader`] selects one of them; their
//! common part is `shaders/lib/weight_gradient.wgsl`.

use super::kernel_config::KernelConfig;
use super::layout::{Batch, Layout};
use super::{stream, tile};
use crate::Result;
use crate::gpu::{Access, BindGroup, GROUPS_IN_A_ROW, Gpu, Kernel, Shader, Variant, in_rows};
use crate::shaders::constants::weight_tile::{BIAS, NONE, OBSERVED};

/// The source of the kernel that this configuration takes.
#[must_use]
pub fn shader(kernel_config: &KernelConfig) -> Shader {
    if kernel_config.cooperative.is_some() {
        stream::weight_gradient_cooperative::SHADER
    } else if kernel_config.stream.is_some() {
        stream::weight_gradient::SHADER
    } else if kernel_config.subgroup_broadcast {
        tile::weight_gradient_subgroup::SHADER
    } else {
        tile::weight_gradient::SHADER
    }
}

/// One tile of one tensor. Counterpart of `Tile` in `shaders/lib/weight_gradient.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Tile {
    /// 0: a matrix with activations as input, 1: one whose input is the stack's, 2: a bias alone.
    pub kind: u32,
    /// First row of the left factor: of the activation buffer, or feature of the stack's input.
    pub left: u32,
    /// Row of the gradient buffer.
    pub right: u32,
    /// Row of the LayerNorm's mean; `u32::MAX` without LayerNorm.
    pub layer_norm_stats: u32,
    /// First vec4 of the result in the parameter buffer.
    pub output: u32,
    /// vec4s from one row of the result to the next.
    pub stride: u32,
    /// Rows of the result, 1 to the side of the tiles: 32, or 64.
    pub inputs: u32,
    /// Columns of the result, with the same maximum.
    pub outputs: u32,
    /// First agent whose rows are summed.
    pub first_agent: u32,
    /// Agents whose rows are summed.
    pub agents: u32,
    /// The stack's input, as in [`super::layout::NetworkStack`].
    pub input_kind: u32,
    /// First vec4 of the bias in the parameter buffer; `u32::MAX` where another tile sums it.
    pub bias: u32,
}

/// The splits of the rows. Counterpart of `Split` in `shaders/lib/weight_gradient.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Split {
    /// Number of splits.
    pub count: u32,
    /// vec4s from one split's parameters to the next.
    pub stride: u32,
    /// Number of tiles.
    pub tiles: u32,
    /// Fills up to 16 bytes.
    pub pad: u32,
}

/// The variant for this configuration. Except with subgroups the tile decides the workgroup size.
#[must_use]
pub fn variant(kernel_config: &KernelConfig) -> Variant {
    let [workgroup, side] = kernel_config.weight_tile();
    let variant = Variant { workgroup, ..kernel_config.variant(None).with("GROUPS", GROUPS_IN_A_ROW) };
    if kernel_config.stream.is_some() { variant.with("SIDE", side) } else { variant }
}

/// Number of splits of `quads` quads of rows for `tiles` tiles: enough workgroups for a GPU even if the networks are small, but at
/// least 64 quads a split. A software adapter has enough work in the tiles alone; there splits only keep loops below its limit.
#[must_use]
pub fn splits(kernel_config: &KernelConfig, tiles: u32, quads: u64) -> u32 {
    let wanted = 2048u32.div_ceil(tiles.max(1)).min(kernel_config.splits).max(1);
    let room = quads.div_ceil(64).min(u64::from(wanted)) as u32;
    room.max(quads.div_ceil(40_000) as u32)
}

/// Every tile of every tensor of every network.
#[must_use]
pub fn tiles(layout: &Layout, kernel_config: &KernelConfig) -> Vec<Tile> {
    let [_, width] = kernel_config.weight_tile();
    let mut tiles = Vec::new();
    for net in &layout.nets {
        let stack = &layout.stacks[net.stack];
        let (first_agent, agents) = net.agent.map_or((0, layout.shape.agents), |agent| (agent, 1));
        for l in 0..stack.layers as usize {
            let layer = stack.layer[l];
            let layer_norm_stats = if layer.norm == 1 { layer.layer_norm_stats } else { NONE };
            let base = Tile {
                layer_norm_stats,
                first_agent,
                agents,
                stride: layer.stride,
                bias: NONE,
                ..Tile::default()
            };
            let own_bias = l == 0 && stack.agent_bias == 1;
            for output in (0..layer.outputs).step_by(width as usize) {
                let outputs = (layer.outputs - output).min(width);
                let right = layer.grad + output;
                let bias = net.first + layer.bias + output / 4;
                for input in (0..layer.inputs).step_by(width as usize) {
                    let first = if l == 0 { 0 } else { layer.input };
                    tiles.push(Tile {
                        kind: if l == 0 { OBSERVED } else { 0 },
                        input_kind: stack.input_kind,
                        left: first + input,
                        right,
                        output: net.first + layer.weights + input * layer.stride + output / 4,
                        inputs: (layer.inputs - input).min(width),
                        outputs,
                        bias: if input == 0 && !own_bias { bias } else { NONE },
                        ..base
                    });
                }
                if own_bias {
                    for agent in 0..layout.shape.agents {
                        tiles.push(Tile {
                            kind: BIAS,
                            layer_norm_stats: NONE,
                            right,
                            outputs,
                            first_agent: agent,
                            agents: 1,
                            bias: bias + agent * layer.stride,
                            ..base
                        });
                    }
                }
            }
        }
    }
    tiles
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, kernel_config: &KernelConfig) -> Result<Kernel> {
    compile(gpu, kernel_config, variant(kernel_config))
}

fn compile(gpu: &Gpu, kernel_config: &KernelConfig, variant: Variant) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Uniform, Write};
    let access = [DynamicUniform, Uniform, Read, Read, Read, Read, Read, Read, Write];
    Kernel::trusted(gpu, &shader(kernel_config), variant, &access, size_of::<Batch>())
}

/// The kernel for dispatches of `row` workgroups in x, because a real row takes long on a software rasteriser.
#[cfg(test)]
pub(super) fn kernel_with_rows_of(gpu: &Gpu, kernel_config: &KernelConfig, row: u32) -> Kernel {
    let mut variant = variant(kernel_config);
    variant.constants.retain(|(name, _)| *name != "GROUPS");
    compile(gpu, kernel_config, variant.with("GROUPS", row)).unwrap()
}

/// Workgroups: tiles in x and y, splits in z.
#[must_use]
pub fn groups(tiles: u32, splits: u32) -> [u32; 3] {
    let [x, y] = in_rows(tiles);
    [x, y, splits]
}

/// Buffers of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Table of [`Batch`].
    pub batches: &'a wgpu::Buffer,
    /// One [`Split`].
    pub split: &'a wgpu::Buffer,
    /// All [`Tile`]s.
    pub tiles: &'a wgpu::Buffer,
    /// Observations.
    pub observations: &'a wgpu::Buffer,
    /// Activations.
    pub acts: &'a wgpu::Buffer,
    /// Means and inverse deviations of the LayerNorms.
    pub layer_norm_stats: &'a wgpu::Buffer,
    /// Gradients of the matrix products.
    pub grads: &'a wgpu::Buffer,
    /// As the forward pass has it, for the order of shuffled minibatches.
    pub dones_and_masks: &'a wgpu::Buffer,
    /// Result: `[split][parameter]`.
    pub partials: &'a wgpu::Buffer,
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: Buffers<'_>) -> Result<BindGroup> {
    let Buffers {
        batches,
        split,
        tiles,
        observations,
        acts,
        layer_norm_stats,
        grads,
        dones_and_masks,
        partials,
    } = buffers;
    let all = [batches, split, tiles, observations, acts, layer_norm_stats, dones_and_masks, grads, partials];
    kernel.bind(gpu, &all)
}
