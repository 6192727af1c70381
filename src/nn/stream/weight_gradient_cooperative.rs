//! [`crate::nn::weight_gradient`] with cooperative matrices: a workgroup owns a tile of 64 inputs by 64 outputs, of which each subgroup
//! holds two by two matrices. Both factors are staged in workgroup memory in f16; sums are f32.

use crate::gpu::Shader;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/stream/weight_gradient_cooperative");
