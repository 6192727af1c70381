//! [`crate::nn::backward`] for four rows an invocation, whose gradients lie in buffers. Shapes and formulas as there.

use crate::gpu::Shader;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/tile/backward");
