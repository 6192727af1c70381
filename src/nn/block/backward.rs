//! [`crate::nn::backward`] for a block of rows a workgroup. Training runs [`crate::ppo::gradient`], which is made of the same functions; this
//! kernel serves tests against finite differences, and measurements. Shapes and formulas as there.

use crate::gpu::{Access, Shader};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/block/backward");

/// Table of batches, stacks, working weights, activations, LayerNorm statistics, gradients.
pub const ACCESS: [Access; 6] =
    [Access::DynamicUniform, Access::Uniform, Access::Read, Access::Write, Access::Write, Access::Write];
