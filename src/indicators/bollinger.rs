//! Bollinger bands: m + k s, m and m - k s, relative to the base price of the series, in the unit of the price.
//!
//! m and s are mean and population deviation of the last `period` closes. The first value is at bar `period` - 1; it is
//! NaN while a NaN is in the window. Shapes: close and outputs `[series][bars]`. Source: Bollinger, *Bollinger on
//! Bollinger Bands* (2001); TA-Lib's `BBANDS` with its simple moving average.
//!
//! Both moments are taken about the current close, in one pass over the window, which keeps the deviation right at
//! any price level. The cost is one read of the window a bar.

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
    super::wide(class)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::new(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Read, Write, Write, Write], 0)
}

/// Workgroups for so many series of so many bars.
#[must_use]
pub fn groups(variant: &Variant, series: u32, bars: u32) -> [u32; 3] {
    super::rows(variant, series.saturating_mul(bars))
}

/// Records the kernel over `series` into upper, middle and lower band.
///
/// # Errors
/// [`crate::Error::Shape`] if a band is too small, and as [`Kernel::bind`].
pub fn record(
    gpu: &Gpu,
    kernel: &Kernel,
    (period, deviations): (u32, f64),
    series: &Series,
    [upper, middle, lower]: [&wgpu::Buffer; 3],
) -> Result<Command> {
    for (what, band) in [("bb_upper", upper), ("bb_middle", middle), ("bb_lower", lower)] {
        series.check(what, band)?;
    }
    let (count, bars) = (series.series(), series.bars());
    let deviations = deviations as f32;
    let params = Bollinger { series: count, bars, period, zero: 0, deviations, pad: [0; 3] };
    let uniform = gpu.uniform("bollinger", &params)?;
    let group = kernel.bind(gpu, &[&uniform, series.close(), series.close_tail(), upper, middle, lower])?;
    Ok(Command::dispatch(kernel, &group, groups(&kernel.variant, count, bars)))
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Bars, Tolerance, check, mean, upload_close};
    use super::*;
    use crate::gpu::{GpuOptions, Recorder};
    use ndarray::Array2;

    fn reference(close: &[f64], period: usize, deviations: f64) -> [Vec<f64>; 3] {
        let mut bands = [0; 3].map(|_| vec![f64::NAN; close.len()]);
        for t in period - 1..close.len() {
            let window = &close[t + 1 - period..=t];
            let middle = mean(window);
            let variance = mean(&window.iter().map(|x| (x - middle) * (x - middle)).collect::<Vec<_>>());
            bands[0][t] = middle + deviations * variance.sqrt();
            bands[1][t] = middle;
            bands[2][t] = middle - deviations * variance.sqrt();
        }
        bands
    }

    #[test]
    fn agrees_with_f64() {
        for (period, deviations) in [(20, 2.0), (2, 0.5), (55, 3.25)] {
            check(
                &Tolerance { relative: 1e-6, level: 0.0, above_base: true },
                |gpu, series, bands| record(gpu, &kernel(gpu)?, (period, deviations), series, bands),
                |bars: &Bars| reference(&bars.close, period as usize, deviations),
            );
        }
    }

    #[test]
    fn the_width_is_right_whatever_the_price_level() {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let bars = 400;
        for level in [0.0, 1e6] {
            let wave = |t: usize| level + (t as f64 * 0.7).sin() + 0.3 * (t as f64 * 0.11).cos();
            let close = Array2::from_shape_fn((1, bars), |(_, t)| wave(t));
            let series = upload_close(&gpu, close.view());
            let bands = [0; 3].map(|_| gpu.upload("band", &vec![0f32; bars]).unwrap());
            let command = record(&gpu, &kernel(&gpu).unwrap(), (20, 2.0), &series, bands.each_ref()).unwrap();
            Recorder::new(&gpu).run(&[command]).unwrap();
            let [upper, _, lower] = bands.each_ref().map(|band| gpu.read::<f32>(band).unwrap());
            let [high, _, low] = reference(&close.row(0).to_vec(), 20, 2.0);
            for t in 19..bars {
                let (got, want) = (f64::from(upper[t] - lower[t]), high[t] - low[t]);
                assert!((got - want).abs() <= 1e-6 * want, "level {level}, bar {t}: {got}, not {want}");
            }
        }
    }
}
