//! Scales features by the mean and population standard deviation of the training bars and clips them to `[-limit, limit]`.
//!
//! Shapes: data f32 `[bar][column]`, where a column is one feature of one instrument; statistics f32 `[column][mean,
//! standard deviation]`, written if fitted, read if given. A column that is constant in training becomes 0.
//! A column that marks filled bars stays as it is and has the statistics [0, 1].

use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("market/scale");

/// Counterpart of `Scale` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    /// Bars.
    pub bars: u32,
    /// Columns.
    pub columns: u32,
    /// First training bar.
    pub first: u32,
    /// One past the last training bar.
    pub end: u32,
    /// 1 computes the statistics, 0 uses those given.
    pub fit: u32,
    /// Largest absolute value of a scaled feature.
    pub limit: f32,
    /// 0; the shader explains why it is not a constant.
    pub zero: u32,
    /// Features per instrument if the last one marks filled bars, which is not scaled; 0 if none does.
    pub marked: u32,
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Uniform, Write};
    Kernel::trusted(gpu, &SHADER, Variant::independent(gpu.class()), &[Uniform, Write, Write], 0)
}

/// Workgroups: one invocation per column.
#[must_use]
pub fn groups(variant: &Variant, columns: u32) -> [u32; 3] {
    [variant.groups(columns), 1, 1]
}

/// Binds the kernel to its buffers. The caller guarantees their sizes: the kernel runs without bounds checks.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    parameters: &Parameters,
    statistics: &wgpu::Buffer,
    data: &wgpu::Buffer,
) -> Result<BindGroup> {
    let uniform = gpu.uniform("scale", parameters)?;
    kernel.bind(gpu, &[&uniform, statistics, data])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Command, Recorder};

    fn scale(data: &[f32], columns: u32, parameters: Parameters, given: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let gpu = crate::testing::gpu();
        let kernel = kernel(&gpu).unwrap();
        let (statistics, values) = (gpu.upload("s", given).unwrap(), gpu.upload("d", data).unwrap());
        let group = bind(&gpu, &kernel, &parameters, &statistics, &values).unwrap();
        let grid = groups(&kernel.variant, columns);
        Recorder::new(&gpu).run(&[Command::dispatch(&kernel, &group, grid)]).unwrap();
        (gpu.read(&values).unwrap(), gpu.read(&statistics).unwrap())
    }

    #[test]
    fn only_training_bars_count_and_given_statistics_are_used() {
        let (bars, columns) = (101usize, 3usize);
        let value = |bar: usize, c: usize| match c {
            0 => ((bar * 37) % 53) as f32 / 10.0 + 100.0,
            1 => 7.0,
            _ => {
                if bar == 90 {
                    f32::NAN
                } else {
                    bar as f32
                }
            }
        };
        let data: Vec<f32> = (0..bars).flat_map(|bar| (0..columns).map(move |c| value(bar, c))).collect();
        let fit = Parameters {
            bars: bars as u32,
            columns: columns as u32,
            first: 10,
            end: 61,
            fit: 1,
            limit: 3.0,
            zero: 0,
            marked: 0,
        };
        let (scaled, statistics) = scale(&data, 3, fit, &[f32::NAN; 6]);
        for c in [0, 2] {
            let train: Vec<f64> = (10..61).map(|bar| f64::from(value(bar, c))).collect();
            let mean = train.iter().sum::<f64>() / 51.0;
            let deviation = (train.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 51.0).sqrt();
            assert!((f64::from(statistics[c * 2]) - mean).abs() < 1e-5 * mean);
            assert!((f64::from(statistics[c * 2 + 1]) - deviation).abs() < 1e-5 * deviation);
            for bar in 0..bars {
                let x = f64::from(value(bar, c));
                let expected = if x.is_nan() { 0.0 } else { ((x - mean) / deviation).clamp(-3.0, 3.0) };
                let got = f64::from(scaled[bar * columns + c]);
                assert!((got - expected).abs() < 1e-4, "bar {bar} column {c}: {got} for {expected}");
            }
        }
        assert!((0..bars).all(|bar| scaled[bar * columns + 1] == 0.0), "a constant column becomes 0");

        // Without the unrolling by eight, the loops would exceed llvmpipe's limit of iterations.
        let long: Vec<f32> = (0..60_000).map(|bar| (bar % 7) as f32).collect();
        let fit_long = Parameters { bars: 60_000, columns: 1, first: 0, end: 45_000, ..fit };
        let (scaled_long, _) = scale(&long, 1, fit_long, &[0.0; 2]);
        assert!(
            (scaled_long[59_999] - ((59_999 % 7) as f32 - 3.0) / 2.0).abs() < 1e-3,
            "{}",
            scaled_long[59_999]
        );

        let (again, _) = scale(&data, 3, Parameters { fit: 0, first: 0, end: 1, ..fit }, &statistics);
        assert_eq!(again[..bars * columns], scaled[..bars * columns]);

        // One instrument with three features, the last of which marks filled bars.
        let (kept, statistics) = scale(&data, 3, Parameters { marked: 3, ..fit }, &[f32::NAN; 6]);
        assert_eq!(statistics[4..6], [0.0, 1.0]);
        assert!((0..bars).all(|bar| kept[bar * columns] == scaled[bar * columns]));
        assert!((0..90).all(|bar| kept[bar * columns + 2] == value(bar, 2)));
    }
}
