//! Kernels of the actor and critic networks: weight folding, forward pass, backward pass, weight gradients.
//!
//! **Quads.** Kernels take rows (slot, agent, environment) four at a time: a *quad* is one `vec4` with the same feature of four
//! consecutive environments, which is why the number of environments is a multiple of four.
//!
//! **Order of the files.** Each file imports only files named before it:
//! `shape` (sizes of the networks), `layout` (offsets in the buffers), `precision`, `cooperative`, `tile`, `block`, `stream` (three families
//! of kernels), `kernel_config` (plain data that decides the shader variants), `reduce`, `fold`, `weights`, `forward`, `backward`,
//! `weight_gradient` (select one of each), `matmul` (the kernels), `synthetic_pass` (all of them on synthetic data), `selection`
//! (adapter to configuration), `autotune` (the fastest configuration by measurement).

pub mod autotune;
pub mod backward;
mod block;
mod cooperative;
pub mod fold;
pub mod forward;
mod kernel_config;
pub mod layout;
#[cfg(test)]
mod layout_tests;
pub mod matmul;
mod precision;
pub mod reduce;
#[cfg(test)]
pub(crate) mod reference;
mod selection;
mod shape;
mod stream;
pub mod synthetic_pass;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tile;
pub mod weight_gradient;
mod weights;

pub use block::Blocks;
pub(crate) use block::MOST_MULTIPLY_ADDS;
pub use cooperative::Cooperative;
pub use kernel_config::KernelConfig;
pub(crate) use kernel_config::{MAX_LOOP_ITERATIONS, representative};
pub use layout::{Batch, ForwardPart, Layout, LossPart, NetworkSlice, RecurrentPart, Tensor};
pub(crate) use layout::{GATES_OF_INPUT, GATES_OF_STATE};
pub use precision::{Precision, Storage};
#[cfg(test)]
pub(crate) use selection::BLOCK_BUFFERS;
pub use shape::{Activation, CriticInput, MAX_HIDDEN_LAYERS, MAX_WIDTH, Shape, Sharing};
pub use weights::WorkingWeights;

use crate::gpu::{Class, Shader, Variant};
use forward::Phase;

/// All kernels of this family, each with all its variants.
#[must_use]
pub fn kernels(class: Class) -> Vec<(Shader, Variant)> {
    let mut all = vec![(reduce::SHADER, reduce::variant(class))];
    for kernel_config in representative(class) {
        for activation in Activation::ALL {
            // A GRU's kernels differ only by whether the derivative follows from the activation's value: one activation of each.
            let with_gru =
                kernel_config.blocks.is_none() && matches!(activation, Activation::Tanh | Activation::Gelu);
            let chunks: &[u32] = if with_gru { &[0, 2] } else { &[0] };
            for chunk in chunks {
                let shape = Shape { activation, chunk: *chunk, ..Shape::default() };
                let variant = |phase: Phase| phase.variant(&shape, &kernel_config);
                for phase in Phase::of(&shape, &kernel_config).chain([Phase::Whole]) {
                    all.push((forward::shader(&kernel_config), variant(phase)));
                    all.push((backward::shader(&kernel_config), variant(phase)));
                }
            }
        }
        if let Some(matrices) = kernel_config.cooperative {
            all.push((matmul::SHADER, matmul::variant(matrices)));
        }
        // Blocks of rows change the two passes alone.
        if !kernel_config.unrolled && kernel_config.blocks.is_none() {
            all.push((weight_gradient::shader(&kernel_config), weight_gradient::variant(&kernel_config)));
            all.push((fold::SHADER, fold::variant(class, &kernel_config)));
        }
    }
    all
}
