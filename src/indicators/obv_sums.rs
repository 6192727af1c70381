//! On-balance volume of a few long series on GPUs, as a scan along time: the sum over every chunk of a row, the value before every chunk
//! ([`obv_starts`]), and then the chunks, each from the value before it, as parts of one series.
//!
//! A chunk's sum is compensated as that of [`super::obv`] is. It is the change of the value, or the value itself if it restarts in the
//! chunk, after a missing bar.
//!
//! Shapes: candles and volumes as in [`super::panel`], sums f32 `[row][chunk][sum, rounding error, restarts, last bar is complete]`.

use super::obv_starts;
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("indicators/obv_sums");

/// Mirrors `Parameters` in `lib/obv`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    /// Rows of outputs.
    pub rows: u32,
    /// Series, of which several rows may be the same one.
    pub series: u32,
    /// Length of a series in memory, in groups of four bars as all lengths.
    pub stride: u32,
    /// Chunks per row.
    pub chunks: u32,
    /// Length of a chunk.
    pub length: u32,
    /// 0; the shader explains why it is not a constant.
    pub zero: u32,
    /// Fills up to 16 bytes.
    pub pad: [u32; 2],
}

/// The variant for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::wide(class)
}

/// Bytes of the sums over so many chunks of rows.
#[must_use]
pub fn bytes(chunks: u32) -> u64 {
    u64::from(chunks) * 16
}

/// The dispatches that write the counters and states with which the panel's chunks start. The caller guarantees the sizes of the buffers:
/// the kernels run without bounds checks.
///
/// # Errors
/// As [`Kernel::new`], [`Gpu::buffer`] and [`Kernel::bind`].
pub fn commands(
    gpu: &Gpu,
    parameters: &Parameters,
    [candles, volumes]: [&wgpu::Buffer; 2],
    kept: [&wgpu::Buffer; 2],
) -> Result<[Command; 2]> {
    use Access::{Read, Uniform, Write};
    let chunks = parameters.rows * parameters.chunks;
    let uniform = gpu.uniform("sums of volumes", parameters)?;
    let sums = gpu.buffer("sums of volumes", bytes(chunks), crate::gpu::STATE)?;
    let kernel = Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Read, Write], 0)?;
    let group = kernel.bind(gpu, &[&uniform, candles, volumes, &sums])?;
    let [x, y] = kernel.variant.rows(chunks);
    let [counters, states] = kept;
    let buffers = [&uniform, &sums, candles, counters, states];
    let starts = obv_starts::command(gpu, parameters.rows, buffers)?;
    Ok([Command::dispatch(&kernel, &group, [x, y, 1]), starts])
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, ArrayView2};

    use super::super::{Indicators, Obv, Series};
    use super::{Parameters, commands};
    use crate::gpu::{Class, Gpu, Recorder};
    use crate::random::Stream;

    /// Closes, some of which are those before, and volumes with fractions, which f32 holds.
    fn walk(series: usize, bars: usize) -> (Array2<f64>, Array2<f64>) {
        let mut stream = Stream::new(5, bars as u32);
        let mut close = Array2::zeros((series, bars));
        let mut volume = Array2::zeros((series, bars));
        for s in 0..series {
            let mut price = 1100.0;
            for bar in 0..bars {
                price += [-0.25, 0.0, 0.25, 0.5, -0.5][(stream.uniform() * 5.0) as usize];
                close[[s, bar]] = price;
                volume[[s, bar]] = f64::from((1e6 * stream.uniform()) as f32);
            }
        }
        (close, volume)
    }

    /// The values in f64, and the largest of every series.
    fn reference(close: &Array2<f64>, volume: &Array2<f64>) -> (Array2<f64>, Vec<f64>) {
        let mut values = Array2::from_elem(close.raw_dim(), f64::NAN);
        let largest = (0..close.nrows()).map(|s| {
            let (mut total, mut before, mut largest) = (0.0, f64::NAN, 0f64);
            for bar in 0..close.ncols() {
                let (now, traded) = (close[[s, bar]], volume[[s, bar]]);
                if now.is_nan() || traded.is_nan() {
                    before = f64::NAN;
                    continue;
                }
                total = match before {
                    before if before.is_nan() => traded,
                    before if now == before => total,
                    before => total + traded * (now - before).signum(),
                };
                before = now;
                values[[s, bar]] = total;
                largest = largest.max(total.abs());
            }
            largest
        });
        let largest = largest.collect();
        (values, largest)
    }

    fn computed(gpu: &Gpu, close: &Array2<f64>, volume: ArrayView2<'_, f64>) -> (Array2<f64>, usize) {
        let (high, low) = (close + 0.5, close - 0.5);
        let series = Series::with_volume(gpu, high.view(), low.view(), close.view(), volume).unwrap();
        // With a table of parameters too, in which several rows read one series.
        let both = [Obv::default(), Obv::default()];
        let indicators = Indicators::new(gpu).with(Obv::default()).grid(both).named("twice");
        let panel = indicators.panel(&series).unwrap();
        let commands = panel.commands();
        // Again: nothing is left of the first time.
        for _ in 0..2 {
            Recorder::new(gpu).run(&commands).unwrap();
        }
        let values = panel.read(gpu).unwrap();
        let own = values.get("obv").unwrap();
        for ((_, s, bar), twice) in values.grid("twice").unwrap().indexed_iter() {
            assert_eq!(twice.to_bits(), own[[s, bar]].to_bits(), "series {s}, bar {bar}");
        }
        (own.to_owned(), commands.len())
    }

    #[test]
    fn long_series_are_summed_in_chunks_as_in_f64() {
        for gpu in crate::testing::both_classes() {
            for (series, bars) in [(1, 300_001), (3, 70_003), (40, 1500)] {
                let (mut close, mut volume) = walk(series, bars);
                // Missing bars inside of chunks and, at multiples of 256 bars, around their borders.
                for (s, bar) in [(0, 700), (0, 701), (0, 1024), (series - 1, 767), (series - 1, 1280)] {
                    close[[s, bar]] = f64::NAN;
                    volume[[s, bar + 90]] = f64::NAN;
                }
                let (expected, largest) = reference(&close, &volume);
                let (values, commands) = computed(&gpu, &close, volume.view());
                let name = format!("{:?}, {series} x {bars}", gpu.class());
                assert_eq!(commands == 6, gpu.class() == Class::Hardware, "{name}: {commands} dispatches");
                for ((s, bar), want) in expected.indexed_iter() {
                    let got = values[[s, bar]];
                    let near = (got - want).abs() <= 1e-6 * largest[s];
                    assert!(near || got.is_nan() && want.is_nan(), "{name}: {s}, {bar}: {got}, not {want}");
                }
            }
        }
    }

    /// In chunks as a series of 80 million bars has them.
    #[test]
    fn sums_over_long_chunks_are_compensated() {
        const LENGTH: usize = 5000;
        let (close, volume) = walk(1, 5 * 4 * LENGTH);
        let (expected, largest) = reference(&close, &volume);
        for gpu in crate::testing::both_classes().into_iter().filter(|gpu| gpu.class() == Class::Hardware) {
            let series =
                Series::with_volume(&gpu, close.view(), close.view(), close.view(), volume.view()).unwrap();
            let parameters = Parameters {
                rows: 1,
                series: 1,
                stride: series.stride() / 4,
                chunks: 5,
                length: LENGTH as u32,
                ..Parameters::default()
            };
            let read = [&series.candles, series.volumes.as_ref().unwrap()].map(|it| it.buffer().unwrap());
            let [counters, states] =
                [100, 40].map(|bytes| gpu.buffer("kept", bytes, crate::gpu::STATE).unwrap());
            let commands = commands(&gpu, &parameters, read, [&counters, &states]).unwrap();
            Recorder::new(&gpu).run(&commands).unwrap();
            let states: Vec<[f32; 2]> = gpu.read(&states).unwrap();
            assert_eq!(states[0], [0.0; 2]);
            for (chunk, [total, error]) in states.into_iter().enumerate().take(5).skip(1) {
                let (got, want) =
                    (f64::from(total) + f64::from(error), expected[[0, chunk * 4 * LENGTH - 1]]);
                let off = (got - want).abs() / largest[0];
                // Without compensation: 5e-7 and more.
                assert!(off <= 1e-7, "chunk {chunk}: {got}, not {want}: {off:e}");
            }
        }
    }
}
