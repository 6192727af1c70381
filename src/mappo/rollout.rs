//! Acting in the environment for T steps, and the critics' values of all that was seen, without the host.

use super::Config;
use super::plan::Sizes;
use crate::env::{Environment, Seat, State};
use crate::gpu::{Arena, BindGroup, Command, Gpu, Kernel, Recording};
use crate::nn::{Batch, Decisions, Layout, WorkingWeights, forward};
use crate::ppo::sample;
use crate::{Error, Result};

/// How actions are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// At random, by the policy's probabilities.
    Sampled,
    /// The most probable one.
    Greedy,
}

/// A policy in an environment, recorded once.
#[derive(Debug)]
pub struct Rollout {
    /// Brings the working weights up to date with the parameters.
    pub prepare: Recording,
    /// Starts all environments afresh.
    pub reset: Recording,
    /// T steps: at most three dispatches each.
    pub collect: Recording,
    /// The critics' values of all slots.
    pub values: Recording,
    /// Makes the last observation the first of the next rollout.
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
        (sizes, decisions): (&Sizes, &Decisions),
        layout: &Layout,
        config: &Config,
        environment: &dyn Environment,
        arena: &Arena,
        choice: Choice,
    ) -> Result<Self> {
        let seat = Seat {
            envs: sizes.envs,
            steps: sizes.steps,
            seed: config.seed,
            storage: decisions.storage,
            observations: arena.get("observations")?,
            actions: arena.get("actions")?,
            rewards: arena.get("rewards")?,
            signals: arena.get("signals")?,
            episodes: arena.get("episodes")?,
        };
        let attached = environment.attach(gpu, &seat)?;
        if attached.steps.len() != sizes.steps as usize {
            return Err(Error::shape("steps of the environment", sizes.steps, attached.steps.len()));
        }
        let roles = forward::upload_roles(gpu, &layout.roles)?;
        let (params, working) = (arena.get("params")?, arena.get("working weights")?);
        let weights = WorkingWeights::new(gpu, layout, decisions, &roles, params, working)?;
        let kernel = forward::kernel(gpu, config.activation, decisions)?;
        let forward = Forward {
            kernel: kernel.clone(),
            decisions,
            roles: &roles,
            weights: &weights,
            arena,
            batch: batch(sizes, layout, decisions),
        };
        let acting = acting(gpu, sizes, config, &forward, choice)?;
        let collect = acting
            .into_iter()
            .zip(attached.steps)
            .flat_map(|(act, step)| act.into_iter().chain(step))
            .collect();
        Ok(Self {
            prepare: weights.refresh().clone(),
            reset: attached.reset,
            collect,
            values: values(gpu, sizes, &forward)?,
            carry: carry(sizes, decisions, arena)?,
            state: attached.state,
            roles,
            weights,
            forward: kernel,
        })
    }
}

pub(super) fn batch(sizes: &Sizes, layout: &Layout, decisions: &Decisions) -> Batch {
    Batch {
        stride: sizes.room(decisions),
        acts: layout.act_rows,
        grads: layout.grad_rows,
        agents: sizes.spec.agents,
        quads: sizes.envs / 4,
        obs_dim: sizes.spec.obs_dim,
        ..Batch::default()
    }
}

/// The compiled forward pass and what all its uses in a rollout have in common.
struct Forward<'a> {
    kernel: Kernel,
    decisions: &'a Decisions,
    roles: &'a wgpu::Buffer,
    weights: &'a WorkingWeights,
    arena: &'a Arena,
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
    choice: Choice,
) -> Result<Vec<[Command; 2]>> {
    let quads = sizes.rows_of_slot() / 4;
    let arena = forward.arena;
    let batches: Vec<_> =
        (0..sizes.steps).map(|step| Batch { first_slot: step, rows: quads, ..forward.batch }).collect();
    let table = gpu.uniform_table("acting", &batches)?;
    let forward_group = forward.bind(gpu, &table, "heads")?;
    let sample_kernel = sample::kernel(gpu, sizes.continuous)?;
    let draws: Vec<_> = (0..sizes.steps)
        .map(|step| sample::Sample {
            step,
            steps: sizes.steps,
            agents: sizes.spec.agents,
            quads: sizes.envs / 4,
            actions: sizes.spec.actions,
            stride: forward.batch.stride,
            greedy: u32::from(choice == Choice::Greedy),
            masks: sizes.steps * sizes.envs / 4,
            seed_low: config.seed as u32,
            // A key of its own: initial weights draw from the seed itself.
            seed_high: (config.seed >> 32) as u32 ^ 0x5EED_AC70,
            starts: sizes.starts,
            pad: 0,
        })
        .collect();
    let draws = gpu.uniform_table("draws", &draws)?;
    let buffers = [
        &draws,
        arena.get("heads")?,
        arena.get("signals")?,
        arena.get("clock")?,
        arena.get("actions")?,
        arena.get("targets")?,
    ];
    let sample_group = sample::bind(gpu, &sample_kernel, buffers)?;
    let forward_grid = forward::groups(forward.decisions, quads, 1);
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

/// The critics over all slots, in pieces of the size of a micro-batch.
fn values(gpu: &Gpu, sizes: &Sizes, forward: &Forward<'_>) -> Result<Recording> {
    let per_slot = sizes.rows_of_slot() / 4;
    let batches: Vec<_> = (0..sizes.slots())
        .step_by(sizes.micro_slots as usize)
        .map(|first| Batch {
            first_slot: first,
            rows: per_slot * sizes.micro_slots.min(sizes.slots() - first),
            first_role: 1,
            head_critic: per_slot * first,
            ..forward.batch
        })
        .collect();
    let table = gpu.uniform_table("values", &batches)?;
    let group = forward.bind(gpu, &table, "values")?;
    let stride = gpu.uniform_stride::<Batch>();
    Ok(batches
        .iter()
        .enumerate()
        .map(|(index, batch)| {
            let grid = forward::groups(forward.decisions, batch.rows, 1);
            Command::dispatch_at(&forward.kernel, &group, index as u32, stride, grid)
        })
        .collect())
}

/// Copies slot T over slot 0, by way of another buffer: a buffer cannot be copied onto itself.
fn carry(sizes: &Sizes, decisions: &Decisions, arena: &Arena) -> Result<Recording> {
    let mut commands = Vec::new();
    let rows = u64::from(sizes.rows_of_slot());
    let observed = rows * u64::from(sizes.spec.obs_dim) * decisions.storage.precision().bytes();
    let masks = u64::from(sizes.steps * sizes.envs) * 4;
    for (buffer, between, first, bytes) in
        [("observations", "carried observations", 0, observed), ("signals", "carried masks", masks, rows * 4)]
    {
        let (buffer, between) = (arena.get(buffer)?, arena.get(between)?);
        let last = first + bytes * u64::from(sizes.steps);
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
