//! Joins the sums of [`super::scale_stats`] to the mean and population standard deviation of every column: one workgroup per column,
//! in a fixed order. With n bars, a number c near their mean, the sum s of the distances from it and the sum q of their squares, a chunk's
//! part of the sum of squared distances from the mean m of all is q + (c - m) (2 s + n (c - m)).
//!
//! Shapes: sums f32 `[column][chunk][c, s, q, rounding error of s]`, statistics f32 `[column][mean, standard deviation]`.

use crate::Result;
use crate::gpu::{Access, Class, Command, GROUPS_IN_A_ROW, Gpu, Kernel, Shader, Variant, in_rows};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("market/scale_join");

/// Bars of a chunk. Products of a number's 12 leading or trailing bits with it are exact, on which the sum of all bars relies.
pub const CHUNK: u32 = 256;

/// The variant for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::reducing(class).with("CHUNK", CHUNK).with("GROUPS", GROUPS_IN_A_ROW)
}

/// The dispatch for so many columns, on the parameters of [`super::scale`], sums and statistics.
///
/// # Errors
/// As [`Kernel::new`] and [`Kernel::bind`].
pub fn command(gpu: &Gpu, columns: u32, buffers: [&wgpu::Buffer; 3]) -> Result<Command> {
    use Access::{Read, Uniform, Write};
    let kernel = Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Write], 0)?;
    let group = kernel.bind(gpu, &buffers)?;
    let [x, y] = in_rows(columns);
    Ok(Command::dispatch(&kernel, &group, [x, y, 1]))
}
