//! Benchmarks the network kernels: GPU time and wall time of the forward and the backward pass (data gradients, weight
//! gradients and their reduction) of an actor and a critic, in f32 and f16. It prints the arithmetic rate, and the memory
//! traffic as a fraction of the device's copy bandwidth in the same run. The peer is `ndarray`'s matrix product on one CPU
//! core.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::Array2;
use phalanx::bench::{SyntheticPass, matmul};
use phalanx::gpu::{Class, Command, Gpu, GpuOptions, Profiler, Recorder, Recording};
use phalanx::mappo::{Cooperative, KernelConfig, Precision};
use phalanx::model::{Layout, Shape};

const AGENTS: u32 = 4;
const OBS_DIM: u32 = 18;
const ACTIONS: u32 = 3;
/// Environments; rows are slots times these times agents.
const ENVS: u32 = 64;

struct Pass {
    name: &'static str,
    commands: Recording,
    flops: f64,
    bytes: f64,
}

fn layout(width: u32) -> phalanx::Result<Layout> {
    Layout::new(&Shape {
        agents: AGENTS,
        obs_dim: OBS_DIM,
        actions: ACTIONS,
        hidden: vec![width, width],
        ..Shape::default()
    })
}

/// Multiplications and additions of one row's matrix products in both networks: in total, and without the first layers.
fn flops_per_row(layout: &Layout) -> [f64; 2] {
    let all = |skip: usize| -> f64 {
        let layers = layout.stacks.iter().flat_map(|stack| &stack.layer[skip..stack.layers as usize]);
        layers.map(|layer| 2.0 * f64::from(layer.inputs) * f64::from(layer.outputs)).sum()
    };
    [all(0), all(1)]
}

fn passes(gpu: &Gpu, width: u32, rows: u32, precision: Precision) -> phalanx::Result<[Pass; 2]> {
    let layout = layout(width)?;
    let quads = ENVS / 4;
    let kernel_config = KernelConfig::new(gpu, precision, &layout, quads)?;
    let pass = SyntheticPass::new(gpu, &layout, &kernel_config, quads, rows / (ENVS * AGENTS))?;
    let [all, upper] = flops_per_row(&layout).map(|flops| flops * f64::from(rows));
    // Minimum memory traffic. Forward: each agent's row for the actor and for the critic is read, activations are written.
    // Backward: activations and gradients are read once more for each of the two products.
    let [observed, acts, grads] = pass.bytes.map(|bytes| bytes as f64);
    Ok([
        Pass { name: "forward", commands: pass.forward, flops: all, bytes: 2.0 * observed + acts },
        Pass {
            name: "backward",
            commands: pass.backward,
            flops: all + upper,
            bytes: 2.0 * (acts + grads + observed),
        },
    ])
}

/// Copy bandwidth of the device: bytes read plus bytes written per second.
fn bandwidth(gpu: &Gpu) -> phalanx::Result<f64> {
    let bytes = if gpu.class() == Class::Hardware { 1u64 << 30 } else { 64 << 20 };
    let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let source = gpu.buffer("source", bytes, usage)?;
    let target = gpu.buffer("target", bytes, usage)?;
    let copy = [Command::Copy { source, source_offset: 0, target, target_offset: 0, bytes }];
    let mut recorder = Recorder::new(gpu);
    let mut best = Duration::MAX;
    for _ in 0..6 {
        let start = Instant::now();
        recorder.run(&copy)?;
        gpu.wait()?;
        best = best.min(start.elapsed());
    }
    Ok(2.0 * bytes as f64 / best.as_secs_f64())
}

fn best(profiler: &Profiler, commands: &[Command]) -> Duration {
    let runs = (0..5).map(|_| profiler.time(commands).expect("a run"));
    runs.map(|timing| timing.gpu.unwrap_or(timing.wall)).min().expect("runs")
}

/// Arithmetic rate of phalanx's own large product on the matrix units, the reference for f16. `benches/peers/matmul.py`
/// measures PyTorch on the same device.
fn matrix_rates(gpu: &Gpu, profiler: &Profiler) -> phalanx::Result<Vec<(Cooperative, f64)>> {
    let n: u32 = if gpu.class() == Class::Hardware { 4096 } else { 256 };
    let rate = |matrices: Cooperative| {
        let bytes = u64::from(n) * u64::from(n);
        let usage = wgpu::BufferUsages::STORAGE;
        let factor = gpu.buffer("factor", bytes * 2, usage)?;
        let [other, product] =
            [gpu.buffer("factor", bytes * 2, usage)?, gpu.buffer("product", bytes * 4, usage)?];
        let command = matmul::command(gpu, matrices, [n; 3], [&factor, &other, &product])?;
        let time = best(profiler, &[command]);
        Ok((matrices, 2.0 * f64::from(n).powi(3) / time.as_secs_f64() / 1e9))
    };
    Cooperative::proven(gpu)?.into_iter().map(rate).collect()
}

/// Arithmetic rate of `ndarray`'s matrix product on one CPU core.
fn peer() -> f64 {
    let (rows, width) = (4096, 256);
    let a = Array2::from_shape_fn((rows, width), |(i, j)| ((i * 7 + j) % 13) as f32);
    let b = Array2::from_shape_fn((width, width), |(i, j)| ((i * 5 + j) % 11) as f32);
    let time = (0..5).map(|_| {
        let start = Instant::now();
        std::hint::black_box(a.dot(&b));
        start.elapsed()
    });
    2.0 * (rows * width * width) as f64 / time.min().expect("runs").as_secs_f64() / 1e9
}

fn learning(criterion: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let profiler = Profiler::new(&gpu).expect("timestamps");
    println!("{}: {}", gpu.info().name, gpu.info().driver_info);
    let hardware = gpu.class() == Class::Hardware;
    let sizes: &[(u32, u32)] = if hardware {
        &[
            (64, 1 << 10),
            (64, 1 << 16),
            (64, 1 << 20),
            (128, 1 << 16),
            (128, 1 << 20),
            (256, 1 << 18),
            (512, 1 << 17),
        ]
    } else {
        &[(64, 1 << 10), (64, 1 << 14), (128, 1 << 13), (256, 1 << 12), (512, 1 << 11)]
    };
    let copied = bandwidth(&gpu).expect("a copy");
    println!("copy {:.1} GB/s; ndarray on one core {:.1} GFLOP/s", copied / 1e9, peer());
    for (matrices, rate) in matrix_rates(&gpu, &profiler).expect("a product") {
        println!("{matrices:?}: {rate:.0} GFLOP/s in our own large product");
    }
    println!("{:<28} {:>10} {:>10} {:>9} {:>7}", "", "GPU ms", "wall ms", "GFLOP/s", "bytes");
    for (width, rows) in sizes {
        let mut group = criterion.benchmark_group(format!("learning/{width}x2/{rows}rows"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1));
        for precision in [Precision::F32, Precision::F16] {
            for pass in passes(&gpu, *width, *rows, precision).expect("the kernels") {
                let time = best(&profiler, &pass.commands);
                let wall =
                    (0..3).map(|_| profiler.time(&pass.commands).expect("a run").wall).min().expect("runs");
                println!(
                    "{:<28} {:>10.3} {:>10.3} {:>9.2} {:>6.1}%",
                    format!("{width}x2 {rows} {precision:?} {}", pass.name),
                    time.as_secs_f64() * 1e3,
                    wall.as_secs_f64() * 1e3,
                    pass.flops / time.as_secs_f64() / 1e9,
                    100.0 * pass.bytes / time.as_secs_f64() / copied,
                );
                group.bench_function(format!("{precision:?}/{}", pass.name), |bencher| {
                    bencher.iter_custom(|count| {
                        (0..count).map(|_| profiler.time(&pass.commands).expect("a run").wall).sum()
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, learning);
criterion_main!(benches);
