//! Gradients with respect to all activations of a stack, from the head down to the input LayerNorm.
//!
//! Shapes as in [`super::forward`]; the gradient at the heads is expected at [`super::Layout::head_gradient`]. For a
//! LayerNorm y = g n + b with n = (x - mean) / d: dx = (g dy - mean(g dy) - n mean(g dy n)) / d.

use super::layout::{Activation, Batch};
use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "nn/backward", source: include_str!("../../shaders/nn/backward.wgsl") };

/// The decisions for this class of adapters.
#[must_use]
pub fn variant(class: Class, activation: Activation) -> Variant {
    super::forward::variant(class, activation)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, activation: Activation) -> Result<Kernel> {
    use Access::{Read, Table, Uniform, Write};
    let access = [Table, Uniform, Read, Read, Write];
    Kernel::new(gpu, &SHADER, variant(gpu.class(), activation), &access, size_of::<Batch>())
}

/// Binds table of batches, roles, parameters, activations and gradients.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    batches: &wgpu::Buffer,
    roles: &wgpu::Buffer,
    params: &wgpu::Buffer,
    acts: &wgpu::Buffer,
    grads: &wgpu::Buffer,
) -> Result<BindGroup> {
    kernel.bind(gpu, &[batches, roles, params, acts, grads])
}

#[cfg(test)]
mod tests {
    use super::super::reference::cases;

    /// Each row's LayerNorm output gradient at the input, against finite differences of the input itself is covered
    /// through the gain and offset gradients; here the padding is: it has to be zero, since it is read as columns.
    #[test]
    fn padding_columns_have_no_gradient() {
        for case in cases() {
            let layout = case.layout();
            let run = case.run();
            let stride = case.rows() / 4 * 4;
            for role in &layout.roles {
                for l in 0..role.layers as usize - 1 {
                    let layer = role.layer[l];
                    for column in layer.outputs..crate::gpu::round_up(layer.outputs, 4) {
                        let start = (layer.grad_product + column) as usize * stride;
                        assert!(run.grads[start..start + stride].iter().all(|g| *g == 0.0));
                    }
                }
            }
        }
    }
}
