//! The configuration of the networks' kernels, and the shader variants that follow from it. Plain data: `nn/selection.rs` chooses a configuration for an adapter.

use serde::{Deserialize, Serialize};

use super::block::Blocks;
use super::cooperative::Cooperative;
use super::layout::{Layer, Layout, NetworkStack};
use super::precision::Storage;
use super::shape::{Activation, Shape, Sharing};
use super::stream::weight_gradient;
use crate::gpu::{Access, Class, Variant};

/// Width of the texture of working weights, in vec4s.
pub(super) const TEXTURE_ROW: u32 = 1024;

/// Rows of the texture of working weights for `vec4s` vec4s, a multiple of four: llvmpipe allocates four rows at a time.
pub(super) fn texture_rows(vec4s: u32) -> u32 {
    vec4s.div_ceil(TEXTURE_ROW).next_multiple_of(4)
}

/// Most loop iterations of one invocation on a software adapter. Mesa's llvmpipe stops the loops of an invocation after 65,535
/// iterations without an error; this is that number with a margin.
pub(crate) const MAX_LOOP_ITERATIONS: u64 = 60_000;

/// The configuration of the networks' kernels on one adapter. It alone decides the shaders' constants and conditions, and the
/// workgroup counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelConfig {
    /// Type of the stored numbers.
    pub storage: Storage,
    /// Quads are read as words of 64 bits: on a software rasteriser (llvmpipe) an access costs the same whatever its width.
    #[serde(rename = "pairs")]
    pub wide_loads: bool,
    /// The eight invocations of a subgroup each read a part of the inputs and broadcast it, two inputs an iteration, and the
    /// weights are read from a texture. llvmpipe reads buffers invocation by invocation, which is most of a pass's time otherwise.
    #[serde(rename = "spread")]
    pub subgroup_broadcast: bool,
    /// Loops take two inputs an iteration, for networks whose loops llvmpipe would otherwise stop early.
    #[serde(rename = "long")]
    pub unrolled: bool,
    /// Invocations of a workgroup.
    pub workgroup: u32,
    /// Columns of a register tile.
    pub columns: u32,
    /// Most splits of the rows for the gradients of the weights (split-K).
    #[serde(rename = "shares")]
    pub splits: u32,
    /// The cooperative matrices that multiply, if any; `storage` is [`Storage::F16`] then.
    #[serde(default)]
    pub cooperative: Option<Cooperative>,
    /// The blocks of rows that the forward and the backward pass keep in workgroup memory, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
    /// The blocks of rows whose activations lie in buffers and pass through workgroup memory part by part, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Blocks>,
}

impl KernelConfig {
    /// The default for a class of adapters, without optional features (`storage` apart).
    #[must_use]
    pub fn plain(class: Class, storage: Storage) -> Self {
        let workgroup = Variant::independent(class).workgroup;
        let splits = match class {
            Class::Hardware => 64,
            Class::Software => 1,
        };
        Self {
            storage,
            wide_loads: false,
            subgroup_broadcast: false,
            unrolled: false,
            workgroup,
            columns: 16,
            splits,
            cooperative: None,
            blocks: None,
            stream: None,
        }
    }

    /// The default for subgroups of eight with 64-bit integers: llvmpipe on a CPU with AVX2.
    #[must_use]
    pub fn subgroup_broadcast(storage: Storage) -> Self {
        let storage = if storage == Storage::F16 { Storage::Packed } else { storage };
        Self {
            wide_loads: true,
            subgroup_broadcast: true,
            columns: 32,
            ..Self::plain(Class::Software, storage)
        }
    }

    /// The default for cooperative matrices: 64 quads of rows a workgroup, of which each subgroup takes two matrices.
    #[must_use]
    pub fn cooperative(class: Class, matrices: Cooperative) -> Self {
        let workgroup = 64 / (2 * matrices.size) * matrices.subgroup;
        Self { workgroup, cooperative: Some(matrices), ..Self::plain(class, Storage::F16) }
    }

    /// Whether all rows that share loaded weights belong to one network, with `quads` quads of environments, and blocks of rows fit in
    /// workgroup memory.
    #[must_use]
    pub fn suits(&self, layout: &Layout, quads: u32) -> bool {
        let slot = u64::from(quads) * u64::from(layout.shape.agents);
        let launched = self.blocks.or(self.stream).is_none_or(|blocks| blocks.launch(slot));
        if !launched || self.blocks.is_some_and(|blocks| !blocks.fit(layout)) {
            return false;
        }
        let together = match self.blocks.or(self.stream) {
            Some(blocks) => blocks.quads,
            None if self.cooperative.is_some() => self.block(),
            None if self.subgroup_broadcast => 8,
            None => 1,
        };
        layout.shape.sharing == Sharing::Shared || quads.is_multiple_of(together)
    }

    /// Quads of rows in a block of the activations and their gradients as they are stored.
    #[must_use]
    pub fn block(&self) -> u32 {
        match self.cooperative {
            // Two matrices of rows for every subgroup.
            Some(matrices) => matrices.size * self.workgroup / (2 * matrices.subgroup),
            None => self.workgroup,
        }
    }

    /// Workgroup size of the weight gradient's kernel, and the side of its square tiles.
    #[must_use]
    pub(super) fn weight_tile(&self) -> [u32; 2] {
        match self.cooperative {
            Some(matrices) => [matrices.weight_workgroup(), 64],
            None if self.stream.is_some() => [weight_gradient::WORKGROUP, weight_gradient::SIDE],
            None if self.subgroup_broadcast => [self.workgroup, 32],
            None => [64, 32],
        }
    }

    /// Most loop iterations of one invocation of the forward and the backward pass.
    #[must_use]
    pub(super) fn loop_iterations(&self, layout: &Layout) -> u64 {
        let Some(blocks) = self.stream else {
            let step = if self.unrolled || self.subgroup_broadcast { 2 } else { 1 };
            return layout.loop_iterations(self.columns, step);
        };
        let of_layer = |layer: &Layer| {
            blocks.iterations(layer.inputs, layer.outputs).max(blocks.iterations(layer.outputs, layer.inputs))
        };
        let of_stack = |stack: &NetworkStack| stack.layer.iter().map(of_layer).sum::<u64>();
        let all = layout.stacks.iter().map(of_stack).max().unwrap_or(0);
        // Only the state's gates and the cell walk through the slots.
        let memory = layout.shape.memory();
        let gates = blocks.iterations(memory, 3 * memory).max(blocks.iterations(3 * memory, memory));
        all.max(u64::from(layout.shape.chunk.max(1)) * (gates + u64::from(memory)))
    }

    /// This configuration with `unrolled` set if these networks need it.
    #[must_use]
    pub fn for_layout(self, class: Class, layout: &Layout) -> Self {
        let too_long =
            class == Class::Software && layout.loop_iterations(self.columns, 1) > MAX_LOOP_ITERATIONS;
        Self { unrolled: too_long && !self.subgroup_broadcast, ..self }
    }

    /// Quads of rows of a workgroup in the forward and the backward pass.
    #[must_use]
    pub fn quads_of_group(&self) -> u32 {
        self.blocks.or(self.stream).map_or_else(|| self.block(), |blocks| blocks.quads)
    }

    /// Whether activations pass through workgroup memory part by part.
    #[must_use]
    pub(super) fn streams(&self) -> bool {
        self.stream.is_some() || self.cooperative.is_some()
    }

    /// The shader variant of this configuration.
    #[must_use]
    pub fn variant(&self, activation: Option<Activation>) -> Variant {
        let variant = Variant::new(self.workgroup).with("TILE", self.block()).with("COLUMNS", self.columns);
        let variant = self.stored(variant);
        let variant = variant
            .when("wide_loads", self.wide_loads)
            .when("subgroup_broadcast", self.subgroup_broadcast)
            .when("texture", self.subgroup_broadcast);
        let mut variant = variant.when("unrolled", self.unrolled);
        if let Some(Cooperative { size, subgroup }) = self.cooperative {
            let shape = if size == 16 { "matrix16" } else { "matrix8" };
            variant = variant
                .with("SIZE", size)
                .with("SUBGROUP", subgroup)
                .with("QUADS", self.block())
                .when("cooperative", true)
                .when(shape, true);
        }
        match activation {
            None => variant,
            Some(activation) => variant.when(activation.name(), true),
        }
    }

    /// The variant of the forward and the backward pass.
    #[must_use]
    pub fn stack(&self, shape: &Shape) -> Variant {
        match self.blocks {
            Some(blocks) => {
                self.stored(blocks.variant().with("TILE", self.block())).when(shape.activation.name(), true)
            }
            None => {
                let variant = match self.stream {
                    Some(blocks) => self.stored(blocks.variant().with("TILE", self.block())),
                    None => self.variant(None),
                };
                variant.when(shape.activation.name(), true).when("recurrent", shape.recurrent())
            }
        }
    }

    /// The variant with what follows from how numbers are stored.
    fn stored(&self, variant: Variant) -> Variant {
        self.storage.apply(variant.with("TEXTURE_ROW", TEXTURE_ROW))
    }

    /// Whether kernels read the working weights from a texture.
    #[must_use]
    pub fn texture(&self) -> bool {
        self.subgroup_broadcast
    }

    /// The binding type of the working weights.
    pub(super) fn weights(&self) -> Access {
        if self.texture() { Access::Texture } else { Access::Read }
    }

    /// Quads of rows whose activations are kept for the gradients of `quads` quads: all, or those of the blocks being worked on.
    #[must_use]
    pub fn kept(&self, quads: u64) -> u64 {
        let room = self.room(quads);
        self.blocks.map_or(room, |blocks| {
            room.min(
                u64::from(blocks.partial_sums(quads) * blocks.quads)
                    .next_multiple_of(u64::from(self.block())),
            )
        })
    }

    /// `quads` quads of rows rounded up to whole blocks: the size of the buffers.
    #[must_use]
    pub fn room(&self, quads: u64) -> u64 {
        quads.next_multiple_of(u64::from(self.block()))
    }
}

/// Configurations that together reach every line of the kernels, for tests and for translation to other shader languages.
#[must_use]
pub(crate) fn representative(class: Class) -> Vec<KernelConfig> {
    let mut all: Vec<_> = [Storage::F32, Storage::F16, Storage::Packed]
        .into_iter()
        .map(|storage| KernelConfig::plain(class, storage))
        .collect();
    // Both sizes of matrices, with two subgroup sizes in use.
    let matrices = [Cooperative { size: 16, subgroup: 32 }, Cooperative { size: 8, subgroup: 8 }];
    all.extend(matrices.map(|matrices| KernelConfig::cooperative(class, matrices)));
    if class == Class::Hardware {
        let blocks = [
            (Storage::F32, 16, 64),
            (Storage::F32, 4, 128),
            (Storage::F16, 16, 64),
            (Storage::Packed, 8, 64),
        ];
        all.extend(blocks.map(|(storage, quads, width)| KernelConfig {
            blocks: Some(Blocks::sized(quads, width)),
            ..KernelConfig::plain(class, storage)
        }));
        let streamed = [(Storage::F32, 8, 64), (Storage::F16, 16, 64), (Storage::Packed, 4, 128)];
        all.extend(streamed.map(|(storage, quads, width)| KernelConfig {
            stream: Some(Blocks::sized(quads, width)),
            ..KernelConfig::plain(class, storage)
        }));
    }
    if class == Class::Software {
        all.extend([Storage::F32, Storage::Packed].map(KernelConfig::subgroup_broadcast));
        all.push(KernelConfig { unrolled: true, ..KernelConfig::plain(class, Storage::F32) });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Depth four and width 1024 are within reach of a software adapter's loops, with two inputs an iteration.
    #[test]
    fn four_layers_of_1024_are_not_refused() {
        let shape = Shape { agents: 3, obs_dim: 72, actions: 3, hidden: vec![1024; 4], ..Shape::default() };
        let layout = Layout::new(&shape).unwrap();
        let iterations = layout.loop_iterations(32, 2);
        assert!(iterations <= MAX_LOOP_ITERATIONS, "{iterations}");
        assert!(layout.loop_iterations(32, 1) > MAX_LOOP_ITERATIONS);
    }
}
