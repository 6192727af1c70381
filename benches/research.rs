//! Benchmarks the test of random timing: all draws in f64 on the CPU, and on the device.

#[path = "common/candles.rs"]
mod candles;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::Array2;
use phalanx::backtest::{PeriodsPerYear, ReplayOptions};
use phalanx::env::ledger::Costs;
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::random::Stream;
use phalanx::research::{random_timing, random_timing_on_device};

const DRAWS: usize = 1000;
const BARS: usize = 2000;

fn timing(criterion: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    println!("{}: {}", gpu.info().name, gpu.info().driver_info);
    let options = ReplayOptions {
        costs: Costs::default(),
        max_leverage: None,
        starting_equity: 1e5,
        bankruptcy_level: 0.1,
        periods_per_year: PeriodsPerYear::given(252.0).expect("bars per year"),
    };
    for instruments in [4, 30] {
        let candles = candles::candles(instruments, BARS).expect("candles");
        let mut stream = Stream::new(2, 2);
        let mut current = vec![0.0; instruments];
        let targets = Array2::from_shape_fn((BARS - 1, instruments), |(_, i)| {
            if stream.uniform() < 0.2 {
                current[i] = (3.0 * stream.uniform()).floor() - 1.0;
            }
            current[i]
        });
        let run = |gpu: Option<&Gpu>| {
            let start = Instant::now();
            let (bars, targets) = (0..BARS, targets.view());
            let found = match gpu {
                None => random_timing(&candles, &bars, targets, &options, DRAWS, 0),
                Some(gpu) => random_timing_on_device(gpu, &candles, &bars, targets, &options, DRAWS, 0),
            };
            (start.elapsed(), found.expect("a p-value"))
        };
        let (on_cpu, exact) = run(None);
        // The second run finds the kernel compiled.
        let (first, _) = run(Some(&gpu));
        let (again, found) = run(Some(&gpu));
        assert_eq!(found.p_value, exact.p_value);
        println!(
            "{DRAWS} draws of {BARS} bars of {instruments} instruments: CPU {:.3} s, device {:.3} s (first {:.3} s), {} draws in f64",
            on_cpu.as_secs_f64(),
            again.as_secs_f64(),
            first.as_secs_f64(),
            DRAWS - found.on_device
        );
        let mut group =
            criterion.benchmark_group(format!("random timing/{instruments} instruments, {BARS} bars"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(2));
        group.bench_function("device", |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| run(Some(&gpu)).0).sum());
        });
        group.finish();
    }
}

criterion_group!(benches, timing);
criterion_main!(benches);
