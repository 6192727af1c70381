//! Benchmarks the six classic indicators on panels of several shapes against the `ta-lib` crate on the same data in the
//! same run, then every indicator alone. The Python peers are in `benches/peers/`.
//!
//!     cargo bench -p phalanx-benches --bench indicators -- --once SERIES BARS
//!
//! With `--once` it only measures the six together on one panel and prints one line of JSON: benches/peers/compare.py calls it.
//!
//! phalanx computes in f32, with inputs and outputs on the device. TA-Lib computes in f64 on all threads of the machine,
//! into preallocated memory. GPU time comes from timestamps; wall time includes submission and waiting. The bandwidth
//! fraction counts every input and output byte once.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use ndarray::Array2;
use phalanx::gpu::{Class, Command, Gpu, GpuOptions, Profiler, Recorder};
use phalanx::indicators::{Indicators, Series, all};
use phalanx::random::Stream;
use ta_lib::{Core, MAType};

const SHAPES: [(usize, usize); 5] = [(1, 500), (1, 100_000), (64, 100_000), (1024, 4096), (100_000, 100)];
const OUTPUTS: usize = 11;

struct Prices {
    high: Array2<f64>,
    low: Array2<f64>,
    close: Array2<f64>,
    volume: Array2<f64>,
}

/// A random walk around 100 from a fixed seed.
fn walk(series: usize, bars: usize) -> Prices {
    let mut stream = Stream::new(7, 1);
    let [mut high, mut low, mut close, mut volume] = [0; 4].map(|_| Array2::zeros((series, bars)));
    for s in 0..series {
        let mut price = 100.0;
        for t in 0..bars {
            let before: f64 = price;
            price *= (0.01 * stream.normal()).exp();
            high[[s, t]] = before.max(price) * (1.0 + 0.003 * stream.normal().abs());
            low[[s, t]] = before.min(price) * (1.0 - 0.003 * stream.normal().abs());
            close[[s, t]] = price;
            volume[[s, t]] = 1e6 * (1.0 + stream.normal().abs());
        }
    }
    Prices { high, low, close, volume }
}

/// The six indicators of one series with TA-Lib's defaults, written to `out[output][bar]`.
fn six(core: &Core, rows: [&[f64]; 3], out: &mut [Vec<f64>]) -> Result<(), ta_lib::RetCode> {
    let [high, low, close] = rows;
    let last = close.len() - 1;
    let [rsi, line, signal, histogram, upper, middle, lower, atr, momentum, percent_k, percent_d] = out
    else {
        return Err(ta_lib::RetCode::BadParam);
    };
    core.rsi(0, last, close, 14, rsi)?;
    core.macd(0, last, close, 12, 26, 9, line, signal, histogram)?;
    core.bbands(0, last, close, 20, 2.0, 2.0, MAType::SMA, upper, middle, lower)?;
    core.atr(0, last, high, low, close, 14, atr)?;
    core.mom(0, last, close, 10, momentum)?;
    core.stochf(0, last, high, low, close, 14, 3, MAType::SMA, percent_k, percent_d)?;
    Ok(())
}

/// The six indicators of all series on all threads. `out` is `[series][output][bar]`, so that threads share no memory.
fn by_ta_lib(prices: &Prices, out: &mut [Vec<Vec<f64>>]) {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = out.len().div_ceil(threads);
    thread::scope(|scope| {
        for (n, part) in out.chunks_mut(share).enumerate() {
            scope.spawn(move || {
                let core = Core::new();
                for (s, out) in part.iter_mut().enumerate() {
                    let s = n * share + s;
                    let rows = [&prices.high, &prices.low, &prices.close].map(|prices| prices.row(s));
                    let slices = rows.each_ref().map(|row| row.to_slice().expect("rows in one piece"));
                    six(&core, slices, out).expect("valid prices");
                }
            });
        }
    });
}

/// Copy bandwidth of the device: bytes read plus bytes written per second.
fn bandwidth(gpu: &Gpu) -> f64 {
    let bytes = match gpu.class() {
        Class::Hardware => 1u64 << 30,
        Class::Software => 64 << 20,
    };
    let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let [source, target] = ["from", "to"].map(|name| gpu.buffer(name, bytes, usage).expect("room"));
    let copy = Command::Copy { source, source_offset: 0, target, target_offset: 0, bytes };
    let mut recorder = Recorder::new(gpu);
    let mut run = || {
        let start = Instant::now();
        recorder.run(std::slice::from_ref(&copy)).expect("a copy");
        gpu.wait().expect("the device");
        start.elapsed().as_secs_f64()
    };
    let best = (0..8).map(|_| run()).fold(f64::INFINITY, f64::min);
    2.0 * bytes as f64 / best
}

fn best_of(mut run: impl FnMut() -> f64) -> f64 {
    run();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 5 || (start.elapsed() < Duration::from_secs(2) && runs < 40) {
        best = best.min(run());
        runs += 1;
    }
    best
}

fn indicators(criterion: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let profiler = Profiler::new(&gpu).expect("timestamps");
    let six = Indicators::classic(&gpu);
    let copied = bandwidth(&gpu);
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut lines = vec![
        format!(
            "{}, copies {:.1} GB/s; ta-lib on {threads} threads; ns per bar, best run",
            gpu.info().name,
            copied / 1e9
        ),
        format!(
            "{:>14} {:>9} {:>9} {:>9} {:>9} {:>11}",
            "panel", "GPU", "wall", "ta-lib", "ratio", "of copying"
        ),
    ];
    let mut group = criterion.benchmark_group("indicators");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for (series, bars) in SHAPES {
        let name = format!("{series}x{bars}");
        let prices = walk(series, bars);
        let on_device = Series::upload(&gpu, prices.high.view(), prices.low.view(), prices.close.view());
        let commands = six.panel(&on_device.expect("room")).expect("room").commands();
        let mut out = vec![vec![vec![0.0; bars]; OUTPUTS]; series];
        group.throughput(Throughput::Elements((series * bars) as u64));
        group.bench_function(BenchmarkId::new("phalanx", &name), |bencher| {
            bencher
                .iter_custom(|runs| (0..runs).map(|_| profiler.time(&commands).expect("a run").wall).sum());
        });
        group.bench_function(BenchmarkId::new("ta-lib", &name), |bencher| {
            bencher.iter(|| by_ta_lib(black_box(&prices), black_box(&mut out)));
        });
        let per_bar = 1e9 / (series * bars) as f64;
        let mut on_gpu = f64::INFINITY;
        let wall = best_of(|| {
            let timing = profiler.time(&commands).expect("a run");
            on_gpu = on_gpu.min(timing.gpu.unwrap_or(timing.wall).as_secs_f64());
            timing.wall.as_secs_f64()
        });
        let peer = best_of(|| {
            let start = Instant::now();
            by_ta_lib(black_box(&prices), black_box(&mut out));
            start.elapsed().as_secs_f64()
        });
        let bytes = ((3 + OUTPUTS) * 4 * series * bars) as f64;
        lines.push(format!(
            "{name:>14} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>10.0}%",
            on_gpu * per_bar,
            wall * per_bar,
            peer * per_bar,
            peer / wall,
            100.0 * bytes / on_gpu / copied
        ));
    }
    group.finish();
    println!("\n{}\n", lines.join("\n"));
    each(&gpu, &profiler);
}

/// Every indicator alone, at 1024 x 4096.
fn each(gpu: &Gpu, profiler: &Profiler) {
    let prices = walk(1024, 4096);
    let [high, low, close, volume] =
        [&prices.high, &prices.low, &prices.close, &prices.volume].map(|x| x.view());
    let series = Series::with_volume(gpu, high, low, close, volume).expect("room");
    println!("each indicator alone, 1024 x 4096, GPU ns per bar, best run");
    for indicator in all() {
        let panel = Indicators::new(gpu).with(indicator).panel(&series).expect("room");
        let names: Vec<&str> = panel.names().collect();
        let commands = panel.commands();
        let best = best_of(|| {
            let timing = profiler.time(&commands).expect("a run");
            timing.gpu.unwrap_or(timing.wall).as_secs_f64()
        });
        println!("{:>8.2}  {}", best * 1e9 / (1024.0 * 4096.0), names.join(", "));
    }
}

criterion_group!(benches, indicators);

/// Nanoseconds a bar of all six indicators on one panel, inputs and outputs on the device, and of the `ta-lib` crate; best runs.
fn once(series: usize, bars: usize) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let profiler = Profiler::new(&gpu).expect("timestamps");
    let six = Indicators::classic(&gpu);
    let prices = walk(series, bars);
    let on_device = Series::upload(&gpu, prices.high.view(), prices.low.view(), prices.close.view());
    let commands = six.panel(&on_device.expect("room")).expect("room").commands();
    let wall = best_of(|| profiler.time(&commands).expect("a run").wall.as_secs_f64());
    let per_bar = wall * 1e9 / (series * bars) as f64;
    println!("{{\"name\": \"phalanx\", \"device\": {:?}, \"ns_per_bar\": {per_bar}}}", gpu.info().name);
    let mut out = vec![vec![vec![0.0; bars]; OUTPUTS]; series];
    let peer = best_of(|| {
        let start = Instant::now();
        by_ta_lib(black_box(&prices), black_box(&mut out));
        start.elapsed().as_secs_f64()
    });
    let per_bar = peer * 1e9 / (series * bars) as f64;
    println!("{{\"name\": \"ta-lib crate, all threads\", \"device\": \"CPU\", \"ns_per_bar\": {per_bar}}}");
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == "--once") else {
        benches();
        return Criterion::default().configure_from_args().final_summary();
    };
    let number = |offset: usize| arguments.get(at + offset).and_then(|text| text.parse().ok());
    let (series, bars) = number(1).zip(number(2)).expect("--once SERIES BARS");
    once(series, bars);
}
