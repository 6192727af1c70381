//! Relative strength index: 100 G / (G + L), in 0 to 100.
//!
//! G and L are Wilder's averages of the gains max(d, 0) and losses max(-d, 0) of d = close\[t\] - close\[t-1\]: the
//! mean of the first `period` ones, then x <- x + (new - x) / period. The first value is at bar `period`. Where
//! nothing moved since the start (G + L = 0) it is 50. After a NaN the next bar is bar 0 again.
//!
//! Shapes: close and output `[series][bars]`. Source: Wilder, *New Concepts in Technical Trading Systems* (1978); seed
//! and flat prices as `ta-lib` 0.8. The averages lose no digits to long periods (compensated sums); after about a
//! thousand bars without any change they vanish in f32 and the value becomes 50.

use super::Series;
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "indicators/rsi", source: include_str!("../../shaders/indicators/rsi.wgsl") };

/// Counterpart of `Rsi` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Rsi {
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
    Kernel::new(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Read, Write], 0)
}

/// Workgroups for so many series.
#[must_use]
pub fn groups(variant: &Variant, series: u32) -> [u32; 3] {
    let [x, y] = variant.rows(series);
    [x, y, 1]
}

/// Records the kernel over `series` into `rsi`.
///
/// # Errors
/// [`crate::Error::Shape`] if `rsi` is too small, and as [`Kernel::bind`].
pub fn record(
    gpu: &Gpu,
    kernel: &Kernel,
    period: u32,
    series: &Series,
    rsi: &wgpu::Buffer,
) -> Result<Command> {
    series.check("rsi", rsi)?;
    let params = Rsi { series: series.series(), bars: series.bars(), period, zero: 0 };
    let uniform = gpu.uniform("rsi", &params)?;
    let group = kernel.bind(gpu, &[&uniform, series.close(), series.close_tail(), rsi])?;
    Ok(Command::dispatch(kernel, &group, groups(&kernel.variant, params.series)))
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Bars, Tolerance, check, mean, stretches, upload_close};
    use super::*;
    use crate::gpu::{GpuOptions, Recorder};
    use ndarray::{Array2, array};

    fn reference(close: &[f64], period: usize) -> Vec<f64> {
        let mut rsi = vec![f64::NAN; close.len()];
        for stretch in stretches(close.len(), |t| !close[t].is_nan()) {
            let changes: Vec<f64> = close[stretch.clone()].windows(2).map(|pair| pair[1] - pair[0]).collect();
            if changes.len() < period {
                continue;
            }
            let gains: Vec<f64> = changes.iter().map(|d| d.max(0.0)).collect();
            let losses: Vec<f64> = changes.iter().map(|d| (-d).max(0.0)).collect();
            let (mut gain, mut loss) = (mean(&gains[..period]), mean(&losses[..period]));
            for i in period..=changes.len() {
                rsi[stretch.start + i] = if gain + loss > 0.0 { 100.0 * gain / (gain + loss) } else { 50.0 };
                if i < changes.len() {
                    let n = period as f64;
                    gain = ((n - 1.0) * gain + gains[i]) / n;
                    loss = ((n - 1.0) * loss + losses[i]) / n;
                }
            }
        }
        rsi
    }

    #[test]
    fn agrees_with_f64() {
        for period in [14, 2, 37] {
            check(
                &Tolerance { relative: 1e-6, level: 0.0, above_base: false },
                |gpu, series, [rsi]| record(gpu, &kernel(gpu)?, period, series, rsi),
                |bars: &Bars| [reference(&bars.close, period as usize)],
            );
        }
    }

    #[test]
    fn flat_prices_give_50_and_one_way_prices_the_ends() {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let close = Array2::from_shape_fn((3, 20), |(s, t)| [7.0, 7.0 + t as f64, 90.0 - 1.3 * t as f64][s]);
        let series = upload_close(&gpu, close.view());
        let output = gpu.upload("rsi", &[0f32; 60]).unwrap();
        let command = record(&gpu, &kernel(&gpu).unwrap(), 14, &series, &output).unwrap();
        Recorder::new(&gpu).run(&[command]).unwrap();
        let rsi: Vec<f32> = gpu.read(&output).unwrap();
        for t in 0..20 {
            let got = [rsi[t], rsi[20 + t], rsi[40 + t]];
            assert!(if t < 14 { got.iter().all(|x| x.is_nan()) } else { got == [50.0, 100.0, 0.0] }, "{t}");
        }
    }

    #[test]
    fn a_short_output_is_refused() {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let series = upload_close(&gpu, array![[1.0, 2.0, 3.0, 4.0, 5.0]].view());
        let output = gpu.upload("rsi", &[0f32; 4]).unwrap();
        let error = record(&gpu, &kernel(&gpu).unwrap(), 2, &series, &output).unwrap_err();
        assert!(error.to_string().contains("at least 20 bytes"), "{error}");
    }
}
