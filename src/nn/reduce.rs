//! The gradients of the parameters, from the partial sums of [`super::weight_gradient`] or [`crate::ppo::gradient`] over all rows of a
//! minibatch, and the sums of their squares.
//!
//! Partial sums are gradients of the folded weights ([`super::fold`]). With `N[k][c]` the sum over the rows of normalised input k
//! times gradient c, and `d[c]` that of the gradient alone:
//! `dW[k][c] = g[k] N[k][c] + o[k] d[c]`, `dg[k] = sum over c of W[k][c] N[k][c]`, `do[k] = sum over c of W[k][c] d[c]`, `db = d`.
//! So no kernel sums over the rows for the LayerNorms, and the gradient of what enters a matrix is never stored.
//!
//! A workgroup takes a [`RowTile`], some rows of one matrix or bias, and adds in a fixed order.

use super::layout::{Layout, NetworkSlice};
use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Command, GROUPS_IN_A_ROW, Gpu, Kernel, Shader, Variant, in_rows};
use crate::shaders::constants::row_tile::{MOST_ROWS, NONE};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/reduce");

/// Counterpart of `Reduce` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Reduce {
    /// vec4s of the parameter buffer.
    pub length: u32,
    /// Partial sums.
    pub partial_sums: u32,
    /// Row tiles.
    pub tiles: u32,
    /// Index of the first tile's sum of squares.
    pub squares: u32,
}

/// Rows of a matrix, or of a bias. Counterpart of `RowTile` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct RowTile {
    /// First vec4 in the parameter buffer.
    pub first: u32,
    /// vec4s from one row to the next.
    pub stride: u32,
    /// vec4s of a row that hold parameters.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
    /// Columns with trained weights; those after them consist of their bias alone.
    pub learnt: u32,
    /// First vec4 of the rows' gains of the LayerNorm before the matrix; `u32::MAX` without one.
    pub gain: u32,
    /// First vec4 of the rows' offsets.
    pub offset: u32,
    /// First vec4 of the layer's bias.
    pub bias: u32,
    /// Rows of the bias.
    pub biases: u32,
}

impl RowTile {
    /// Rows of parameters that are summed as they are.
    #[must_use]
    pub const fn plain(first: u32, stride: u32, columns: u32, rows: u32) -> Self {
        Self { first, stride, columns, rows, learnt: u32::MAX, gain: NONE, offset: 0, bias: 0, biases: 0 }
    }
}

/// Fewest rows of a tile of a matrix that is not smaller: gains come four in a vec4, and many workgroups keep a GPU busy.
const LEAST_ROWS: u32 = 4;

/// Every tile of every network, in the networks' order. A tile adds the layer's bias again, unless there is no LayerNorm, so it has no
/// fewer rows than the bias.
#[must_use]
pub fn tiles(layout: &Layout) -> Vec<RowTile> {
    layout.nets.iter().flat_map(|net| tiles_of(layout, net)).collect()
}

/// The tiles of one network.
pub(super) fn tiles_of(layout: &Layout, net: &NetworkSlice) -> Vec<RowTile> {
    let stack = &layout.stacks[net.stack];
    let mut tiles = Vec::new();
    for (l, layer) in stack.layer[..stack.layers as usize].iter().enumerate() {
        let biases = if l == 0 && stack.agent_bias == 1 { layout.shape.agents } else { 1 };
        let columns = layer.outputs.div_ceil(4);
        let bias = net.first + layer.bias;
        let again = if layer.norm == 1 { biases } else { 1 };
        let rows = again.next_multiple_of(LEAST_ROWS).min(MOST_ROWS);
        tiles.extend((0..layer.inputs).step_by(rows as usize).map(|k| {
            let normed = |first: u32| if layer.norm == 1 { net.first + first + k / 4 } else { NONE };
            RowTile {
                learnt: layer.learnt,
                gain: normed(layer.gain),
                offset: normed(layer.offset),
                bias,
                biases,
                ..RowTile::plain(
                    net.first + layer.weights + k * layer.stride,
                    layer.stride,
                    columns,
                    rows.min(layer.inputs - k),
                )
            }
        }));
        tiles.extend((0..biases).step_by(LEAST_ROWS as usize).map(|row| {
            RowTile::plain(bias + row * layer.stride, layer.stride, columns, LEAST_ROWS.min(biases - row))
        }));
    }
    tiles
}

/// The variant for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    let [workgroup, columns, rows] = match class {
        Class::Hardware => [256, 16, 4],
        Class::Software => [8, 8, 1],
    };
    Variant::new(workgroup).with("GROUPS", GROUPS_IN_A_ROW).with("COLUMNS", columns).with("ROWS", rows)
}

/// Most loop iterations of one invocation on a software adapter.
#[must_use]
pub fn loop_iterations(layout: &Layout, partial_sums: u32) -> u64 {
    let sum = u64::from(partial_sums / 8 + partial_sums % 8);
    let of_tile = |tile: &RowTile| {
        let bias = if tile.gain == NONE { 0 } else { u64::from(tile.biases) * (1 + sum) };
        u64::from(tile.columns.div_ceil(8)) * (1 + bias + u64::from(tile.rows) * (9 + sum))
    };
    tiles(layout).iter().map(of_tile).max().unwrap_or(0)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    let access = [Uniform, Read, Read, Read, Write, Write];
    Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &access, 0)
}

/// Workgroups: tiles in x and y.
#[must_use]
pub fn groups(tiles: u32) -> [u32; 3] {
    let [x, y] = in_rows(tiles);
    [x, y, 1]
}

/// Buffers of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// All [`RowTile`]s.
    pub tiles: &'a wgpu::Buffer,
    /// Master weights.
    pub params: &'a wgpu::Buffer,
    /// `[partial sum][parameter]`.
    pub partials: &'a wgpu::Buffer,
    /// Result, in the layout of the parameters.
    pub gradient: &'a wgpu::Buffer,
    /// Sums of squares, f32, from index [`Reduce::squares`] on.
    pub step: &'a wgpu::Buffer,
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, reduce: &Reduce, buffers: Buffers<'_>) -> Result<BindGroup> {
    let uniform = gpu.uniform("reduce", reduce)?;
    let Buffers { tiles, params, partials, gradient, step } = buffers;
    kernel.bind(gpu, &[&uniform, tiles, params, partials, gradient, step])
}

/// The whole sum over `partial_sums` partial sums of the networks of `layout`.
///
/// # Errors
/// As [`Kernel::new`] and [`Kernel::bind`].
pub fn command(
    gpu: &Gpu,
    layout: &Layout,
    partial_sums: u32,
    squares: u32,
    [params, partials, gradient, step]: [&wgpu::Buffer; 4],
) -> Result<Command> {
    let tiles = tiles(layout);
    let count = tiles.len() as u32;
    let kernel = kernel(gpu)?;
    let reduce = Reduce { length: layout.params, partial_sums, tiles: count, squares };
    let tiles = &gpu.upload("row tiles", &tiles)?;
    let group = bind(gpu, &kernel, &reduce, Buffers { tiles, params, partials, gradient, step })?;
    Ok(Command::dispatch(&kernel, &group, groups(count)))
}

#[cfg(test)]
#[path = "reduce_tests.rs"]
mod tests;
