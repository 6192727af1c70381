//! The learning kernels by themselves: GPU time and wall time of each, for one micro-batch of the demo's networks and
//! for wider ones, with the arithmetic rate that follows.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use phalanx::gpu::{Command, Gpu, GpuOptions, Profiler, Timing};
use phalanx::nn::{Activation, Batch, Layout, Shape, Sharing, backward, forward, reduce, weight_gradient};

const AGENTS: u32 = 4;
const OBS_DIM: u32 = 18;
const ACTIONS: u32 = 3;

struct Stage {
    name: &'static str,
    command: Command,
    flops: f64,
}

/// Multiplications and additions of the matrix products of one row through both networks.
fn flops_per_row(layout: &Layout) -> f64 {
    let layers = layout.roles.iter().flat_map(|role| &role.layer[..role.layers as usize]);
    layers.map(|layer| 2.0 * f64::from(layer.inputs) * f64::from(layer.outputs)).sum()
}

fn stages(gpu: &Gpu, width: u32, rows: u32) -> phalanx::Result<Vec<Stage>> {
    let shape = Shape {
        agents: AGENTS,
        obs_dim: OBS_DIM,
        actions: ACTIONS,
        hidden: vec![width, width],
        sharing: Sharing::Shared,
    };
    let layout = Layout::new(&shape)?;
    let quads = rows / 4;
    let per_slot = AGENTS * 8;
    let batch = Batch {
        rows: quads,
        stride: quads,
        agents: AGENTS,
        quads: per_slot / AGENTS,
        obs_dim: OBS_DIM,
        head_critic: ACTIONS * quads,
        ..Batch::default()
    };
    let noise = |count: u64| -> Vec<f32> {
        (0..count).map(|i| ((i * 2_654_435_761) % 1013) as f32 / 506.5 - 1.0).collect()
    };
    let batches = gpu.uniform_table("batches", &[batch])?;
    let roles = forward::upload_roles(gpu, &layout.roles)?;
    let params = gpu.upload("params", &noise(u64::from(layout.params) * 4))?;
    let observations = gpu.upload("observations", &noise(u64::from(rows) * u64::from(OBS_DIM)))?;
    let acts = gpu.upload("acts", &noise(u64::from(layout.act_rows * quads) * 4))?;
    let grads = gpu.upload("grads", &noise(u64::from(layout.grad_rows * quads) * 4))?;
    let head = gpu.upload("head", &noise(u64::from((ACTIONS + 1) * quads) * 4))?;
    let shares = weight_gradient::shares(gpu.class());
    let partials = gpu.upload("partials", &noise(u64::from(layout.params * shares) * 4))?;
    let gradient = gpu.upload("gradient", &noise(u64::from(layout.params) * 4))?;
    let flops = flops_per_row(&layout) * f64::from(rows);

    let kernel = forward::kernel(gpu, Activation::Relu)?;
    let buffers = forward::Buffers {
        batches: &batches,
        roles: &roles,
        params: &params,
        observations: &observations,
        acts: &acts,
        head: &head,
    };
    let group = forward::bind(gpu, &kernel, buffers)?;
    let grid = forward::groups(&kernel.variant, quads, 2);
    let mut stages =
        vec![Stage { name: "forward", command: Command::dispatch_at(&kernel, &group, 0, 0, grid), flops }];

    let kernel = backward::kernel(gpu, Activation::Relu)?;
    let group = backward::bind(gpu, &kernel, &batches, &roles, &params, &acts, &grads)?;
    stages.push(Stage {
        name: "backward",
        command: Command::dispatch_at(&kernel, &group, 0, 0, grid),
        flops,
    });

    let kernel = weight_gradient::kernel(gpu)?;
    let jobs = weight_gradient::jobs(&layout);
    let split =
        weight_gradient::Split { count: shares, stride: layout.params, jobs: jobs.len() as u32, pad: 0 };
    let buffers = weight_gradient::Buffers {
        batches: &batches,
        split: &gpu.uniform("split", &split)?,
        jobs: &gpu.upload("jobs", &jobs)?,
        acts: &acts,
        grads: &grads,
        partials: &partials,
    };
    let group = weight_gradient::bind(gpu, &kernel, buffers)?;
    let grid = weight_gradient::groups(jobs.len() as u32, shares);
    stages.push(Stage {
        name: "weight_gradient",
        command: Command::dispatch_at(&kernel, &group, 0, 0, grid),
        flops,
    });

    let kernel = reduce::kernel(gpu)?;
    let whole = reduce::Reduce { length: layout.params, shares, first: 1, pad: 0 };
    let group = reduce::bind(gpu, &kernel, &whole, &partials, &gradient)?;
    let command = Command::dispatch(&kernel, &group, reduce::groups(&kernel.variant, layout.params));
    stages.push(Stage { name: "reduce", command, flops: f64::from(layout.params * 4 * shares) });
    Ok(stages)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn learning(criterion: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let profiler = Profiler::new(&gpu).expect("timestamps");
    println!("{}: {}", gpu.info().name, gpu.info().driver_info);
    for (width, rows) in [(64, 2048), (64, 16_384), (128, 4096)] {
        let mut group = criterion.benchmark_group(format!("learning/{width}x2/{rows}rows"));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1));
        for stage in stages(&gpu, width, rows).expect("the kernels") {
            let commands = std::slice::from_ref(&stage.command);
            let runs: Vec<Timing> = (0..5).map(|_| profiler.time(commands).expect("a run")).collect();
            let best = runs.iter().min_by_key(|timing| timing.gpu.unwrap_or(timing.wall)).expect("runs");
            let time = best.gpu.unwrap_or(best.wall);
            println!(
                "{:<16} GPU {}, wall {:.3} ms, {:.2} GFLOP/s",
                stage.name,
                best.gpu.map_or("unmeasured".into(), |gpu| format!("{:.3} ms", milliseconds(gpu))),
                milliseconds(best.wall),
                stage.flops / time.as_secs_f64() / 1e9,
            );
            group.bench_function(stage.name, |bencher| {
                bencher.iter_custom(|count| {
                    (0..count).map(|_| profiler.time(commands).expect("a run").wall).sum()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, learning);
criterion_main!(benches);
