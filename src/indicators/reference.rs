//! Prices for the tests of the kernels, and what turns a formula over one series into a check of a kernel.

use std::ops::Range;

use ndarray::{Array2, ArrayView2};

use super::Series;
use crate::Result;
use crate::gpu::{Command, Gpu, GpuOptions, Recorder};

/// Prices `[series][bars]`.
#[derive(Clone)]
pub(crate) struct Prices {
    pub name: &'static str,
    pub high: Array2<f64>,
    pub low: Array2<f64>,
    pub close: Array2<f64>,
    /// Price level, against which the rounding of f64 in the reference counts.
    pub level: f64,
}

/// One series of a case.
pub(crate) struct Bars {
    pub high: Vec<f64>,
    pub low: Vec<f64>,
    pub close: Vec<f64>,
}

/// Values in [0, 1) that repeat from run to run.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Prices {
    /// A walk with an upward drift, in which the close lies anywhere between low and high.
    pub fn walk(name: &'static str, series: usize, bars: usize, level: f64, volatility: f64) -> Self {
        let shape = (series, bars);
        let [mut high, mut low, mut close] = [0; 3].map(|_| Array2::zeros(shape));
        let mut next = noise(series as u64 * 7919 + bars as u64);
        for s in 0..series {
            let mut price = level * (1.0 + s as f64 / 3.0);
            for t in 0..bars {
                let before = price;
                price *= 1.0 + volatility * (2.0 * next() - 0.95);
                high[[s, t]] = before.max(price) * (1.0 + volatility * next() * 0.7);
                low[[s, t]] = before.min(price) * (1.0 - volatility * next() * 0.4);
                close[[s, t]] = price;
            }
        }
        Self { name, high, low, close, level }
    }

    fn flat(name: &'static str, series: usize, bars: usize, level: f64) -> Self {
        let same = Array2::from_elem((series, bars), level);
        Self { name, high: same.clone(), low: same.clone(), close: same, level }
    }

    fn with_gaps(mut self) -> Self {
        let (series, bars) = self.close.dim();
        // Different bars of different fields, two in a row, one within a warm-up, one at the very end.
        for (s, t, field) in [(0, 40, 2), (0, 41, 2), (1, 3, 2), (1, 77, 0), (2, 60, 1), (2, bars - 1, 2)] {
            let fields = [&mut self.high, &mut self.low, &mut self.close];
            fields[field][[s % series, t]] = if t == 60 { f64::INFINITY } else { f64::NAN };
        }
        self
    }

    /// Every kind of input a kernel has to cope with.
    pub fn cases() -> Vec<Self> {
        let mut all_missing = Self::walk("nothing but NaN", 1, 50, 10.0, 0.01);
        all_missing.close.fill(f64::NAN);
        vec![
            Self::walk("an odd panel", 5, 131, 100.0, 0.02),
            Self::walk("more series than a workgroup", 70, 67, 30.0, 0.03),
            Self::walk("a NaN here and there", 3, 173, 50.0, 0.02).with_gaps(),
            Self::walk("prices about 1e-4", 3, 90, 1e-4, 0.01),
            Self::walk("prices about 1e6 that hardly move", 3, 301, 1e6, 1e-5),
            Self::walk("too short", 3, 13, 100.0, 0.02),
            Self::walk("a single bar", 4, 1, 100.0, 0.02),
            Self::flat("flat", 2, 60, 1.1),
            all_missing,
        ]
    }

    fn bars(&self, series: usize) -> Bars {
        // The device reads an infinite price as none.
        let row = |prices: &Array2<f64>| {
            prices.row(series).iter().map(|x| if x.is_finite() { *x } else { f64::NAN }).collect()
        };
        Bars { high: row(&self.high), low: row(&self.low), close: row(&self.close) }
    }
}

impl Bars {
    /// Whether all three prices of a bar are there.
    pub fn complete(&self, t: usize) -> bool {
        !(self.high[t].is_nan() || self.low[t].is_nan() || self.close[t].is_nan())
    }
}

/// The longest ranges of positions below `length` that are all `good`.
pub(crate) fn stretches(length: usize, good: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut start = 0;
    for t in 0..=length {
        if t == length || !good(t) {
            if start < t {
                all.push(start..t);
            }
            start = t + 1;
        }
    }
    all
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// How far a kernel may be from f64.
pub(crate) struct Tolerance {
    /// Of the value itself.
    pub relative: f64,
    /// Of the price level, for what the reference loses in f64; 0 for outputs without the unit of a price.
    pub level: f64,
    /// Added to the value before it is compared, for outputs relative to the base price.
    pub above_base: bool,
}

/// Runs `record` on every case and compares its `N` outputs with `formula`, which gives them for one series.
pub(crate) fn check<const N: usize>(
    tolerance: &Tolerance,
    record: impl Fn(&Gpu, &Series, [&wgpu::Buffer; N]) -> Result<Command>,
    formula: impl Fn(&Bars) -> [Vec<f64>; N],
) {
    let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
    for prices in Prices::cases() {
        let (series, bars) = prices.close.dim();
        let views = [&prices.high, &prices.low, &prices.close].map(|prices| prices.view());
        let on_device = Series::upload(&gpu, views[0], views[1], views[2]).unwrap();
        // What a kernel does not write must not look like a value.
        let buffers = [0; N].map(|_| gpu.upload("output", &vec![7e33f32; series * bars]).unwrap());
        let command = record(&gpu, &on_device, buffers.each_ref()).unwrap();
        Recorder::new(&gpu).run(&[command]).unwrap();
        let outputs = buffers.each_ref().map(|buffer| gpu.read::<f32>(buffer).unwrap());
        for s in 0..series {
            let base = if tolerance.above_base { on_device.base()[s] } else { 0.0 };
            let expected = formula(&prices.bars(s));
            for (n, (got, want)) in outputs.iter().zip(&expected).enumerate() {
                for t in 0..bars {
                    let got = f64::from(got[s * bars + t]) + base;
                    let allowed = tolerance.relative * want[t].abs() + tolerance.level * prices.level;
                    let same = (got.is_nan() && want[t].is_nan()) || (got - want[t]).abs() <= allowed;
                    assert!(same, "{}: output {n}, series {s}, bar {t}: {got}, not {}", prices.name, want[t]);
                }
            }
        }
    }
}

/// Uploads prices whose high, low and close are the same.
pub(crate) fn upload_close(gpu: &Gpu, close: ArrayView2<'_, f64>) -> Series {
    Series::upload(gpu, close, close, close).unwrap()
}
