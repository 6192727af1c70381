//! Working weights from master weights: `W'[k][c] = g[k] W[k][c]` and `b'[c] = b[c] + sum over k of o[k] W[k][c]`, with the
//! gain g and the offset o of the LayerNorm before the matrix, so that the other kernels know nothing of them; W'
//! transposed for the backward pass; rounded to the storage's precision.

use super::kernel_config::KernelConfig;
use super::layout::Layout;
use super::precision::Precision;
use super::shape::MAX_LAYERS;
use crate::Result;
use crate::gpu::{Access, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/fold");

/// One network. Counterpart of `NetworkSlice` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct NetworkSlice {
    /// First vec4 of its parameters.
    pub params: u32,
    /// First vec4 of its working weights.
    pub working: u32,
    /// 0: actor, 1: critic.
    pub stack: u32,
    /// Rows of the first layer's bias.
    pub biases: u32,
}

/// The networks of a layout.
#[must_use]
pub fn nets(layout: &Layout) -> Vec<NetworkSlice> {
    let biases = |stack: usize| if layout.stacks[stack].agent_bias == 1 { layout.shape.agents } else { 1 };
    let net = |net: &super::NetworkSlice| NetworkSlice {
        params: net.first,
        working: net.working,
        stack: net.stack as u32,
        biases: biases(net.stack),
    };
    layout.nets.iter().map(net).collect()
}

/// The variant for these kernel_config.
#[must_use]
pub fn variant(class: Class, kernel_config: &KernelConfig) -> Variant {
    let variant = Variant::wide(class).with("TILE", kernel_config.block());
    let texture = kernel_config.texture();
    let rounded = kernel_config.storage.precision() == Precision::F16;
    let variant = variant.when("texture", texture).when("rounded", texture && rounded);
    if texture { variant } else { kernel_config.storage.apply(variant) }
}

/// Compiles the kernel. It reads stacks, networks and parameters, and writes the working weights.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, kernel_config: &KernelConfig) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::trusted(gpu, &SHADER, variant(gpu.class(), kernel_config), &[Uniform, Read, Read, Write], 0)
}

/// Workgroups: vec4s of the largest layer in x and y, layers of networks in z.
#[must_use]
pub fn groups(variant: &Variant, layout: &Layout) -> [u32; 3] {
    let layers = layout.stacks.iter().flat_map(|stack| &stack.layer);
    let largest = layers.map(|layer| {
        let biases = layer.stride * layout.shape.agents;
        (layer.inputs * layer.stride).max(layer.outputs * layer.transposed_stride).max(biases)
    });
    let [x, y] = variant.rows(largest.max().unwrap_or(0));
    [x, y, layout.nets.len() as u32 * MAX_LAYERS as u32]
}
