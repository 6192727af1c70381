//! Kernels of the networks: folding of the weights, forward, backward, weight gradients.

pub mod autotune;
pub mod backward;
mod cooperative;
pub mod fold;
pub mod forward;
pub mod layout;
pub mod matmul;
mod precision;
pub mod reduce;
#[cfg(test)]
pub(crate) mod reference;
mod shape;
pub mod synthetic_pass;
#[cfg(test)]
mod tests;
pub mod unfold;
pub mod weight_gradient;
mod weights;

pub use cooperative::Cooperative;
pub use layout::{Batch, Layout, NetworkSlice, Tensor};
pub use precision::{KernelConfig, Precision, Storage};
pub(crate) use precision::{MAX_LOOP_ITERATIONS, representative};
pub use shape::{Activation, CriticInput, Shape, Sharing};
pub use weights::WorkingWeights;

use crate::gpu::{Class, Shader, Variant};

/// Every kernel of this family with every variant it is compiled in.
#[must_use]
pub fn kernels(class: Class) -> Vec<(Shader, Variant)> {
    let mut all = vec![(reduce::SHADER, reduce::variant(class)), (unfold::SHADER, unfold::variant(class))];
    for kernel_config in representative(class) {
        for activation in Activation::ALL {
            // Those whose derivative follows from the value, and those whose derivative does not, are one to a GRU.
            let chunks: &[u32] =
                if matches!(activation, Activation::Tanh | Activation::Gelu) { &[0, 1] } else { &[0] };
            for chunk in chunks {
                let stack = kernel_config.stack(&Shape { activation, chunk: *chunk, ..Shape::default() });
                all.extend([forward::SHADER, backward::SHADER].map(|shader| (shader, stack.clone())));
            }
        }
        if let Some(matrices) = kernel_config.cooperative {
            all.push((matmul::SHADER, matmul::variant(matrices)));
        }
        if !kernel_config.unrolled {
            all.push((weight_gradient::SHADER, weight_gradient::variant(&kernel_config)));
            all.push((fold::SHADER, fold::variant(class, &kernel_config)));
        }
    }
    all
}
