//! [`crate::nn::backward`] for a block of rows a workgroup, whose gradients pass through workgroup memory part by part. Shapes and formulas
//! as there.

use crate::gpu::Shader;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/stream/backward");
