//! Working weights from master weights: `W'[k][c] = g[k] W[k][c]` and `b'[c] = b[c] + sum over k of o[k] W[k][c]`, with the
//! gain g and the offset o of the LayerNorm before the matrix, so that the other kernels know nothing of them; W'
//! transposed for the backward pass; rounded to the storage's precision.

use super::kernel_config::KernelConfig;
use super::layout::Layout;
use super::precision::Precision;
use super::reduce;
use super::shape::MAX_LAYERS;
use crate::Result;
use crate::gpu::{Access, Class, GROUPS_IN_A_ROW, Gpu, Kernel, Shader, Variant, in_rows};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/fold");

/// One network. Counterpart of `NetworkSlice` in `shaders/lib/network.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct NetworkSlice {
    /// First vec4 of its parameters.
    pub params: u32,
    /// vec4s of its parameters.
    pub length: u32,
    /// First vec4 of its working weights.
    pub working: u32,
    /// 0: actor, 1: critic.
    pub stack: u32,
    /// Rows of the first layer's bias.
    pub biases: u32,
    /// The agent it belongs to, from 1; 0: shared by all agents.
    pub agent: u32,
    /// Number of its first tile of [`reduce`].
    pub first_tile: u32,
    /// Number of its tiles.
    pub tiles: u32,
}

/// The networks of a layout.
#[must_use]
pub fn nets(layout: &Layout) -> Vec<NetworkSlice> {
    let biases = |stack: usize| if layout.stacks[stack].agent_bias == 1 { layout.shape.agents } else { 1 };
    let mut first_tile = 0;
    let net = |net: &super::NetworkSlice| {
        let tiles = reduce::tiles_of(layout, net).len() as u32;
        first_tile += tiles;
        NetworkSlice {
            params: net.first,
            length: net.length,
            working: net.working,
            stack: net.stack as u32,
            biases: biases(net.stack),
            agent: net.agent.map_or(0, |agent| agent + 1),
            first_tile: first_tile - tiles,
            tiles,
        }
    };
    layout.nets.iter().map(net).collect()
}

/// Columns, in vec4s, whose biases one workgroup folds.
fn columns(class: Class) -> u32 {
    match class {
        Class::Hardware => 16,
        Class::Software => 8,
    }
}

/// The variant for these kernel_config.
#[must_use]
pub fn variant(class: Class, kernel_config: &KernelConfig) -> Variant {
    let variant = Variant::reducing(class)
        .with("TILE", kernel_config.block())
        .with("GROUPS", GROUPS_IN_A_ROW)
        .with("COLUMNS", columns(class));
    let texture = kernel_config.texture();
    let rounded = kernel_config.storage.precision() == Precision::F16;
    let variant = variant.when("texture", texture).when("rounded", texture && rounded);
    if texture { variant } else { kernel_config.storage.apply(variant) }
}

/// Bindings of stacks, networks, parameters and working weights, which the kernel writes.
pub(crate) const ACCESS: [(u32, Access); 4] =
    [(4, Access::Uniform), (5, Access::Read), (6, Access::Read), (7, Access::Write)];

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, kernel_config: &KernelConfig) -> Result<Kernel> {
    Kernel::trusted_at(gpu, &SHADER, variant(gpu.class(), kernel_config), &ACCESS, 0)
}

/// Workgroups: parts of the largest layer in x and y, layers of networks in z.
#[must_use]
pub fn groups(class: Class, layout: &Layout) -> [u32; 3] {
    let layers = layout.stacks.iter().flat_map(|stack| &stack.layer);
    let parts = layers.map(|layer| {
        let matrix = (layer.inputs.div_ceil(4) * layer.stride).div_ceil(Variant::reducing(class).workgroup);
        matrix.max(layer.stride.div_ceil(columns(class)))
    });
    let [x, y] = in_rows(parts.max().unwrap_or(0));
    [x, y, layout.nets.len() as u32 * MAX_LAYERS as u32]
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::{Shape, Sharing, Storage, WorkingWeights};
    use super::*;
    use crate::gpu::{Arena, Recorder};
    use crate::random::Stream;

    /// Working weights as f32s, after a first refresh from other parameters.
    fn folded(gpu: &Gpu, layout: &Layout, config: &KernelConfig, params: &[f32]) -> Vec<f32> {
        let stacks = super::super::forward::upload_stacks(gpu, &layout.stacks).unwrap();
        let arena = Arena::allocate(gpu, &WorkingWeights::plan(layout, config)).unwrap();
        let working = arena.get("working weights").unwrap();
        let mut other = params.to_vec();
        other.iter_mut().for_each(|x| *x *= -3.0);
        let buffer = gpu.upload("params", &other).unwrap();
        let weights = WorkingWeights::new(gpu, layout, config, &stacks, &buffer, working).unwrap();
        let mut recorder = Recorder::new(gpu);
        recorder.run(weights.refresh()).unwrap();
        gpu.write(&buffer, 0, bytemuck::cast_slice(params)).unwrap();
        recorder.run(weights.refresh()).unwrap();
        if config.texture() || config.storage == Storage::F32 {
            return gpu.read(working).unwrap();
        }
        gpu.read::<u16>(working).unwrap().into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect()
    }

    /// Of odd sizes, with several networks, a bias for each of many agents, and layers wider than the columns of a workgroup.
    #[test]
    fn working_weights_are_those_of_f64() {
        let shape = Shape { agents: 3, obs_dim: 7, actions: 5, hidden: vec![70, 33], ..Shape::default() };
        let shapes = [
            Shape { agents: 21, hidden: vec![9], ..shape.clone() },
            Shape { sharing: Sharing::Separate, hidden_norm: false, ..shape },
        ];
        for gpu in crate::nn::testing::both_classes() {
            let configs = [Storage::F32, Storage::Packed].map(|it| KernelConfig::plain(gpu.class(), it));
            let texture = KernelConfig::subgroup_broadcast(Storage::Packed);
            let software = gpu.class() == Class::Software;
            for config in configs.into_iter().chain(software.then_some(texture)) {
                for shape in &shapes {
                    compare(&gpu, &Layout::new(shape).unwrap(), &config);
                }
            }
        }
    }

    fn compare(gpu: &Gpu, layout: &Layout, config: &KernelConfig) {
        let mut stream = Stream::new(8, 1);
        let mut params = vec![0f32; layout.params as usize * 4];
        for tensor in &layout.tensors {
            for row in 0..tensor.shape[0] {
                let start = tensor.first + row * tensor.stride;
                params[start..start + tensor.shape[1]].fill_with(|| stream.normal() as f32);
            }
        }
        let got = folded(gpu, layout, config, &params);
        let tolerance = if config.storage.precision() == Precision::F16 { 1e-3 } else { 2e-6 };
        let near = |what: &str, place: u32, expected: f64| {
            let found = f64::from(got[place as usize]);
            assert!(
                (found - expected).abs() <= tolerance * expected.abs().max(4.0),
                "{what}: {found} for {expected}"
            );
        };
        for (net, own) in nets(layout).iter().zip(&layout.nets) {
            let stack = &layout.stacks[own.stack];
            for (l, layer) in stack.layer[..stack.layers as usize].iter().enumerate() {
                let param = |offset: u32, row: u32, c: u32| {
                    f64::from(params[(4 * (net.params + offset + row * layer.stride) + c) as usize])
                };
                let norm = |offset: u32, k: u32, without: f64| {
                    if layer.norm == 1 { param(offset, 0, k) } else { without }
                };
                for c in 0..layer.outputs {
                    let mut carried = 0.0;
                    for k in 0..layer.inputs {
                        let w = param(layer.weights, k, c);
                        carried += norm(layer.offset, k, 0.0) * w;
                        let w = w * norm(layer.gain, k, 1.0);
                        near("weight", 4 * (net.working + layer.weights + k * layer.stride) + c, w);
                        if l > 0 {
                            let row = net.working + layer.transposed + c * layer.transposed_stride;
                            near("transposed", 4 * row + k, w);
                        }
                    }
                    for row in 0..if l == 0 { net.biases } else { 1 } {
                        let place = 4 * (net.working + layer.bias + row * layer.stride) + c;
                        near("bias", place, param(layer.bias, row, c) + carried);
                    }
                }
            }
        }
    }
}
