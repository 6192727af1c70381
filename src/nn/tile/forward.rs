//! [`crate::nn::forward`] for four rows an invocation, whose activations lie in buffers. Shapes and formulas as there.

use crate::gpu::Shader;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/tile/forward");
