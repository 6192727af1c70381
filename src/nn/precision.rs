//! Storage types of the networks' numbers. Plain data: nothing here asks a device.

use serde::{Deserialize, Serialize};

use crate::gpu::Variant;

/// Storage of observations, activations, their gradients and the working weights. Sums, master weights and the optimizer's
/// state are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with dynamic loss scaling, on every adapter: native `f16` where the adapter has `SHADER_F16`, else two
    /// numbers packed in a `u32`.
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

/// The type of a stored number in a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// `f32`.
    F32,
    /// Native `f16`; needs `SHADER_F16`.
    F16,
    /// Two f16 in a `u32`, converted by integer arithmetic. The bytes are those of [`Storage::F16`].
    Packed,
}

impl Storage {
    /// The precision of the stored numbers.
    #[must_use]
    pub fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::F16 | Self::Packed => Precision::F16,
        }
    }

    /// Sets the conditions that `shaders/lib/quad.wgsl` reads.
    #[must_use]
    pub fn apply(self, variant: Variant) -> Variant {
        variant.when("native", self == Self::F16).when("packed", self == Self::Packed)
    }
}
