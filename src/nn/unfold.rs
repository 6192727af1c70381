//! From the gradients of the folded weights ([`super::fold`]) to those of the parameters.
//!
//! With `N[k][c]` the sum over the rows of normalised input k times gradient c, and `d[c]` that of the gradient alone:
//! `dW[k][c] = g[k] N[k][c] + o[k] d[c]`, `dg[k] = sum over c of W[k][c] N[k][c]`, `do[k] = sum over c of W[k][c] d[c]`, `db = d`.
//! So no kernel sums over the rows for the LayerNorms, and the gradient of what enters a matrix is never stored.

use super::layout::Layout;
use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Command, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/unfold");

/// The kernel_config for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    // The layout's module wants a block size, which this kernel does not use.
    Variant::wide(class).with("TILE", 1)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Read, Read, Write], 0)
}

/// Binds stacks, networks, parameters, accumulated sums and the gradient.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: [&wgpu::Buffer; 5]) -> Result<BindGroup> {
    kernel.bind(gpu, &buffers)
}

/// The whole of it, for these buffers.
///
/// # Errors
/// As [`Kernel::new`] and [`Kernel::bind`].
pub fn command(gpu: &Gpu, layout: &Layout, buffers: [&wgpu::Buffer; 5]) -> Result<Command> {
    let kernel = kernel(gpu)?;
    let group = bind(gpu, &kernel, buffers)?;
    Ok(Command::dispatch(&kernel, &group, super::fold::groups(&kernel.variant, layout)))
}
