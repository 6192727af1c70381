//! Momentum: close\[t\] - close\[t - period\], in the unit of the price.
//!
//! The first value is at bar `period`; it is NaN where one of its two prices is. Shapes: close and output
//! `[series][bars]`. Source: TA-Lib's `MOM`. The difference is right to the last digit of f32 at any price level.

use super::Series;
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "indicators/momentum", source: include_str!("../../shaders/indicators/momentum.wgsl") };

/// Counterpart of `Momentum` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Momentum {
    /// Series.
    pub series: u32,
    /// Bars of a series.
    pub bars: u32,
    /// Distance of the two prices in bars.
    pub period: u32,
    /// 0, as a value that compilers cannot know.
    pub zero: u32,
}

/// The decisions for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::wide(class)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::new(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Read, Write], 0)
}

/// Workgroups for so many series of so many bars.
#[must_use]
pub fn groups(variant: &Variant, series: u32, bars: u32) -> [u32; 3] {
    let [x, y] = variant.rows(series.saturating_mul(bars));
    [x, y, 1]
}

/// Records the kernel over `series` into `momentum`.
///
/// # Errors
/// [`crate::Error::Shape`] if `momentum` is too small, and as [`Kernel::bind`].
pub fn record(
    gpu: &Gpu,
    kernel: &Kernel,
    period: u32,
    series: &Series,
    momentum: &wgpu::Buffer,
) -> Result<Command> {
    series.check("momentum", momentum)?;
    let params = Momentum { series: series.series(), bars: series.bars(), period, zero: 0 };
    let uniform = gpu.uniform("momentum", &params)?;
    let group = kernel.bind(gpu, &[&uniform, series.close(), series.close_tail(), momentum])?;
    Ok(Command::dispatch(kernel, &group, groups(&kernel.variant, params.series, params.bars)))
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Bars, Tolerance, check};
    use super::*;

    fn reference(close: &[f64], period: usize) -> Vec<f64> {
        let difference = |t| if t < period { f64::NAN } else { close[t] - close[t - period] };
        (0..close.len()).map(difference).collect()
    }

    #[test]
    fn agrees_with_f64() {
        for period in [10, 1, 64] {
            check(
                &Tolerance { relative: 2e-7, level: 1e-15, above_base: false },
                |gpu, series, [momentum]| record(gpu, &kernel(gpu)?, period, series, momentum),
                |bars: &Bars| [reference(&bars.close, period as usize)],
            );
        }
    }
}
