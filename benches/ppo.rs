//! Benchmarks the PPO kernels on a rollout of 32,768 rows, and the optimizer's kernels, which do not depend on rows, on the
//! demo's networks and on wider ones.

#[path = "common/kernels.rs"]
mod kernels;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use kernels::{Stage, measure};
use phalanx::bench::{
    ActionKind, Batch, ForwardPart, adamw, advantage_stats, advantage_sums, fold, gae, loss, reduce, sample,
    scalars,
};
use phalanx::gpu::{Command, Gpu, GpuOptions, Profiler};
use phalanx::mappo::{KernelConfig, Precision};
use phalanx::model::{Layout, Shape};

const AGENTS: u32 = 4;
const OBS_DIM: u32 = 18;
const ACTIONS: u32 = 3;
const STEPS: u32 = 128;
const ENVS: u32 = 64;
const ROWS: u32 = STEPS * AGENTS * ENVS;

fn noise(count: u32) -> Vec<f32> {
    (0..u64::from(count)).map(|i| ((i * 2_654_435_761) % 1013) as f32 / 506.5 - 1.0).collect()
}

fn bytes(words: u32) -> f64 {
    4.0 * f64::from(words)
}

/// Sampling of all rows in one step, as with 8192 environments.
fn sampling(gpu: &Gpu) -> phalanx::Result<Stage> {
    let quads = ROWS / AGENTS / 4;
    let parameters = sample::Sample {
        steps: 1,
        agents: AGENTS,
        quads,
        actions: ACTIONS,
        stride: ROWS / 4,
        seed_low: 1,
        ..Default::default()
    };
    let table = gpu.uniform_table("sample", &[parameters])?;
    let head = gpu.upload("head", &noise(ACTIONS * ROWS))?;
    let masks = gpu.upload("masks", &vec![(1 << ACTIONS) - 1u32; ROWS as usize])?;
    let iteration = gpu.upload("iteration", &[0u32; 4])?;
    let actions = gpu.upload("actions", &vec![0u32; ROWS as usize])?;
    let targets = gpu.upload("targets", &noise(3 * ROWS))?;
    let kernel = sample::kernel(gpu, ActionKind::Choices)?;
    let group = sample::bind(gpu, &kernel, &[&table, &head, &masks, &iteration, &actions, &targets])?;
    let grid = sample::groups(&kernel.variant, AGENTS, quads);
    let commands = vec![Command::dispatch_at(&kernel, &group, 0, 0, grid)];
    // Read: logits and mask. Written: action and log-probability.
    Ok(Stage { name: "sample", commands, bytes: bytes((ACTIONS + 3) * ROWS) })
}

/// Advantages, their statistics and the losses of one rollout.
fn rollout(gpu: &Gpu) -> phalanx::Result<Vec<Stage>> {
    let lanes = AGENTS * ENVS;
    let ends = (0..STEPS * ENVS).map(|i| u32::from(i % 97 == 96));
    let masks = (0..ROWS + lanes).map(|_| (1 << ACTIONS) - 1u32);
    let dones_and_masks = gpu.upload("dones_and_masks", &ends.chain(masks).collect::<Vec<u32>>())?;
    let actions = gpu.upload("actions", &(0..ROWS).map(|i| i % ACTIONS).collect::<Vec<u32>>())?;
    let values = gpu.upload("values", &noise(ROWS + lanes))?;
    let rewards = gpu.upload("rewards", &noise(ROWS))?;
    let targets = gpu.upload("targets", &noise(3 * ROWS))?;
    let mut moments_of = vec![0f32; scalars::words(1, AGENTS, 1) as usize];
    moments_of[scalars::DEVIATION] = 1.0;
    moments_of[scalars::ADVANTAGE_SCALE] = 1.0;
    let scalars = gpu.upload("scalars", &moments_of)?;

    let parameters = gae::Gae {
        steps: STEPS,
        agents: AGENTS,
        envs: ENVS,
        gamma: 0.99,
        lambda: 0.95,
        truncations: 1,
        reward_scale: 1.0,
        groups: 1,
    };
    let kernel = gae::kernel(gpu)?;
    let group =
        gae::bind(gpu, &kernel, &parameters, [&values, &rewards, &dones_and_masks, &scalars, &targets])?;
    let commands = vec![Command::dispatch(&kernel, &group, gae::groups(&kernel.variant, &parameters))];
    // Read: value, reward, done and the values after the last step. Written: advantage and return.
    let mut stages = vec![Stage { name: "gae", commands, bytes: bytes(4 * ROWS + STEPS * ENVS + lanes) }];

    let parameters = advantage_stats::AdvantageStats {
        size: ROWS,
        agents: AGENTS,
        envs: ENVS,
        masks: STEPS * ENVS,
        separate: 0,
        minibatches: 1,
        chunk: 1,
        over: 0,
        parts: advantage_sums::parts(gpu.class(), ROWS.into(), 1, 1),
        ..Default::default()
    };
    let words = advantage_sums::words(ROWS.into(), 1, 1);
    let sums = gpu.upload("sums", &vec![0f32; words as usize])?;
    let bound = [&targets, &scalars, &dones_and_masks, &sums];
    let commands = advantage_stats::commands(gpu, &parameters, bound)?.to_vec();
    // Read: advantage and return.
    stages.push(Stage { name: "advantage_stats", commands, bytes: bytes(2 * ROWS) });

    let quads = ROWS / 4;
    let kernel_config = KernelConfig::new(gpu, Precision::F32, &layout(64)?, ENVS / 4)?;
    let batch = Batch {
        rows: quads,
        stride: quads,
        agents: AGENTS,
        quads: ENVS / 4,
        obs_dim: OBS_DIM,
        forward: ForwardPart { head_critic: ACTIONS * quads, ..ForwardPart::default() },
        grads: ACTIONS + 1,
        ..Batch::default()
    };
    let parameters = loss::Loss {
        actions: ACTIONS,
        section: quads,
        masks: STEPS * ENVS / 4,
        grad_actor: 0,
        grad_critic: ACTIONS,
        clip: 0.2,
        value_clip: 0.2,
        huber: 10.0,
        value: 1.0,
        starts: 1,
        groups: 1,
        ..loss::Loss::default()
    };
    let kernel = loss::kernel(gpu, &kernel_config, ActionKind::Choices, false)?;
    let grid = loss::groups(&kernel.variant, quads);
    let buffers = loss::Buffers {
        batches: &gpu.uniform_table("batches", &[batch])?,
        head: &gpu.upload("head", &noise((ACTIONS + 1) * ROWS))?,
        dones_and_masks: &dones_and_masks,
        actions: &actions,
        targets: &targets,
        values: &values,
        scalars: &scalars,
        grads: &gpu.upload("grads", &noise((ACTIONS + 1) * ROWS))?,
        statistics: &gpu.upload("statistics", &noise(8 * grid[0]))?,
    };
    let group = loss::bind(gpu, &kernel, &parameters, buffers)?;
    let commands = vec![Command::dispatch_at(&kernel, &group, 0, 0, grid)];
    // Read: logits, value, mask, action, three targets, old value. Written: gradients of both heads, statistics.
    let words = (ACTIONS + 1 + 1 + 1 + 3 + 1 + ACTIONS + 1) * ROWS + 8 * grid[0];
    stages.push(Stage { name: "loss", commands, bytes: bytes(words) });
    Ok(stages)
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

/// Partial sums of the gradients, as many as two for each of 32 processors.
const PARTIAL_SUMS: u32 = 64;

fn optimizer(gpu: &Gpu, width: u32) -> phalanx::Result<Vec<Stage>> {
    let layout = layout(width)?;
    let table = fold::nets(&layout);
    let (count, longest) = (table.len() as u32, table.iter().map(|net| net.length).max().unwrap_or(0));
    let nets = gpu.upload("nets", &table)?;
    let words = layout.params * 4;
    let [gradient, first, params] =
        ["gradient", "first moments", "params"].map(|name| gpu.upload(name, &noise(words)));
    let (gradient, first, params) = (gradient?, first?, params?);
    let second = gpu.upload("second moments", &vec![1f32; words as usize])?;
    let partials = gpu.upload("partial gradients", &noise(words * PARTIAL_SUMS))?;
    // A loss scale of 1, no early stop, and learning rates that do not decay.
    let ones = [scalars::LOSS_SCALE, scalars::RATE_SHARE];
    let scalars: Vec<f32> = (0..16).map(|i| f32::from(u8::from(ones.contains(&i)))).collect();
    let scalars = gpu.upload("scalars", &scalars)?;
    let state = adamw::state_words(table.len());
    let optimizer = gpu.upload("optimizer", &vec![0f32; state as usize])?;
    let step = gpu.upload("step", &vec![0f32; state as usize + reduce::tiles(&layout).len()])?;

    let squares = state as u32;
    let buffers = [&params, &partials, &gradient, &step];
    let commands = vec![reduce::command(gpu, &layout, PARTIAL_SUMS, squares, buffers)?];
    // Read: partial sums and parameters. Written: the gradient.
    let mut stages = vec![Stage { name: "reduce", commands, bytes: bytes((PARTIAL_SUMS + 2) * words) }];

    let parameters = adamw::AdamW {
        max_norm: 0.5,
        actor_rate: 3e-4,
        critic_rate: 3e-4,
        squares,
        ..adamw::AdamW::new([0.9, 0.999], 1e-5, 0.01)
    };
    let kernel = adamw::kernel(gpu)?;
    let buffers = adamw::Buffers {
        nets: &nets,
        optimizer: &optimizer,
        step: &step,
        gradient: &gradient,
        first: &first,
        second: &second,
        params: &params,
        scalars: &scalars,
    };
    let group = adamw::bind(gpu, &kernel, &parameters, buffers)?;
    let grid = adamw::groups(gpu.class(), longest, count);
    let commands = vec![Command::dispatch(&kernel, &group, grid)];
    // Read: gradient, both moments and parameters. Written: all but the gradient.
    stages.push(Stage { name: "adamw", commands, bytes: bytes(7 * words) });
    Ok(stages)
}

fn ppo(criterion: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let profiler = Profiler::new(&gpu).expect("timestamps");
    println!("{}: {}", gpu.info().name, gpu.info().driver_info);
    let mut rows = vec![sampling(&gpu).expect("the kernel")];
    rows.extend(rollout(&gpu).expect("the kernels"));
    let mut sets = vec![(format!("ppo/{ROWS} rows"), rows)];
    for width in [64, 256] {
        sets.push((format!("ppo/{width}x2"), optimizer(&gpu, width).expect("the kernels")));
    }
    for (name, stages) in sets {
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1));
        stages.iter().for_each(|stage| measure(&mut group, &profiler, stage));
        group.finish();
    }
}

criterion_group!(benches, ppo);
criterion_main!(benches);
