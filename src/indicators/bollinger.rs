//! Bollinger bands: m + k s, m and m - k s, relative to the base price of the series, in the unit of the price.
//!
//! m and s are mean and population deviation of the last `period` closes. The first value is at bar `period` - 1; it is
//! NaN while a NaN is in the window. Shapes: close and outputs `[series][bars]`. Source: Bollinger, *Bollinger on
//! Bollinger Bands* (2001); TA-Lib's `BBANDS` with its simple moving average.
//!
//! Both moments are taken about the current close, in one pass over the window, which keeps them right at any price
//! level. The bands themselves are rounded to f32 relative to the base, which is coarse where a price has fallen to a
//! small part of it. Two further outputs do not suffer: the offset m - close and the half
//! width k s. The cost is one read of the window a bar.

use super::Series;
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "indicators/bollinger", source: include_str!("../../shaders/indicators/bollinger.wgsl") };

/// Counterpart of `Bollinger` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Bollinger {
    /// Series.
    pub series: u32,
    /// Bars of a series.
    pub bars: u32,
    /// Window in bars.
    pub period: u32,
    /// 0, as a value that compilers cannot know.
    pub zero: u32,
    /// Distance of the bands from the middle in standard deviations.
    pub deviations: f32,
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
    let access = [Uniform, Read, Read, Write, Write, Write, Write, Write];
    Kernel::new(gpu, &SHADER, variant(gpu.class()), &access, 0)
}

/// Workgroups for so many series of so many bars.
#[must_use]
pub fn groups(variant: &Variant, series: u32, bars: u32) -> [u32; 3] {
    let [x, y] = variant.rows(series.saturating_mul(bars));
    [x, y, 1]
}

/// Records the kernel over `series` into upper, middle and lower band, offset and half width.
///
/// # Errors
/// [`crate::Error::Shape`] if an output is too small, and as [`Kernel::bind`].
pub fn record(
    gpu: &Gpu,
    kernel: &Kernel,
    (period, deviations): (u32, f64),
    series: &Series,
    outputs: [&wgpu::Buffer; 5],
) -> Result<Command> {
    let names = ["bb_upper", "bb_middle", "bb_lower", "bb_offset", "bb_width"];
    for (what, output) in names.into_iter().zip(outputs) {
        series.check(what, output)?;
    }
    let (count, bars) = (series.series(), series.bars());
    let deviations = deviations as f32;
    let params = Bollinger { series: count, bars, period, zero: 0, deviations, pad: [0; 3] };
    let uniform = gpu.uniform("bollinger", &params)?;
    let [upper, middle, lower, offset, width] = outputs;
    let buffers = [&uniform, series.close(), series.close_tail(), upper, middle, lower, offset, width];
    let group = kernel.bind(gpu, &buffers)?;
    Ok(Command::dispatch(kernel, &group, groups(&kernel.variant, count, bars)))
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Bars, Tolerance, check, mean, upload_close};
    use super::*;
    use crate::gpu::{GpuOptions, Recorder};
    use ndarray::Array2;

    fn reference(close: &[f64], period: usize, deviations: f64) -> [Vec<f64>; 5] {
        let mut bands = [0; 5].map(|_| vec![f64::NAN; close.len()]);
        for t in period - 1..close.len() {
            let window = &close[t + 1 - period..=t];
            let middle = mean(window);
            let variance = mean(&window.iter().map(|x| (x - middle) * (x - middle)).collect::<Vec<_>>());
            bands[0][t] = middle + deviations * variance.sqrt();
            bands[1][t] = middle;
            bands[2][t] = middle - deviations * variance.sqrt();
            // Relative to the close, without the loss of subtracting two large means.
            bands[3][t] = mean(&window.iter().map(|x| x - close[t]).collect::<Vec<_>>());
            bands[4][t] = deviations * variance.sqrt();
        }
        bands
    }

    #[test]
    fn bands_agree_with_f64() {
        for (period, deviations) in [(20, 2.0), (2, 0.5), (55, 3.25)] {
            check(
                &Tolerance { relative: 1e-6, level: 0.0, above_base: true },
                |gpu, series, [upper, middle, lower]| {
                    let unused = [0; 2].map(|_| gpu.upload("unused", &vec![0f32; values(series)]));
                    let [offset, width] = unused;
                    let outputs = [upper, middle, lower, &offset?, &width?];
                    record(gpu, &kernel(gpu)?, (period, deviations), series, outputs)
                },
                |bars: &Bars| {
                    let [upper, middle, lower, ..] = reference(&bars.close, period as usize, deviations);
                    [upper, middle, lower]
                },
            );
        }
    }

    #[test]
    fn offset_and_width_agree_with_f64_whatever_the_price_level() {
        for (period, deviations) in [(20, 2.0), (2, 0.5), (55, 3.25)] {
            check(
                // An offset crosses zero: what counts is the size of the terms of its mean. The deviation loses as many
                // digits as the close is deviations away from the mean.
                &Tolerance { relative: 5e-6, level: 1e-7, above_base: false },
                |gpu, series, [offset, width]| {
                    let unused = [0; 3].map(|_| gpu.upload("unused", &vec![0f32; values(series)]));
                    let [upper, middle, lower] = unused;
                    let outputs = [&upper?, &middle?, &lower?, offset, width];
                    record(gpu, &kernel(gpu)?, (period, deviations), series, outputs)
                },
                |bars: &Bars| {
                    let [.., offset, width] = reference(&bars.close, period as usize, deviations);
                    [offset, width]
                },
            );
        }
    }

    fn values(series: &Series) -> usize {
        series.series() as usize * series.bars() as usize
    }

    #[test]
    fn a_flat_window_has_no_width() {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let series = upload_close(&gpu, Array2::from_elem((1, 30), 1.1).view());
        let outputs = [0; 5].map(|_| gpu.upload("output", &[0f32; 30]).unwrap());
        let command = record(&gpu, &kernel(&gpu).unwrap(), (20, 2.0), &series, outputs.each_ref()).unwrap();
        Recorder::new(&gpu).run(&[command]).unwrap();
        for output in &outputs {
            let values: Vec<f32> = gpu.read(output).unwrap();
            assert!(values[..19].iter().all(|x| x.is_nan()) && values[19..30].iter().all(|x| *x == 0.0));
        }
    }
}
