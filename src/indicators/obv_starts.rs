//! The on-balance volume before every chunk of a row, from the sums over the chunks of [`super::obv_sums`]: a scan in a fixed order, one
//! workgroup per row.
//!
//! Shapes: sums as there, candles as in [`super::panel`], counters and states `[row][chunk]` as the panel saves
//! them between two dispatches.

use crate::Result;
use crate::gpu::{Access, Class, Command, GROUPS_IN_A_ROW, Gpu, Kernel, Shader, Variant, in_rows};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("indicators/obv_starts");

/// The variant for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::reducing(class).with("GROUPS", GROUPS_IN_A_ROW)
}

/// The dispatch for so many rows, on the parameters of [`super::obv_sums`], sums, candles, counters and states.
///
/// # Errors
/// As [`Kernel::new`] and [`Kernel::bind`].
pub fn command(gpu: &Gpu, rows: u32, buffers: [&wgpu::Buffer; 5]) -> Result<Command> {
    use Access::{Read, Uniform, Write};
    let access = [Uniform, Read, Read, Write, Write];
    let kernel = Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &access, 0)?;
    let group = kernel.bind(gpu, &buffers)?;
    let [x, y] = in_rows(rows);
    Ok(Command::dispatch(&kernel, &group, [x, y, 1]))
}
