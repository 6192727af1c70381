//! Acting in the environment for T steps, and the critics' values of all that was seen, without the host.

use std::ops::Range;

use super::Config;
use super::normalization;
use super::plan::Sizes;
use crate::env::{Environment, RolloutBuffers, State};
use crate::gpu::{Arena, BindGroup, Command, Gpu, Kernel, Recording};
use crate::nn::forward::Memory;
use crate::nn::{Batch, KernelConfig, Layout, WorkingWeights, forward};
use crate::ppo::{ActionKind, sample};
use crate::{Error, Result};

/// How actions are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionMode {
    /// At random, by the policy's probabilities.
    Sampled,
    /// The most probable one; of real numbers the mean, or its tanh if they are squashed.
    Greedy,
}

/// A policy in an environment, recorded once.
#[derive(Debug)]
pub struct Rollout {
    /// Brings the working weights up to date with the parameters.
    pub prepare: Recording,
    /// Starts all environments afresh.
    pub reset: Recording,
    /// T steps: at most three dispatches each, or four where what is seen is normalised.
    pub collect: Recording,
    /// The critics' values of all slots; nothing where a policy only acts ([`Sizes::acting`]).
    pub values: Recording,
    /// Makes the last observation the first of the next rollout, and moves the moments of what is seen.
    pub carry: Recording,
    /// What the environments are between rollouts.
    pub(super) state: Vec<State>,
    pub(super) roles: wgpu::Buffer,
    pub(super) weights: WorkingWeights,
    pub(super) forward: Kernel,
}

impl Rollout {
    /// Records everything on the buffers of `arena`, allocated from a plan that holds [`Sizes::rollout_plan`].
    ///
    /// # Errors
    /// What compilation and allocation report.
    pub fn new(
        gpu: &Gpu,
        (sizes, kernel_config): (&Sizes, &KernelConfig),
        layout: &Layout,
        config: &Config,
        environment: &dyn Environment,
        arena: &Arena,
        mode: ActionMode,
    ) -> Result<Self> {
        let (seen, storage) = sizes.seen(kernel_config.storage);
        let rollout = RolloutBuffers {
            envs: sizes.envs,
            steps: sizes.steps,
            seed: config.seed,
            storage,
            state_dim: sizes.state_dim,
            first_state: sizes.first_state() as u32,
            observations: arena.get(seen)?,
            actions: arena.get("actions")?,
            rewards: arena.get("rewards")?,
            dones_and_masks: arena.get("dones_and_masks")?,
            episodes: arena.get("episodes")?,
        };
        let recorded = environment.record(gpu, &rollout)?;
        if recorded.steps.len() != sizes.steps as usize {
            return Err(Error::shape("steps of the environment", sizes.steps, recorded.steps.len()));
        }
        let roles = forward::upload_roles(gpu, &layout.roles)?;
        let (params, working) = (arena.get("params")?, arena.get("working weights")?);
        let weights = WorkingWeights::new(gpu, layout, kernel_config, &roles, params, working)?;
        let kernel = forward::kernel(gpu, &layout.shape, kernel_config)?;
        let forward = Forward {
            kernel: kernel.clone(),
            kernel_config,
            roles: &roles,
            weights: &weights,
            arena,
            memory: memory(sizes, arena)?,
            batch: batch(sizes, layout, kernel_config),
        };
        let acting = acting(gpu, sizes, config, &forward, mode)?;
        let mut normalized = match sizes.normalized {
            true => normalization::slots(gpu, sizes, kernel_config.storage, arena)?,
            false => Recording::new(),
        }
        .into_iter();
        let mut collect = Recording::new();
        for (act, step) in acting.into_iter().zip(recorded.steps) {
            collect.extend(normalized.next());
            collect.extend(act);
            collect.extend(step);
        }
        // What was seen last.
        collect.extend(normalized);
        let mut carried = match sizes.normalized && sizes.valued {
            true => vec![normalization::moments(gpu, sizes, config.networks, arena)?],
            false => Recording::new(),
        };
        carried.extend(carry(sizes, layout, kernel_config, arena)?);
        let mut reset = recorded.reset;
        if sizes.chunk > 0 {
            let ended = arena.get("all ended")?;
            gpu.write(ended, 0, bytemuck::cast_slice(&vec![1u32; sizes.envs as usize]))?;
            reset.push(Command::Copy {
                source: ended.clone(),
                source_offset: 0,
                target: arena.get("dones_and_masks")?.clone(),
                target_offset: sizes.endings() * 4,
                bytes: u64::from(sizes.envs) * 4,
            });
        }
        Ok(Self {
            prepare: weights.refresh().clone(),
            reset,
            collect,
            values: if sizes.valued { values(gpu, sizes, &forward)? } else { Recording::new() },
            carry: carried,
            state: recorded.state,
            roles,
            weights,
            forward: kernel,
        })
    }
}

pub(super) fn batch(sizes: &Sizes, layout: &Layout, kernel_config: &KernelConfig) -> Batch {
    Batch {
        stride: sizes.room(kernel_config),
        acts: layout.act_rows,
        grads: layout.grad_rows,
        agents: sizes.spec.agents,
        quads: sizes.envs / 4,
        obs_dim: sizes.spec.obs_dim,
        length: sizes.chunk,
        chunk: sizes.chunk,
        steps: sizes.steps,
        truncations: sizes.truncations,
        endings: (sizes.endings() / 4) as u32,
        first_state: (sizes.first_state() / 4) as u32,
        state_dim: sizes.state_dim,
        ..Batch::default()
    }
}

/// What recurrent networks remember.
pub(super) fn memory<'a>(sizes: &Sizes, arena: &'a Arena) -> Result<Option<Memory<'a>>> {
    if sizes.chunk == 0 {
        return Ok(None);
    }
    Ok(Some(Memory {
        states: arena.get("recurrent states")?,
        dones_and_masks: arena.get("dones_and_masks")?,
    }))
}

/// The compiled forward pass and what all its uses in a rollout have in common.
struct Forward<'a> {
    kernel: Kernel,
    kernel_config: &'a KernelConfig,
    roles: &'a wgpu::Buffer,
    weights: &'a WorkingWeights,
    arena: &'a Arena,
    memory: Option<Memory<'a>>,
    batch: Batch,
}

impl Forward<'_> {
    fn bind(&self, gpu: &Gpu, batches: &wgpu::Buffer, head: &str) -> Result<BindGroup> {
        let buffers = forward::Buffers {
            batches,
            roles: self.roles,
            weights: self.weights,
            observations: self.arena.get("observations")?,
            acts: self.arena.get("activations")?,
            head: self.arena.get(head)?,
            moments: self.arena.get("moments")?,
            memory: self.memory,
        };
        forward::bind(gpu, &self.kernel, buffers)
    }
}

/// For every step: the actors, then the draw.
fn acting(
    gpu: &Gpu,
    sizes: &Sizes,
    config: &Config,
    forward: &Forward<'_>,
    mode: ActionMode,
) -> Result<Vec<[Command; 2]>> {
    let quads = sizes.rows_of_slot() / 4;
    let arena = forward.arena;
    let batches: Vec<_> = (0..sizes.steps)
        .map(|step| one_slot(Batch { first_slot: step, rows: quads, remember: 1, ..forward.batch }))
        .collect();
    let table = gpu.uniform_table("acting", &batches)?;
    let forward_group = forward.bind(gpu, &table, "heads")?;
    let sample_kernel = sample::kernel(gpu, sizes.kind)?;
    let draws: Vec<_> = (0..sizes.steps)
        .map(|step| sample::Sample {
            step,
            steps: sizes.steps,
            agents: sizes.spec.agents,
            quads: sizes.envs / 4,
            actions: sizes.spec.actions,
            stride: forward.batch.stride,
            greedy: u32::from(mode == ActionMode::Greedy),
            masks: sizes.steps * sizes.envs / 4,
            seed_low: config.seed as u32,
            // A key of its own: initial weights draw from the seed itself.
            seed_high: (config.seed >> 32) as u32 ^ 0x5EED_AC70,
            starts: sizes.starts,
            pad: 0,
        })
        .collect();
    let draws = gpu.uniform_table("draws", &draws)?;
    let mut buffers = vec![
        &draws,
        arena.get("heads")?,
        arena.get("dones_and_masks")?,
        arena.get("iteration")?,
        arena.get("actions")?,
        arena.get("targets")?,
    ];
    if sizes.kind == ActionKind::Squashed {
        buffers.push(arena.get("draws")?);
    }
    let sample_group = sample::bind(gpu, &sample_kernel, &buffers)?;
    let forward_grid = forward::groups(forward.kernel_config, &batches[0], 1);
    let sample_grid = sample::groups(&sample_kernel.variant, sizes.spec.agents, sizes.envs / 4);
    let (batch_stride, draw_stride) = (gpu.uniform_stride::<Batch>(), gpu.uniform_stride::<sample::Sample>());
    Ok((0..sizes.steps)
        .map(|step| {
            [
                Command::dispatch_at(&forward.kernel, &forward_group, step, batch_stride, forward_grid),
                Command::dispatch_at(&sample_kernel, &sample_group, step, draw_stride, sample_grid),
            ]
        })
        .collect())
}

/// A batch in which nothing is walked through.
fn one_slot(batch: Batch) -> Batch {
    Batch { length: batch.length.min(1), ..batch }
}

/// The critics over all slots, in pieces of the size of a micro-batch. Recurrent critics take a chunk at a time, then the last
/// observations of truncated episodes.
fn values(gpu: &Gpu, sizes: &Sizes, forward: &Forward<'_>) -> Result<Recording> {
    let per_slot = sizes.rows_of_slot() / 4;
    let piece = |slots: Range<u32>| Batch {
        first_slot: slots.start,
        rows: per_slot * slots.len() as u32,
        first_role: 1,
        head_critic: per_slot * slots.start,
        ..forward.batch
    };
    let pieces = |all: Range<u32>, size: u32| {
        all.clone().step_by(size as usize).map(move |first| first..all.end.min(first + size))
    };
    let batches: Vec<_> = match sizes.chunk {
        0 => pieces(0..sizes.slots(), sizes.micro_slots).map(piece).collect(),
        chunk => {
            let walked = pieces(0..sizes.steps + 1, chunk).map(|slots| Batch { remember: 1, ..piece(slots) });
            let ends = pieces(sizes.steps + 1..sizes.slots(), sizes.micro_slots);
            walked.chain(ends.map(|slots| one_slot(piece(slots)))).collect()
        }
    };
    let table = gpu.uniform_table("values", &batches)?;
    let group = forward.bind(gpu, &table, "values")?;
    let stride = gpu.uniform_stride::<Batch>();
    Ok(batches
        .iter()
        .enumerate()
        .map(|(index, batch)| {
            let grid = forward::groups(forward.kernel_config, batch, 1);
            Command::dispatch_at(&forward.kernel, &group, index as u32, stride, grid)
        })
        .collect())
}

/// Copies slot T over slot 0, the environments' own states and what was remembered there too, by way of another buffer: a buffer
/// cannot be copied onto itself.
fn carry(sizes: &Sizes, layout: &Layout, kernel_config: &KernelConfig, arena: &Arena) -> Result<Recording> {
    let mut commands = Vec::new();
    let rows = u64::from(sizes.rows_of_slot());
    let (seen, storage) = sizes.seen(kernel_config.storage);
    let stored = storage.precision().bytes();
    let observed = sizes.observed() * stored;
    let steps = u64::from(sizes.steps);
    let ends = u64::from(sizes.envs) * 4;
    let masks = ends * steps;
    let mut carried = vec![
        (seen, "carried observations", observed * steps, 0, observed),
        ("dones_and_masks", "carried masks", masks + rows * 4 * steps, masks, rows * 4),
    ];
    if sizes.state_dim > 0 {
        let (first, bytes) = (sizes.first_state() * stored, sizes.states() * stored);
        let between = "carried states of the environments";
        carried.push((seen, between, first + bytes * steps, first, bytes));
    }
    if sizes.chunk > 0 {
        let bytes = sizes.memory_bytes(layout);
        let place = |slot| u64::from(Memory::place(slot, sizes.chunk)) * bytes;
        carried.push(("recurrent states", "carried states", place(sizes.steps), place(0), bytes));
        carried.push(("dones_and_masks", "carried endings", ends * (steps - 1), sizes.endings() * 4, ends));
    }
    for (buffer, between, last, first, bytes) in carried {
        let (buffer, between) = (arena.get(buffer)?, arena.get(between)?);
        for (source, source_offset, target, target_offset) in
            [(buffer, last, between, 0), (between, 0, buffer, first)]
        {
            commands.push(Command::Copy {
                source: source.clone(),
                source_offset,
                target: target.clone(),
                target_offset,
                bytes,
            });
        }
    }
    Ok(commands)
}
