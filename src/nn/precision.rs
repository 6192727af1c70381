//! How numbers are stored, and which of the kernels' forms an adapter gets.

use serde::{Deserialize, Serialize};

use super::cooperative::Cooperative;
use super::layout::Layout;
use super::shape::{Activation, Shape, Sharing};
use crate::gpu::{Access, Class, Gpu, Variant};
use crate::{Error, Result};

/// Storage of observations, activations, their gradients and the working weights. Sums are always f32; so are the master
/// weights and the optimizer's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, with a dynamic loss scale, on every adapter: natively where the adapter has `SHADER_F16`, else two in a
    /// `u32`.
    F16,
}

impl Precision {
    /// Bytes of a stored number.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// How a stored number is declared in a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// `f32`.
    F32,
    /// `f16`, which the adapter must have.
    F16,
    /// Two f16 in a `u32`, converted by integer arithmetic. The bytes are those of [`Storage::F16`].
    Packed,
}

impl Storage {
    /// The form for a precision on this adapter.
    #[must_use]
    pub fn of(gpu: &Gpu, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 if gpu.device().features().contains(wgpu::Features::SHADER_F16) => Self::F16,
            Precision::F16 => Self::Packed,
        }
    }

    /// What it stores.
    #[must_use]
    pub fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::F16 | Self::Packed => Precision::F16,
        }
    }

    /// Sets the conditions that `lib/quad.wgsl` reads.
    #[must_use]
    pub fn apply(self, variant: Variant) -> Variant {
        variant.when("native", self == Self::F16).when("packed", self == Self::Packed)
    }
}

/// vec4s in a row of the texture of working weights.
pub(super) const TEXTURE_ROW: u32 = 1024;

/// Rows of that texture: llvmpipe allocates four at a time.
pub(super) fn texture_rows(vec4s: u32) -> u32 {
    vec4s.div_ceil(TEXTURE_ROW).next_multiple_of(4)
}

/// Loop turns of one invocation after which Mesa's llvmpipe ends it, without a word: 65,535. With some room.
pub(crate) const MAX_LOOP_ITERATIONS: u64 = 60_000;

/// Every decision about the kernels of the networks on one adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelConfig {
    /// How numbers are declared.
    pub storage: Storage,
    /// Quads are read in words of 64 bits: on processors that play a GPU every access of a lane costs the same.
    #[serde(rename = "pairs")]
    pub wide_loads: bool,
    /// A subgroup of eight exchanges what its lanes read, two inputs a turn, and the weights come from a texture: where memory is
    /// read lane by lane, this is most of the time.
    #[serde(rename = "spread")]
    pub subgroup_broadcast: bool,
    /// Loops take two inputs a turn, for networks whose loops would otherwise be cut short.
    #[serde(rename = "long")]
    pub unrolled: bool,
    /// Invocations of a workgroup.
    pub workgroup: u32,
    /// Columns of a register tile.
    pub columns: u32,
    /// Shares of the rows for the gradients of the weights, at most.
    pub splits: u32,
    /// The matrix units multiply. Storage is [`Storage::F16`] then.
    #[serde(default)]
    pub cooperative: Option<Cooperative>,
}

impl KernelConfig {
    /// The shipped choice for a class of adapters, without anything that an adapter need not have.
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
        }
    }

    /// The shipped choice for subgroups of eight with 64-bit integers: llvmpipe on a processor with AVX2.
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

    /// The shipped choice for cooperative matrices: 64 rows a workgroup, of which a subgroup takes two matrices.
    #[must_use]
    pub fn cooperative(class: Class, matrices: Cooperative) -> Self {
        let workgroup = 64 / (2 * matrices.size) * matrices.subgroup;
        Self { workgroup, cooperative: Some(matrices), ..Self::plain(class, Storage::F16) }
    }

    /// The shipped choice for this adapter and these networks, with `quads` quads of environments.
    ///
    /// # Errors
    /// [`Error::Config`] for networks so wide that a software adapter would cut their loops short.
    pub fn new(gpu: &Gpu, precision: Precision, layout: &Layout, quads: u32) -> Result<Self> {
        let storage = Storage::of(gpu, precision);
        let rows = texture_rows(layout.working);
        let subgroup_broadcast = gpu.class() == Class::Software
            && Self::can_subgroup_broadcast(gpu)
            && Self::subgroup_broadcast(storage).suits(layout, quads)
            && rows <= gpu.device().limits().max_texture_dimension_2d;
        let kernel_config = match Self::on_matrix_units(gpu, storage)?.filter(|d| d.suits(layout, quads)) {
            Some(cooperative) => cooperative,
            None if subgroup_broadcast => Self::subgroup_broadcast(storage),
            None => Self::plain(gpu.class(), storage),
        };
        let kernel_config = kernel_config.for_layout(gpu.class(), layout);
        let step = if kernel_config.unrolled || kernel_config.subgroup_broadcast { 2 } else { 1 };
        if gpu.stops_long_loops() && layout.loop_iterations(kernel_config.columns, step) > MAX_LOOP_ITERATIONS
        {
            return Err(Error::config(
                "hidden",
                "these layers, or so many agents, or recurrent networks with such a `chunk_length`, are too much for a software adapter, which ends loops after 65,535 turns",
            ));
        }
        Ok(kernel_config)
    }

    /// For GPUs with matrix units, in f16: a processor that plays a GPU only pretends to have them.
    fn on_matrix_units(gpu: &Gpu, storage: Storage) -> Result<Option<Self>> {
        if gpu.class() != Class::Hardware || storage != Storage::F16 {
            return Ok(None);
        }
        let proven = Cooperative::proven(gpu)?;
        Ok(proven.first().map(|matrices| Self::cooperative(gpu.class(), *matrices)))
    }

    /// Whether rows that are worked on together belong to one network, with `quads` quads of environments.
    #[must_use]
    pub fn suits(&self, layout: &Layout, quads: u32) -> bool {
        let together = match self.cooperative {
            Some(_) => self.block(),
            None if self.subgroup_broadcast => 8,
            None => 1,
        };
        layout.shape.sharing == Sharing::Shared || quads.is_multiple_of(together)
    }

    /// Quads of rows in a block of the activations and their gradients.
    #[must_use]
    pub fn block(&self) -> u32 {
        match self.cooperative {
            // Two matrices of rows for every subgroup.
            Some(matrices) => matrices.size * self.workgroup / (2 * matrices.subgroup),
            None => self.workgroup,
        }
    }

    /// Workgroup of the kernel for the weights' gradients, and inputs and outputs of its tiles.
    #[must_use]
    pub(super) fn squares(&self) -> [u32; 2] {
        match self.cooperative {
            Some(matrices) => [matrices.squares(), 64],
            None if self.subgroup_broadcast => [self.workgroup, 32],
            None => [64, 32],
        }
    }

    /// Whether the adapter runs [`KernelConfig::subgroup_broadcast`].
    #[must_use]
    pub fn can_subgroup_broadcast(gpu: &Gpu) -> bool {
        let needed = wgpu::Features::SUBGROUP | wgpu::Features::SHADER_INT64;
        let info = gpu.info();
        gpu.device().features().contains(needed) && info.subgroup_min_size == 8 && info.subgroup_max_size == 8
    }

    /// The same with loops that reach the end of these networks.
    #[must_use]
    pub fn for_layout(self, class: Class, layout: &Layout) -> Self {
        let cut_short =
            class == Class::Software && layout.loop_iterations(self.columns, 1) > MAX_LOOP_ITERATIONS;
        Self { unrolled: cut_short && !self.subgroup_broadcast, ..self }
    }

    /// The variant of a kernel of these kernel_config.
    #[must_use]
    pub fn variant(&self, activation: Option<Activation>) -> Variant {
        let variant = Variant::new(self.workgroup).with("TILE", self.block()).with("COLUMNS", self.columns);
        let variant = variant.with("TEXTURE_ROW", TEXTURE_ROW);
        let variant = self.storage.apply(variant);
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
        self.variant(Some(shape.activation)).when("recurrent", shape.recurrent())
    }

    /// Whether kernels read the working weights from a texture.
    #[must_use]
    pub fn texture(&self) -> bool {
        self.subgroup_broadcast
    }

    /// How kernels bind the working weights.
    pub(super) fn weights(&self) -> Access {
        if self.texture() { Access::Texture } else { Access::Read }
    }

    /// Quads of rows that buffers have room for when `quads` are asked for: whole blocks.
    #[must_use]
    pub fn room(&self, quads: u64) -> u64 {
        quads.next_multiple_of(u64::from(self.block()))
    }
}

/// Choices that between them reach every line of the kernels, for tests and for translation.
#[must_use]
pub(crate) fn representative(class: Class) -> Vec<KernelConfig> {
    let mut all: Vec<_> = [Storage::F32, Storage::F16, Storage::Packed]
        .into_iter()
        .map(|storage| KernelConfig::plain(class, storage))
        .collect();
    // Two widths of subgroups in use, with either size of matrices.
    let matrices = [Cooperative { size: 16, subgroup: 32 }, Cooperative { size: 8, subgroup: 8 }];
    all.extend(matrices.map(|matrices| KernelConfig::cooperative(class, matrices)));
    if class == Class::Software {
        all.extend([Storage::F32, Storage::Packed].map(KernelConfig::subgroup_broadcast));
        all.push(KernelConfig { unrolled: true, ..KernelConfig::plain(class, Storage::F32) });
    }
    all
}
