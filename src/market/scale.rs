//! Scales features by the mean and population standard deviation of the training bars and clips them to `[-limit, limit]`.
//!
//! Shapes: data f32 `[bar][column]`, where a column is one feature of one instrument; statistics f32 `[column][mean,
//! standard deviation]`, written if there are training bars, read otherwise. A column that is constant in training becomes 0.
//! A column that marks filled bars stays as it is and has the statistics [0, 1].
//!
//! No invocation walks over all bars: statistics are sums of chunks that are joined ([`super::scale_stats`]), and an invocation scales
//! a few bars.

use super::scale_stats;
pub use super::scale_stats::Parameters;
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Recording, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("market/scale");

/// Bars that an invocation scales. On software rasterisers an invocation costs more than a bar.
const fn bars_of_one(class: Class) -> u32 {
    match class {
        Class::Hardware => 4,
        Class::Software => 256,
    }
}

/// The variant for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::wide(class).with("BARS", bars_of_one(class))
}

/// Workgroups: one invocation per column and a few bars.
fn groups(class: Class, parameters: &Parameters) -> [u32; 3] {
    let [x, y] = variant(class).rows(parameters.bars.div_ceil(bars_of_one(class)) * parameters.columns);
    [x, y, 1]
}

/// The dispatches that compute the statistics, if there are training bars, and scale the data. The caller guarantees the sizes of the
/// buffers: the kernels run without bounds checks.
///
/// # Errors
/// As [`Kernel::new`], [`Gpu::buffer`] and [`Kernel::bind`].
pub fn commands(
    gpu: &Gpu,
    parameters: &Parameters,
    statistics: &wgpu::Buffer,
    data: &wgpu::Buffer,
) -> Result<Recording> {
    use Access::{Read, Uniform, Write};
    let uniform = gpu.uniform("scaling", parameters)?;
    let mut commands = match parameters.end > parameters.first {
        true => scale_stats::commands(gpu, parameters, &uniform, statistics, data)?,
        false => Recording::new(),
    };
    let kernel = Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Write], 0)?;
    let group = kernel.bind(gpu, &[&uniform, statistics, data])?;
    commands.push(Command::dispatch(&kernel, &group, groups(gpu.class(), parameters)));
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Recorder;
    use crate::testing::both_classes;

    fn scale(gpu: &Gpu, data: &[f32], parameters: Parameters, given: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (statistics, values) = (gpu.upload("s", given).unwrap(), gpu.upload("d", data).unwrap());
        let commands = commands(gpu, &parameters, &statistics, &values).unwrap();
        Recorder::new(gpu).run(&commands).unwrap();
        (gpu.read(&values).unwrap(), gpu.read(&statistics).unwrap())
    }

    #[test]
    fn only_training_bars_count_and_given_statistics_are_used() {
        for gpu in both_classes() {
            only_training_bars_count(&gpu);
        }
    }

    fn only_training_bars_count(gpu: &Gpu) {
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
            limit: 3.0,
            ..Parameters::default()
        };
        let (scaled, statistics) = scale(gpu, &data, fit, &[f32::NAN; 6]);
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

        // More bars than llvmpipe's limit of 65,535 iterations of an invocation.
        let long: Vec<f32> = (0..90_000).map(|bar| (bar % 7) as f32).collect();
        let fit_long = Parameters { bars: 90_000, columns: 1, first: 0, end: 70_000, ..fit };
        let (scaled_long, _) = scale(gpu, &long, fit_long, &[0.0; 2]);
        assert!(
            (scaled_long[89_999] - ((89_999 % 7) as f32 - 3.0) / 2.0).abs() < 1e-3,
            "{}",
            scaled_long[89_999]
        );

        let (again, _) = scale(gpu, &data, Parameters { first: 0, end: 0, ..fit }, &statistics);
        assert_eq!(again[..bars * columns], scaled[..bars * columns]);

        // One instrument with three features, the last of which marks filled bars.
        let (kept, statistics) = scale(gpu, &data, Parameters { marked: 3, ..fit }, &[f32::NAN; 6]);
        assert_eq!(statistics[4..6], [0.0, 1.0]);
        assert!((0..bars).all(|bar| kept[bar * columns] == scaled[bar * columns]));
        assert!((0..90).all(|bar| kept[bar * columns + 2] == value(bar, 2)));
    }

    /// Training bars and columns.
    const SIZES: [(usize, usize); 9] =
        [(1, 1), (2, 3), (255, 5), (256, 4), (257, 7), (1023, 1), (5000, 6), (70_001, 2), (33_333, 11)];

    /// A mean of 100,000 and a deviation of a few units in its last place; numbers of very different sizes; outliers; a trend; a
    /// constant.
    fn value(bar: usize, column: usize) -> f32 {
        let noise = ((bar * 7919 + column * 104_729) % 10_007) as f64 / 10_007.0 - 0.5;
        let value = match column % 5 {
            0 => 100_000.0 + 2.0 * noise,
            1 => noise * 10f64.powi((bar % 9) as i32 - 4),
            2 if bar % 1000 < 3 => 1e12,
            2 => noise,
            3 => bar as f64 * 1e-3 + noise,
            _ => -123.456,
        };
        value as f32
    }

    #[test]
    fn statistics_agree_with_f64_whatever_the_sizes_and_repeat_their_bits() {
        for gpu in both_classes() {
            for (train, columns) in SIZES {
                // Bars before and after the training bars, which must not count.
                let (first, bars) = (train / 3, train / 3 + train + 9);
                let train = first..first + train;
                let of = |bar: usize, column: usize| match train.contains(&bar) {
                    true => value(bar, column),
                    false => f32::NAN,
                };
                let data: Vec<f32> =
                    (0..bars).flat_map(|bar| (0..columns).map(move |column| of(bar, column))).collect();
                let parameters = Parameters {
                    bars: bars as u32,
                    columns: columns as u32,
                    first: train.start as u32,
                    end: train.end as u32,
                    limit: 4.0,
                    ..Parameters::default()
                };
                let given = vec![f32::NAN; 2 * columns];
                let (scaled, statistics) = scale(&gpu, &data, parameters, &given);
                for column in 0..columns {
                    let values = || train.clone().map(|bar| f64::from(value(bar, column)));
                    let count = train.len() as f64;
                    let mean = values().sum::<f64>() / count;
                    let size = values().map(f64::abs).sum::<f64>() / count;
                    let deviation = (values().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
                    let [got, spread] = [0, 1].map(|i| f64::from(statistics[2 * column + i]));
                    let name =
                        format!("column {column} of {columns}, {} bars, {:?}", train.len(), gpu.class());
                    // Compensated sums: little more than the rounding of the mean, even where values cancel.
                    assert!(
                        (got - mean).abs() <= 3e-7 * mean.abs() + 1e-8 * size,
                        "{name}: mean {got} for {mean}"
                    );
                    let error = (spread - deviation).abs();
                    assert!(error <= 1e-6 * deviation + 1e-10 * size, "{name}: {spread} for {deviation}");
                    for bar in 0..bars {
                        let x = f64::from(of(bar, column));
                        let apart = (x - got) / spread;
                        let constant = spread <= 1e-6 * got.abs() || x.is_nan();
                        let expected = if constant { 0.0 } else { apart.clamp(-4.0, 4.0) };
                        let found = f64::from(scaled[bar * columns + column]);
                        assert!((found - expected).abs() < 2e-6, "{name}, bar {bar}: {found} for {expected}");
                    }
                }
                let (again, same) = scale(&gpu, &data, parameters, &given);
                assert_eq!(bytemuck::cast_slice::<_, u8>(&again), bytemuck::cast_slice::<_, u8>(&scaled));
                assert_eq!(bytemuck::cast_slice::<_, u8>(&same), bytemuck::cast_slice::<_, u8>(&statistics));
            }
        }
    }

    #[test]
    fn a_number_that_is_not_finite_shows_in_the_statistics() {
        for (gpu, wrong) in both_classes().iter().flat_map(|gpu| [(gpu, f32::NAN), (gpu, f32::INFINITY)]) {
            let mut data: Vec<f32> = (0..1000).map(|bar| bar as f32).collect();
            data[700] = wrong;
            let parameters =
                Parameters { bars: 1000, columns: 1, end: 1000, limit: 5.0, ..Parameters::default() };
            let (_, statistics) = scale(gpu, &data, parameters, &[0.0; 2]);
            assert!(statistics.iter().any(|value| !value.is_finite()), "{wrong}: {statistics:?}");
        }
    }
}
