//! Fast stochastic oscillator: %K = 100 (close - L) / (H - L) and %D, its mean, both in 0 to 100.
//!
//! H and L are the highest high and lowest low of the last `k` bars, this one included; %D is the mean of the last `d`
//! values of %K. Both start at bar `k` + `d` - 2, as TA-Lib's do. %K is 0 where H = L. %K is NaN while a NaN high or low
//! is in its window or its close is NaN, %D while one of its %K is.
//!
//! Shapes: prices and outputs `[series][bars]`. Source: TA-Lib's `STOCHF` with its simple moving average.

use super::Series;
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = Shader {
    name: "indicators/stochastic",
    source: include_str!("../../shaders/indicators/stochastic.wgsl"),
};

/// Counterpart of `Stochastic` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Stochastic {
    /// Series.
    pub series: u32,
    /// Bars of a series.
    pub bars: u32,
    /// Bars of the range.
    pub k: u32,
    /// Values of %K in %D.
    pub d: u32,
    /// 0, as a value that compilers cannot know.
    pub zero: u32,
    /// Fills up to 32 bytes.
    pub pad: [u32; 3],
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
    let access = [Uniform, Read, Read, Read, Read, Read, Read, Write, Write];
    Kernel::new(gpu, &SHADER, variant(gpu.class()), &access, 0)
}

/// Workgroups for so many series of so many bars.
#[must_use]
pub fn groups(variant: &Variant, series: u32, bars: u32) -> [u32; 3] {
    let [x, y] = variant.rows(series.saturating_mul(bars));
    [x, y, 1]
}

/// Records the kernel over `series` into %K and %D.
///
/// # Errors
/// [`crate::Error::Shape`] if an output is too small, and as [`Kernel::bind`].
pub fn record(
    gpu: &Gpu,
    kernel: &Kernel,
    (k, d): (u32, u32),
    series: &Series,
    [percent_k, percent_d]: [&wgpu::Buffer; 2],
) -> Result<Command> {
    series.check("stoch_k", percent_k)?;
    series.check("stoch_d", percent_d)?;
    let (count, bars) = (series.series(), series.bars());
    let params = Stochastic { series: count, bars, k, d, zero: 0, pad: [0; 3] };
    let uniform = gpu.uniform("stochastic", &params)?;
    let (high, low, close) = (series.high(), series.low(), series.close());
    let tails = (series.high_tail(), series.low_tail(), series.close_tail());
    let buffers = [&uniform, high, tails.0, low, tails.1, close, tails.2, percent_k, percent_d];
    let group = kernel.bind(gpu, &buffers)?;
    Ok(Command::dispatch(kernel, &group, groups(&kernel.variant, count, bars)))
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Bars, Tolerance, check, mean};
    use super::*;

    fn reference(bars: &Bars, k: usize, d: usize) -> [Vec<f64>; 2] {
        let length = bars.close.len();
        let mut percent_k = vec![f64::NAN; length];
        for (t, value) in percent_k.iter_mut().enumerate().skip(k - 1) {
            let window = t + 1 - k..=t;
            let (high, low) = (&bars.high[window.clone()], &bars.low[window]);
            if high.iter().chain(low).any(|x| x.is_nan()) {
                continue;
            }
            let highest = high.iter().fold(f64::MIN, |a, b| a.max(*b));
            let lowest = low.iter().fold(f64::MAX, |a, b| a.min(*b));
            let position = 100.0 * (bars.close[t] - lowest) / (highest - lowest);
            *value = if highest == lowest { 0.0 * bars.close[t] } else { position };
        }
        let mut percent_d = vec![f64::NAN; length];
        for t in k + d - 2..length {
            percent_d[t] = mean(&percent_k[t + 1 - d..=t]);
        }
        percent_k.iter_mut().take(k + d - 2).for_each(|value| *value = f64::NAN);
        [percent_k, percent_d]
    }

    #[test]
    fn agrees_with_f64() {
        for (k, d) in [(14, 3), (1, 1), (5, 1), (2, 31)] {
            check(
                &Tolerance { relative: 1e-6, level: 0.0, above_base: false },
                |gpu, series, outputs| record(gpu, &kernel(gpu)?, (k, d), series, outputs),
                |bars| reference(bars, k as usize, d as usize),
            );
        }
    }
}
