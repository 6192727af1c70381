//! Moving average convergence divergence: line, signal and histogram, in the unit of the price.
//!
//! Line = EMA_fast - EMA_slow of the close, signal = EMA of the line, histogram = line - signal, with
//! EMA <- EMA + 2 / (period + 1) (new - EMA). The slow average starts at bar `slow` - 1 with the mean of the first `slow`
//! closes, **the fast one at the same bar** with the mean of the last `fast` of them, the signal with the mean of the
//! first `signal` values of the line. All three outputs start at bar `slow` + `signal` - 2. After a NaN the next bar is
//! bar 0 again.
//!
//! Shapes: close and outputs `[series][bars]`. Source: Appel, *The Moving Average Convergence-Divergence Method* (1979);
//! seeds as TA-Lib's `MACD`. Histogram and line cross zero, where f32 would leave no digit right: the kernel carries
//! pairs of f32 (about 46 bits) and rounds its outputs once.

use super::Series;
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "indicators/macd", source: include_str!("../../shaders/indicators/macd.wgsl") };

/// Counterpart of `Macd` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Macd {
    /// Series.
    pub series: u32,
    /// Bars of a series.
    pub bars: u32,
    /// Period of the fast average in bars.
    pub fast: u32,
    /// Period of the slow average in bars.
    pub slow: u32,
    /// Period of the signal in bars.
    pub signal: u32,
    /// 0, as a value that compilers cannot know.
    pub zero: u32,
    /// Fills up to 32 bytes.
    pub pad: [u32; 2],
    /// 2 / (period + 1) of fast, slow and signal, each as head and tail.
    pub weights: [[f32; 2]; 3],
    /// 1 / period of fast, slow and signal, each as head and tail.
    pub shares: [[f32; 2]; 3],
}

/// x as a sum of two f32.
fn pair(x: f64) -> [f32; 2] {
    let head = x as f32;
    [head, (x - f64::from(head)) as f32]
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
    Kernel::new(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Read, Write, Write, Write], 0)
}

/// Workgroups for so many series.
#[must_use]
pub fn groups(variant: &Variant, series: u32) -> [u32; 3] {
    let [x, y] = variant.rows(series);
    [x, y, 1]
}

/// Records the kernel over `series` into line, signal and histogram; `[fast, slow, signal]` are periods.
///
/// # Errors
/// [`crate::Error::Shape`] if an output is too small, and as [`Kernel::bind`].
pub fn record(
    gpu: &Gpu,
    kernel: &Kernel,
    periods: [u32; 3],
    series: &Series,
    [line, signal, histogram]: [&wgpu::Buffer; 3],
) -> Result<Command> {
    for (what, output) in [("macd", line), ("macd_signal", signal), ("macd_hist", histogram)] {
        series.check(what, output)?;
    }
    let params = Macd {
        series: series.series(),
        bars: series.bars(),
        fast: periods[0],
        slow: periods[1],
        signal: periods[2],
        zero: 0,
        pad: [0; 2],
        weights: periods.map(|period| pair(2.0 / (f64::from(period) + 1.0))),
        shares: periods.map(|period| pair(1.0 / f64::from(period))),
    };
    let uniform = gpu.uniform("macd", &params)?;
    let buffers = [&uniform, series.close(), series.close_tail(), line, signal, histogram];
    let group = kernel.bind(gpu, &buffers)?;
    Ok(Command::dispatch(kernel, &group, groups(&kernel.variant, params.series)))
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Bars, Tolerance, check, mean, stretches};
    use super::*;

    /// The average of `values`, which starts at `seed` - 1 with the mean of the `period` values up to there.
    fn ema(values: &[f64], period: usize, seed: usize) -> Vec<f64> {
        let mut average = mean(&values[seed - period..seed]);
        let mut all = vec![average];
        for value in &values[seed..] {
            average += 2.0 / (period as f64 + 1.0) * (value - average);
            all.push(average);
        }
        all
    }

    fn reference(close: &[f64], [fast, slow, signal]: [usize; 3]) -> [Vec<f64>; 3] {
        let mut outputs = [0; 3].map(|_| vec![f64::NAN; close.len()]);
        for stretch in stretches(close.len(), |t| !close[t].is_nan()) {
            if stretch.len() < slow + signal - 1 {
                continue;
            }
            let prices = &close[stretch.clone()];
            let averages = ema(prices, fast, slow).into_iter().zip(ema(prices, slow, slow));
            let line: Vec<f64> = averages.map(|(fast, slow)| fast - slow).collect();
            for (i, average) in ema(&line, signal, signal).into_iter().enumerate() {
                let (line, t) = (line[signal - 1 + i], stretch.start + slow + signal - 2 + i);
                (outputs[0][t], outputs[1][t], outputs[2][t]) = (line, average, line - average);
            }
        }
        outputs
    }

    #[test]
    fn agrees_with_f64_even_where_it_crosses_zero() {
        for [fast, slow, signal] in [[12, 26, 9], [2, 3, 2], [5, 35, 20]] {
            check(
                &Tolerance { relative: 1e-7, level: 3e-15, above_base: false },
                |gpu, series, outputs| record(gpu, &kernel(gpu)?, [fast, slow, signal], series, outputs),
                |bars: &Bars| reference(&bars.close, [fast, slow, signal].map(|n| n as usize)),
            );
        }
    }
}
