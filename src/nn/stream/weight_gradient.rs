//! [`crate::nn::weight_gradient`] on GPUs: 128 invocations own a tile of 64 inputs by 64 outputs, eight by four results each, and stage
//! eight quads of rows at a time in 16 KiB of workgroup memory.

use crate::gpu::Shader;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/stream/weight_gradient");

/// Invocations of a workgroup.
pub const WORKGROUP: u32 = 128;

/// Side of the square tiles.
pub const SIDE: u32 = 64;
