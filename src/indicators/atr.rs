//! Average true range, in the unit of the price.
//!
//! The true range of bar t is max(high - low, |high - close\[t-1\]|, |low - close\[t-1\]|), from bar 1 on. Its Wilder
//! average is the mean of the first `period` ones at bar `period`, the first value, then x <- x + (new - x) / period.
//! After a bar of which any price is NaN the next one is bar 0 again.
//!
//! Shapes: prices and output `[series][bars]`. Source: Wilder, *New Concepts in Technical Trading Systems* (1978); seed
//! as TA-Lib's `ATR`. The average loses no digits to long periods (compensated sum).

use super::Series;
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "indicators/atr", source: include_str!("../../shaders/indicators/atr.wgsl") };

/// Counterpart of `Atr` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Atr {
    /// Series.
    pub series: u32,
    /// Bars of a series.
    pub bars: u32,
    /// Wilder period in bars.
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
    let access = [Uniform, Read, Read, Read, Read, Read, Read, Write];
    Kernel::new(gpu, &SHADER, variant(gpu.class()), &access, 0)
}

/// Workgroups for so many series.
#[must_use]
pub fn groups(variant: &Variant, series: u32) -> [u32; 3] {
    let [x, y] = variant.rows(series);
    [x, y, 1]
}

/// Records the kernel over `series` into `atr`.
///
/// # Errors
/// [`crate::Error::Shape`] if `atr` is too small, and as [`Kernel::bind`].
pub fn record(
    gpu: &Gpu,
    kernel: &Kernel,
    period: u32,
    series: &Series,
    atr: &wgpu::Buffer,
) -> Result<Command> {
    series.check("atr", atr)?;
    let params = Atr { series: series.series(), bars: series.bars(), period, zero: 0 };
    let uniform = gpu.uniform("atr", &params)?;
    let (high, low, close) = (series.high(), series.low(), series.close());
    let tails = (series.high_tail(), series.low_tail(), series.close_tail());
    let group = kernel.bind(gpu, &[&uniform, high, tails.0, low, tails.1, close, tails.2, atr])?;
    Ok(Command::dispatch(kernel, &group, groups(&kernel.variant, params.series)))
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Bars, Tolerance, check, mean, stretches};
    use super::*;

    fn reference(bars: &Bars, period: usize) -> Vec<f64> {
        let (high, low, close) = (&bars.high, &bars.low, &bars.close);
        let mut atr = vec![f64::NAN; close.len()];
        for stretch in stretches(close.len(), |t| bars.complete(t)) {
            let true_range = |t: usize| {
                (high[t] - low[t]).max((high[t] - close[t - 1]).abs()).max((low[t] - close[t - 1]).abs())
            };
            let ranges: Vec<f64> = (stretch.start + 1..stretch.end).map(true_range).collect();
            if ranges.len() < period {
                continue;
            }
            let mut average = mean(&ranges[..period]);
            for i in period..=ranges.len() {
                atr[stretch.start + i] = average;
                if i < ranges.len() {
                    average = ((period - 1) as f64 * average + ranges[i]) / period as f64;
                }
            }
        }
        atr
    }

    #[test]
    fn agrees_with_f64() {
        for period in [14, 2, 41] {
            check(
                &Tolerance { relative: 1e-6, level: 1e-15, above_base: false },
                |gpu, series, [atr]| record(gpu, &kernel(gpu)?, period, series, atr),
                |bars| [reference(bars, period as usize)],
            );
        }
    }
}
