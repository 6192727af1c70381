//! All six indicators over one panel, beside the `ta-lib` crate on the same data in the same run.
//!
//! The device works on prices that are already there and leaves its outputs there, in f32; TA-Lib works in memory on
//! one thread, in f64, into buffers allocated before. Criterion reports wall time; GPU time comes from timestamps. Where
//! a panel takes so long that criterion's ten samples would take most of a minute, its second run is all there is.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use phalanx::gpu::{Gpu, GpuOptions, Profiler};
use phalanx::indicators::{Indicators, Parameters, Series};
use ta_lib::{Core, MAType};

/// A run longer than this is not repeated.
const SLOW: Duration = Duration::from_secs(2);

struct Prices {
    high: Array2<f64>,
    low: Array2<f64>,
    close: Array2<f64>,
}

/// A random walk about 100 that repeats from run to run.
fn walk(series: usize, bars: usize) -> Prices {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let [mut high, mut low, mut close] = [0; 3].map(|_| Array2::zeros((series, bars)));
    for s in 0..series {
        let mut price = 100.0;
        for t in 0..bars {
            let before: f64 = price;
            price *= 1.0 + 0.02 * (next() - 0.5);
            high[[s, t]] = before.max(price) * (1.0 + 0.005 * next());
            low[[s, t]] = before.min(price) * (1.0 - 0.005 * next());
            close[[s, t]] = price;
        }
    }
    Prices { high, low, close }
}

/// All six indicators of every series with TA-Lib's defaults.
fn by_ta_lib(core: &Core, prices: &Prices, out: &mut [Vec<f64>; 11]) -> Result<(), ta_lib::RetCode> {
    let last = prices.close.ncols() - 1;
    let [rsi, line, signal, histogram, upper, middle, lower, atr, momentum, percent_k, percent_d] = out;
    for s in 0..prices.close.nrows() {
        let (high, low, close) = (prices.high.row(s), prices.low.row(s), prices.close.row(s));
        let (Some(high), Some(low), Some(close)) = (high.to_slice(), low.to_slice(), close.to_slice()) else {
            return Err(ta_lib::RetCode::BadParam);
        };
        core.rsi(0, last, close, 14, rsi)?;
        core.macd(0, last, close, 12, 26, 9, line, signal, histogram)?;
        core.bbands(0, last, close, 20, 2.0, 2.0, MAType::SMA, upper, middle, lower)?;
        core.atr(0, last, high, low, close, 14, atr)?;
        core.mom(0, last, close, 10, momentum)?;
        core.stochf(0, last, high, low, close, 14, 3, MAType::SMA, percent_k, percent_d)?;
    }
    Ok(())
}

/// Seconds of a kind and how many runs they are of.
#[derive(Default)]
struct Total {
    time: Duration,
    runs: u64,
}

impl Total {
    fn add(&mut self, time: Duration) {
        self.time += time;
        self.runs += 1;
    }

    fn per_bar(&self, values: usize) -> String {
        if self.runs == 0 {
            return "none".into();
        }
        format!("{:.2}", self.time.as_secs_f64() * 1e9 / self.runs as f64 / values as f64)
    }
}

fn indicators(criterion: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let profiler = Profiler::new(&gpu).expect("timestamps");
    let indicators = Indicators::new(&gpu, Parameters::default()).expect("kernels");
    let core = Core::new();
    let mut summary = vec![format!(
        "{:>12} {:>10} {:>10} {:>10}   ns per bar on {}",
        "panel",
        "GPU",
        "wall",
        "ta-lib",
        gpu.info().name
    )];
    let mut group = criterion.benchmark_group("indicators");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for (series, bars) in [(1, 500), (64, 10_000), (1024, 4096)] {
        let name = format!("{series}x{bars}");
        let prices = walk(series, bars);
        let on_device =
            Series::upload(&gpu, prices.high.view(), prices.low.view(), prices.close.view()).expect("room");
        let commands = indicators.panel(&on_device).expect("room").commands();
        group.throughput(Throughput::Elements((series * bars) as u64));
        let [mut on_gpu, mut wall, mut peer] = [0; 3].map(|_| Total::default());
        // The first run also pays for what the driver puts off until then.
        profiler.time(&commands).expect("a run");
        let second = profiler.time(&commands).expect("a run");
        if second.wall > SLOW {
            second.gpu.into_iter().for_each(|time| on_gpu.add(time));
            wall.add(second.wall);
        } else {
            group.bench_function(BenchmarkId::new("phalanx", &name), |bencher| {
                bencher.iter_custom(|runs| {
                    let mut sum = Duration::ZERO;
                    for _ in 0..runs {
                        let timing = profiler.time(&commands).expect("a run");
                        timing.gpu.into_iter().for_each(|time| on_gpu.add(time));
                        wall.add(timing.wall);
                        sum += timing.wall;
                    }
                    sum
                });
            });
        }
        let mut out = [0; 11].map(|_| vec![0.0; bars]);
        group.bench_function(BenchmarkId::new("ta-lib", &name), |bencher| {
            bencher.iter_custom(|runs| {
                let start = Instant::now();
                for _ in 0..runs {
                    by_ta_lib(&core, black_box(&prices), &mut out).expect("valid prices");
                    black_box(&mut out);
                }
                let time = start.elapsed();
                peer.time += time;
                peer.runs += runs;
                time
            });
        });
        let runs = wall.runs;
        let [on_gpu, wall, peer] = [&on_gpu, &wall, &peer].map(|total| total.per_bar(series * bars));
        summary.push(format!("{name:>12} {on_gpu:>10} {wall:>10} {peer:>10}   {runs} runs"));
    }
    group.finish();
    println!("\n{}", summary.join("\n"));
}

criterion_group!(benches, indicators);
criterion_main!(benches);
