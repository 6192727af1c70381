//! Blocks of rows that kernels keep in workgroup memory: their sizes (plain data), and the kernels.

pub mod backward;
pub mod forward;

use serde::{Deserialize, Serialize};

use super::layout::{Layout, NetworkStack};
use crate::gpu::{GROUPS_IN_A_ROW, Variant};

/// Inputs whose weights are staged at a time: `DEPTH` in `shaders/lib/block.wgsl`.
const DEPTH: u32 = 16;

/// Most bytes of workgroup memory that a block takes, so that two workgroups fit on a GPU's processor.
const MOST_MEMORY: u32 = 32 << 10;

/// Most workgroups a stack that sum gradients: about two for each of 132 processors.
const MOST_GROUPS: u32 = 256;

/// Fewest of them: with fewer, a GPU would idle, and the kernels without blocks are better.
const FEWEST_GROUPS: u64 = 64;

/// Most bytes of their partial sums, each of which is as large as the parameters.
const MOST_SUMS: u64 = 64 << 20;

/// Most multiply-adds of one dispatch over blocks. Windows resets a device whose dispatch takes 2 s. The slowest GPUs in use, integrated
/// ones with 24 execution units of 2015, have a peak of 200 billion multiply-adds a second; at a quarter of it this many take 0.7 s.
pub(crate) const MOST_MULTIPLY_ADDS: u64 = 1 << 35;

/// A block of rows, owned by one workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocks {
    /// Quads of rows of a block, a power of two.
    pub quads: u32,
    /// Most outputs of a layer: 64 or 128. Where layers pass through workgroup memory part by part: outputs of a part.
    pub width: u32,
    /// Most workgroups a stack that sum gradients, each with a partial sum of its own; without effect where layers pass in parts.
    pub groups: u32,
}

impl Blocks {
    /// Every size of blocks, the largest first.
    pub(super) const ALL: [Self; 4] =
        [Self::sized(16, 64), Self::sized(8, 64), Self::sized(8, 128), Self::sized(4, 128)];

    /// Blocks of `quads` quads of rows by `width` outputs.
    pub(crate) const fn sized(quads: u32, width: u32) -> Self {
        Self { quads, width, groups: MOST_GROUPS }
    }

    /// The sizes of blocks that these networks fit in with `memory` bytes of workgroup memory, the largest first. None for layers of more
    /// than 128 outputs, whose activations do not fit, for networks with a GRU, and for so many parameters that the partial
    /// sums of their gradients would take much memory.
    pub(super) fn for_layout(layout: &Layout, memory: u32) -> impl Iterator<Item = Self> {
        let affordable = MOST_SUMS / (u64::from(layout.params) * 16);
        let groups = affordable.min(MOST_GROUPS.into()) as u32;
        Self::within(memory)
            .filter(move |_| affordable >= FEWEST_GROUPS)
            .filter(move |blocks| blocks.fit(layout))
            .map(move |blocks| Self { groups, ..blocks })
    }

    /// The sizes of blocks that take no more than `memory` bytes of workgroup memory, the largest first.
    pub(super) fn within(memory: u32) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |blocks| blocks.memory() <= memory.min(MOST_MEMORY))
    }

    /// Iterations of the loops of one invocation that multiplies `inputs` by `outputs` part by part: four inputs each, and those that
    /// stage and store.
    pub(super) fn iterations(self, inputs: u32, outputs: u32) -> u64 {
        let share = self.workgroup() / self.quads;
        let parts = |count: u32| u64::from(count.div_ceil(self.width));
        let staged = parts(inputs) * u64::from(self.width.div_ceil(share));
        let multiplied = u64::from(inputs.div_ceil(4) + inputs.div_ceil(DEPTH));
        parts(outputs) * (staged + multiplied + 1) + 3 * u64::from(inputs.div_ceil(share))
    }

    /// Whether the activations of these networks fit.
    #[must_use]
    pub(crate) fn fit(self, layout: &Layout) -> bool {
        let widest = |stack: &NetworkStack| stack.layer.iter().map(|layer| layer.outputs).max();
        !layout.shape.recurrent()
            && layout.stacks.iter().filter_map(widest).all(|widest| widest <= self.width)
    }

    /// Whether a slot of `quads` quads of rows takes no more workgroups than one dimension accepts.
    pub(super) fn launch(self, quads: u64) -> bool {
        quads.div_ceil(u64::from(self.quads)) <= u64::from(GROUPS_IN_A_ROW)
    }

    /// Partial sums of the gradient of `quads` quads of rows: the workgroups of [`crate::ppo::gradient`] for each stack.
    #[must_use]
    pub(crate) fn partial_sums(self, quads: u64) -> u32 {
        quads.div_ceil(u64::from(self.quads)).min(self.groups.into()) as u32
    }

    /// Bytes of workgroup memory: features of a block, and staged weights.
    #[must_use]
    pub fn memory(self) -> u32 {
        16 * self.width * self.quads + 4 * DEPTH * self.width
    }

    /// Invocations of a workgroup: each computes two quads of rows by four columns.
    #[must_use]
    pub fn workgroup(self) -> u32 {
        self.quads / 2 * (self.width / 4)
    }

    /// The workgroup size and the constants of the kernels.
    pub(super) fn variant(self) -> Variant {
        Variant::new(self.workgroup()).with("QUADS", self.quads).with("WIDTH", self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Layer;
    use super::super::synthetic_pass::{SyntheticPass, agree};
    use super::super::{Activation, KernelConfig, Shape, Storage};
    use super::*;
    use crate::gpu::Class;

    /// `WebGPU` guarantees 16 KiB of workgroup memory and 256 invocations a workgroup.
    #[test]
    fn networks_take_the_largest_blocks_that_fit() {
        let blocks = |hidden: &[u32], memory| {
            let shape =
                Shape { agents: 4, obs_dim: 18, actions: 3, hidden: hidden.to_vec(), ..Shape::default() };
            Blocks::for_layout(&Layout::new(&shape).unwrap(), memory).next()
        };
        for (hidden, memory, quads, width) in [
            (&[64, 64][..], 32 << 10, 16, 64),
            (&[64, 64], 16 << 10, 8, 64),
            (&[128], 1 << 20, 8, 128),
            (&[128, 20], 16 << 10, 4, 128),
            (&[30], 16 << 10, 8, 64),
        ] {
            assert_eq!(
                blocks(hidden, memory),
                Some(Blocks::sized(quads, width)),
                "{hidden:?} in {memory} bytes"
            );
        }
        assert_eq!(blocks(&[129], 1 << 20), None);
        assert_eq!(blocks(&[64], 1 << 10), None);
        for blocks in Blocks::ALL {
            // The parts of a quad's sums, and the inputs for the gradients of weights, take the memory of the staged weights.
            assert!(blocks.workgroup() <= 256.min(DEPTH * blocks.width / 4));
            assert_eq!(DEPTH * blocks.width / 4 % blocks.workgroup(), 0);
            assert!(64 % blocks.quads == 0 && blocks.workgroup().is_multiple_of(blocks.quads));
        }
    }

    /// The loop over four inputs, of which 32 multiply-adds of an invocation each: the longest chain of a step of acting.
    #[test]
    fn two_layers_of_512_take_1192_iterations() {
        let shape = Shape { obs_dim: 18, actions: 3, hidden: vec![512, 512], ..Shape::default() };
        let layout = Layout::new(&shape).unwrap();
        let gpu = crate::testing::unchecked_gpu().with_class(Class::Hardware);
        let chosen = KernelConfig::new(&gpu, super::super::Precision::F32, &layout, 256).unwrap();
        let blocks = chosen.stream.unwrap();
        let actor = &layout.stacks[0].layer[..3];
        let products = |layer: &Layer| layer.outputs.div_ceil(blocks.width) * layer.inputs.div_ceil(4);
        let iterations: u32 = actor.iter().map(products).sum();
        assert_eq!(iterations, 1192);
        // The bound that software adapters are held to counts all loops.
        let all: u64 = actor.iter().map(|layer| blocks.iterations(layer.inputs, layer.outputs)).sum();
        assert!(all > u64::from(iterations) && all < 4 * u64::from(iterations), "{all}");
    }

    #[test]
    fn networks_with_a_gru_are_left_to_the_other_kernels() {
        let shape = Shape { obs_dim: 8, actions: 3, hidden: vec![32], chunk: 4, ..Shape::default() };
        assert_eq!(Blocks::for_layout(&Layout::new(&shape).unwrap(), 1 << 20).next(), None);
    }

    /// A network for each of many agents has so many parameters that 256 partial sums would take gigabytes.
    #[test]
    fn partial_sums_take_bounded_memory() {
        let mut seen = Vec::new();
        for agents in [1, 2, 4, 8, 16, 30] {
            let shape = Shape {
                agents,
                obs_dim: 34,
                actions: 3,
                hidden: vec![128, 128],
                sharing: super::super::Sharing::Separate,
                ..Shape::default()
            };
            let layout = Layout::new(&shape).unwrap();
            let found = Blocks::for_layout(&layout, 1 << 20).next();
            if let Some(blocks) = found {
                let bytes = u64::from(layout.params) * 16 * u64::from(blocks.partial_sums(1 << 20));
                assert!(bytes <= MOST_SUMS && blocks.groups >= 64, "{agents}: {bytes}");
            }
            seen.push(found.map(|blocks| blocks.groups));
        }
        assert_eq!((seen[0], seen[5]), (Some(256), None));
        assert!(seen.iter().flatten().any(|groups| *groups < 256), "{seen:?}");
    }

    /// Every size of blocks, with more inputs than fit in the workgroup's memory, layers as wide as the blocks, and a last block that is
    /// not full. The activation is tanh: at the kink of ReLU, rounding alone changes gradients by much.
    #[test]
    fn blocks_multiply_as_register_tiles_do() {
        let gpu = crate::testing::unchecked_gpu().with_class(Class::Hardware);
        let plain = KernelConfig::plain(gpu.class(), Storage::F32);
        for blocks in Blocks::ALL {
            let shape = Shape {
                agents: 3,
                obs_dim: 67,
                actions: 5,
                hidden: vec![blocks.width, blocks.width - 5],
                activation: Activation::Tanh,
                ..Shape::default()
            };
            let layout = Layout::new(&shape).unwrap();
            let in_blocks = KernelConfig { blocks: Some(blocks), ..plain };
            let [found, expected] = [in_blocks, plain]
                .map(|config| SyntheticPass::new(&gpu, &layout, &config, 7, 3).unwrap().sums().unwrap());
            assert!(agree(&found, &expected, 1e-4), "{blocks:?}");
            let other: Vec<f32> = expected.iter().map(|x| x * 1.001).collect();
            assert!(!agree(&found, &other, 1e-4), "{blocks:?}");
        }
    }
}
