//! [`crate::nn::forward`] for a block of rows a workgroup, whose activations lie in workgroup memory and are stored only for a backward
//! pass. Shapes and formulas as there.

use crate::gpu::{Access, Shader};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/block/forward");

/// Table of batches, stacks, working weights, activations, LayerNorm statistics, heads, `dones_and_masks`, observations.
pub const ACCESS: [Access; 8] = [
    Access::DynamicUniform,
    Access::Uniform,
    Access::Read,
    Access::Write,
    Access::Write,
    Access::Write,
    Access::Read,
    Access::Read,
];
