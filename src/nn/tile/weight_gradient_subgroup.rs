//! [`crate::nn::weight_gradient`] with subgroups of eight invocations and no workgroup memory, for llvmpipe: an invocation holds four
//! outputs of all 32 inputs of a tile, and inputs are broadcast within the subgroup.

use crate::gpu::Shader;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/tile/weight_gradient_subgroup");
