//! Kernels of the networks: forward, backward, weight gradients.

pub mod backward;
pub mod forward;
pub mod layout;
pub mod reduce;
#[cfg(test)]
pub(crate) mod reference;
pub mod weight_gradient;

pub use layout::{Activation, Batch, Layout, Net, Shape, Sharing, Tensor};

use crate::gpu::{Class, Shader, Variant};

/// Every kernel of this family with every variant it is compiled in.
#[must_use]
pub fn kernels(class: Class) -> Vec<(Shader, Variant)> {
    let mut all = vec![
        (weight_gradient::SHADER, weight_gradient::variant(class)),
        (reduce::SHADER, reduce::variant(class)),
    ];
    for activation in [Activation::Relu, Activation::Tanh] {
        all.push((forward::SHADER, forward::variant(class, activation)));
        all.push((backward::SHADER, backward::variant(class, activation)));
    }
    all
}
