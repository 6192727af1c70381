//! Benchmarks the market: computing and scaling features from candles, and the environment kernel of one bar.

#[path = "common/candles.rs"]
mod candles;
#[path = "common/kernels.rs"]
mod kernels;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use kernels::{Stage, measure};
use phalanx::env::Storage;
use phalanx::env::{Environment, Episodes, RolloutBuffers, Spec, Trading, TradingSettings};
use phalanx::gpu::{Arena, Gpu, GpuOptions, Plan, Profiler, Recorder};
use phalanx::market::{Candles, ExtraFeatures, MarketData, Scaling};

const INSTRUMENTS: usize = 4;
const BARS: usize = 20_000;
const STEPS: u32 = 16;

fn data(gpu: &Gpu, candles: &Candles) -> phalanx::Result<MarketData> {
    MarketData::new(gpu, candles, &ExtraFeatures::default(), &Scaling::Fit(0..BARS))
}

/// Bytes that one environment reads and writes in a step that does not end an episode.
fn bytes_per_env(spec: Spec) -> f64 {
    let Spec { agents, obs_dim, .. } = spec;
    // Read: all features but the account's two, one open and two closes, base and action. Written: observation, reward and
    // mask.
    let per_agent = (obs_dim - 2) + 3 + 1 + 1 + obs_dim + 1 + 1;
    // The state (8 words and 2 per instrument), read and written, and the done flag.
    4.0 * (f64::from(agents * per_agent + 1) + 2.0 * f64::from(8 + 2 * agents))
}

/// Consecutive steps of a rollout after a reset; the accounts hold positions in every one of them.
fn steps(gpu: &Gpu, data: &MarketData, envs: u32) -> phalanx::Result<Stage> {
    let bars = data.first_bar()..BARS;
    let environment = Trading::new(data, &TradingSettings::default(), &Episodes::Random(bars))?;
    let spec = environment.spec();
    let slots = u64::from(STEPS + 1 + environment.truncations(STEPS));
    let [slot, rows] = [spec.agents * envs, spec.agents * envs * STEPS].map(u64::from);
    let mut plan = Plan::new();
    plan.words("observations", slots * slot * u64::from(spec.obs_dim));
    plan.words("rewards", rows);
    plan.words("dones_and_masks", u64::from(STEPS * envs) + slots * slot);
    plan.words("episodes", u64::from(envs) * 4);
    let arena = Arena::allocate(gpu, &plan)?;
    let actions: Vec<u32> = (0..rows).map(|i| (i * 2_654_435_761 % 1013) as u32 % spec.actions).collect();
    let rollout = RolloutBuffers {
        envs,
        steps: STEPS,
        seed: 1,
        storage: Storage::F32,
        state_dim: 0,
        first_state: 0,
        observations: arena.get("observations")?,
        actions: &gpu.upload("actions", &actions)?,
        rewards: arena.get("rewards")?,
        dones_and_masks: arena.get("dones_and_masks")?,
        episodes: arena.get("episodes")?,
    };
    let recorded = environment.record(gpu, &rollout)?;
    Recorder::new(gpu).run(&recorded.reset)?;
    Ok(Stage {
        name: "step",
        commands: recorded.steps.concat(),
        bytes: f64::from(envs) * bytes_per_env(spec),
    })
}

fn market_data(criterion: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let profiler = Profiler::new(&gpu).expect("timestamps");
    println!("{}: {}", gpu.info().name, gpu.info().driver_info);
    let candles = candles::candles(INSTRUMENTS, BARS).expect("candles");
    let prepare = || {
        let start = Instant::now();
        data(&gpu, &candles).expect("market data");
        start.elapsed()
    };
    let best = (0..3).map(|_| prepare()).min().expect("runs");
    let candles_per_second = (INSTRUMENTS * BARS) as f64 / best.as_secs_f64();
    println!(
        "{:<12} wall {:.1} ms, {candles_per_second:.0} candles a second",
        "data",
        best.as_secs_f64() * 1e3
    );
    let mut group = criterion.benchmark_group(format!("market/{INSTRUMENTS} instruments, {BARS} bars"));
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    // Includes indicators, kernel compilation and upload, that is, everything a program waits for.
    group.bench_function("data", |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| prepare()).sum());
    });
    group.finish();

    let data = data(&gpu, &candles).expect("market data");
    for envs in [128, 4096] {
        let mut group = criterion.benchmark_group(format!("market/{envs} environments, {STEPS} steps"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1));
        measure(&mut group, &profiler, &steps(&gpu, &data, envs).expect("the kernel"));
        group.finish();
    }
}

criterion_group!(benches, market_data);
criterion_main!(benches);
