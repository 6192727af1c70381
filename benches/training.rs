//! Benchmarks whole training iterations: environment steps per second and the time of each phase.
//!
//!     cargo bench -p phalanx-benches --bench training -- --once ENVS SECONDS
//!
//! With `--once` it only trains simple_spread for so long and prints one line of JSON: benches/peers/compare.py calls it.

#[path = "common/candles.rs"]
mod candles;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use phalanx::env::spread::Definition;
use phalanx::env::{Episodes, Spread, Trading, TradingSettings};
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::mappo::{Config, Trainer};
use phalanx::market::{ExtraFeatures, MarketData, Scaling};

fn trainer(gpu: &Gpu, num_envs: u32) -> phalanx::Result<Trainer> {
    let candles = candles::candles(4, 1000)?;
    let data = MarketData::new(gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..1000))?;
    let bars = data.first_bar()..1000;
    let environment = Trading::new(&data, &TradingSettings::default(), &Episodes::Random(bars))?;
    let mut config = Config::default();
    config.ppo.num_envs = num_envs;
    config.ppo.rollout_steps = 16;
    config.ppo.epochs = 4;
    config.ppo.iterations = u32::MAX >> 8;
    Trainer::new(gpu, &environment, &config)
}

fn training(criterion: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    println!("{}: {}", gpu.info().name, gpu.info().driver_info);
    let mut group = criterion.benchmark_group("training/4 instruments, 16 steps, 4 epochs");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(3));
    for num_envs in [32, 128] {
        let mut trainer = trainer(&gpu, num_envs).expect("a trainer");
        let mut iterate = || {
            let start = Instant::now();
            trainer.submit().expect("room");
            let submitted = start.elapsed();
            trainer.collect().expect("a record");
            (submitted, start.elapsed())
        };
        iterate();
        let (submit, whole) = iterate();
        println!(
            "{num_envs} environments: {:.0} environment steps a second, {:.1} % of the time in submit",
            f64::from(num_envs) * 16.0 / whole.as_secs_f64(),
            100.0 * submit.as_secs_f64() / whole.as_secs_f64(),
        );
        group.bench_function(format!("{num_envs} environments"), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| iterate().1).sum());
        });
    }
    group.finish();
}

fn on_spread(gpu: &Gpu, num_envs: u32, recurrent: bool) -> Trainer {
    let mut config = Config::on_policy_mpe();
    config.ppo.num_envs = num_envs;
    config.ppo.iterations = u32::MAX >> 8;
    config.network.recurrent = recurrent;
    Trainer::new(gpu, &Spread::new(Definition::OnPolicy), &config).expect("a trainer")
}

/// Environment steps a second of whole iterations, after two whose kernels may have to be compiled.
fn once(num_envs: u32, seconds: f64) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let mut trainer = on_spread(&gpu, num_envs, false);
    assert_eq!(trainer.sizes().envs, num_envs, "the memory is for fewer environments");
    for _ in 0..2 {
        iterate(&mut trainer);
    }
    let (start, mut iterations) = (Instant::now(), 0);
    while iterations < 2 || start.elapsed().as_secs_f64() < seconds {
        iterate(&mut trainer);
        iterations += 1;
    }
    let rate = f64::from(iterations * trainer.sizes().envs * 25) / start.elapsed().as_secs_f64();
    println!("{{\"name\": \"phalanx\", \"device\": {:?}, \"steps_per_second\": {rate}}}", gpu.info().name);
}

/// The MAPPO paper's simple_spread with the paper's settings, phase by phase.
fn spread(criterion: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let mut group = criterion.benchmark_group("training/simple_spread, 25 steps, 10 epochs");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(3));
    println!(
        "{:>6} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "envs", "steps/s", "iteration", "rollout", "values", "update", "host"
    );
    for (num_envs, recurrent) in [(128, false), (1024, false), (8192, false), (128, true), (1024, true)] {
        let mut trainer = on_spread(&gpu, num_envs, recurrent);
        // The number that the plan chose, which is smaller than requested if memory is short.
        let envs = trainer.sizes().envs;
        iterate(&mut trainer);
        let whole = (0..2).map(|_| iterate(&mut trainer)).min().expect("runs");
        let phases = trainer.profile().expect("an iteration");
        let sum = phases.rollout + phases.values + phases.update + phases.record;
        let share = |time: Duration| 100.0 * time.as_secs_f64() / sum.as_secs_f64();
        println!(
            "{envs:>6} {:>9.0} {:>7.0}ms {:>7.1}% {:>7.1}% {:>7.1}% {:>7.1}%{}",
            f64::from(envs * 25) / whole.as_secs_f64(),
            whole.as_secs_f64() * 1e3,
            share(phases.rollout),
            share(phases.values),
            share(phases.update),
            share(phases.host),
            if recurrent { "  GRU" } else { "" },
        );
        let name = format!("{num_envs} environments{}", if recurrent { ", GRU" } else { "" });
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| iterate(&mut trainer)).sum());
        });
    }
    group.finish();
}

fn iterate(trainer: &mut Trainer) -> Duration {
    let start = Instant::now();
    trainer.submit().expect("room");
    trainer.collect().expect("a record");
    start.elapsed()
}

criterion_group!(benches, training, spread);

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == "--once") else {
        benches();
        return Criterion::default().configure_from_args().final_summary();
    };
    let number = |offset: usize| arguments.get(at + offset).and_then(|text| text.parse().ok());
    let (envs, seconds) = number(1).zip(number(2)).expect("--once ENVS SECONDS");
    once(envs as u32, seconds);
}
