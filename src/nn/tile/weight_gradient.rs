//! [`crate::nn::weight_gradient`] with register tiles: 64 invocations own a tile of 32 inputs by 32 outputs, four by four results each,
//! and stage eight quads of rows at a time in 8 KiB of workgroup memory.

use crate::gpu::Shader;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/tile/weight_gradient");
