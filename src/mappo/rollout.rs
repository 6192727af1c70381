//! Acting in the environment for T steps, and the critics' values of all observation slots: recorded once, and run without CPU
//! work in between.

use std::ops::Range;

use super::normalization;
use super::setup::Setup;
use crate::env::{Actors, DeviceEnv, EnvRecording, Environment, RolloutBuffers, State};
use crate::gpu::{Command, Recording};
use crate::nn::forward::Memory;
use crate::nn::{Batch, ForwardPart, RecurrentPart, WorkingWeights, forward};
use crate::ppo::{gae, sample};
use crate::{Error, Result};

/// Sampled or greedy actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionMode {
    /// Sampled from the policy's distribution.
    Sampled,
    /// The most probable action; for continuous actions the mean, or its tanh if they are squashed.
    Greedy,
}

/// A policy in an environment, recorded once.
#[derive(Debug)]
pub struct Rollout {
    /// Updates the working weights from the master weights.
    pub prepare: Recording,
    /// Resets all environments.
    pub reset: Recording,
    /// T steps: many in a dispatch of [`Environment::device_env`]'s functions, or one in at most three dispatches, four with
    /// normalised observations.
    pub collect: Recording,
    /// The critics' values of all slots; empty if the policy only acts ([`super::Sizes::acting`]).
    pub values: Recording,
    /// Updates the running statistics of the observations, and copies the last slot to the first slot of the next rollout.
    pub carry: Recording,
    /// State of the environments between rollouts.
    pub state: Vec<State>,
    pub stacks: wgpu::Buffer,
    pub weights: WorkingWeights,
    pub forward: forward::Kernels,
}

/// The commands of one step.
#[derive(Debug)]
pub struct Step {
    /// Normalises the observations, if they are, and computes the actors' outputs.
    pub forward: Recording,
    /// Draws the actions.
    pub sample: Command,
    /// Moves the environments on.
    pub environment: Recording,
}

impl Rollout {
    /// Records everything on the buffers of `setup`.
    ///
    /// # Errors
    /// Errors of compilation and allocation; [`Error::Shape`] if the environment records another number of steps.
    pub fn new(setup: Setup<'_>, environment: &dyn Environment, mode: ActionMode) -> Result<Self> {
        if let Some(rollout) = Self::in_one_kernel(setup, environment, mode)? {
            return Ok(rollout);
        }
        let (rollout, steps) = Self::in_steps(setup, environment, mode)?;
        let mut collect = Recording::new();
        for Step { forward, sample, environment } in steps {
            collect.extend(forward);
            collect.push(sample);
            collect.extend(environment);
        }
        collect.extend(rollout.collect);
        Ok(Self { collect, ..rollout })
    }

    /// With an environment of WGSL functions and networks in blocks, one kernel acts and moves the environments on, many steps a
    /// dispatch; `None` otherwise. Normalised observations take a kernel of their own between two steps.
    fn in_one_kernel(
        setup: Setup<'_>,
        environment: &dyn Environment,
        mode: ActionMode,
    ) -> Result<Option<Self>> {
        let Setup { gpu, sizes, layout, kernel_config, buffers, .. } = setup;
        let Some(environment) = functions(setup, environment)? else {
            return Ok(None);
        };
        let networks = Networks::new(setup)?;
        let own = &buffers.rollout;
        let slots = sizes.rows_of_slot() / 4 * sizes.steps;
        let actors = Actors {
            kernel_config,
            layout,
            kind: sizes.kind,
            batch: Batch { rows: slots, ..setup.batch() },
            sample: draw(setup, mode, 0),
            stacks: &networks.stacks,
            weights: &networks.weights,
            iteration: &own.iteration,
            targets: &own.targets,
            draws: own.draws.as_ref(),
        };
        let recorded = environment.record_rollout(gpu, &rollout_buffers(setup), actors)?;
        let EnvRecording { reset, steps, state } = recorded;
        let rollout = Self::around(setup, networks, reset, state)?;
        Ok(Some(Self { collect: steps.into_iter().flatten().collect(), ..rollout }))
    }

    /// As [`Rollout::new`], with the commands of every step apart, for a caller who has something to do in between: `collect` holds
    /// only those after the last step.
    ///
    /// # Errors
    /// As [`Rollout::new`].
    pub fn in_steps(
        setup: Setup<'_>,
        environment: &dyn Environment,
        mode: ActionMode,
    ) -> Result<(Self, Vec<Step>)> {
        let Setup { gpu, sizes, buffers, .. } = setup;
        let recorded = environment.record(gpu, &rollout_buffers(setup))?;
        if recorded.steps.len() != sizes.steps as usize {
            return Err(Error::shape("recorded steps of the environment", sizes.steps, recorded.steps.len()));
        }
        let networks = Networks::new(setup)?;
        let mut normalized = match &buffers.normalization {
            Some(stats) => normalization::slots(setup, stats)?,
            None => Recording::new(),
        }
        .into_iter();
        let commands = acting(&networks.forward(setup), mode)?.into_iter().zip(recorded.steps);
        let steps = commands.map(|((forward, sample), environment)| {
            let forward = normalized.next().into_iter().chain(forward).collect();
            Step { forward, sample, environment }
        });
        let steps = steps.collect();
        let rollout = Self::around(setup, networks, recorded.reset, recorded.state)?;
        // The slots after the last step.
        Ok((Self { collect: normalized.collect(), ..rollout }, steps))
    }

    /// Everything but the steps.
    fn around(setup: Setup<'_>, networks: Networks, mut reset: Recording, state: Vec<State>) -> Result<Self> {
        let Setup { gpu, sizes, buffers, .. } = setup;
        let mut carry = Recording::new();
        if let Some(stats) = buffers.normalization.as_ref().filter(|_| sizes.valued) {
            carry.extend(normalization::update_stats(setup, stats)?);
        }
        carry.extend(carried(setup));
        if let Some(recurrent) = &buffers.recurrent {
            gpu.write(&recurrent.all_ended, 0, bytemuck::cast_slice(&vec![1u32; sizes.envs as usize]))?;
            reset.push(Command::Copy {
                source: recurrent.all_ended.clone(),
                source_offset: 0,
                target: buffers.rollout.dones_and_masks.clone(),
                target_offset: sizes.endings() * 4,
                bytes: u64::from(sizes.envs) * 4,
            });
        }
        let values = if sizes.valued { values(&networks.forward(setup))? } else { Recording::new() };
        let Networks { stacks, weights, kernels: forward } = networks;
        let prepare = weights.refresh().clone();
        Ok(Self { prepare, reset, collect: Recording::new(), values, carry, state, stacks, weights, forward })
    }
}

/// The environment's functions, if one kernel plays them together with these networks.
///
/// # Errors
/// As [`Environment::device_env`]; [`Error::Config`] if they are those of an environment with other sizes or rules.
pub fn functions(setup: Setup<'_>, environment: &dyn Environment) -> Result<Option<DeviceEnv>> {
    let Setup { gpu, sizes, layout, kernel_config, .. } = setup;
    if kernel_config.blocks.is_none() || sizes.normalized {
        return Ok(None);
    }
    let Some(functions) = environment.device_env()? else {
        return Ok(None);
    };
    let rules = |it: &dyn Environment| {
        let sizes = (it.spec(), it.continuous(), it.choices(), it.state_dim(), it.truncations(sizes.steps));
        (sizes, it.identity())
    };
    let [own, theirs] = [rules(environment), rules(&functions)];
    if own != theirs {
        let reason = format!("the functions are those of another environment: {theirs:?} instead of {own:?}");
        return Err(Error::config("device_env", reason));
    }
    let plays = functions.plays_with(gpu, (kernel_config, layout, sizes.kind), sizes.envs);
    Ok(plays.then_some(functions))
}

/// The buffers that the environment shares with the trainer.
fn rollout_buffers<'a>(setup: Setup<'a>) -> RolloutBuffers<'a> {
    let Setup { config, sizes, kernel_config, buffers, .. } = setup;
    let own = &buffers.rollout;
    RolloutBuffers {
        envs: sizes.envs,
        steps: sizes.steps,
        seed: config.ppo.seed,
        storage: sizes.observed_storage(kernel_config.storage),
        state_dim: sizes.state_dim,
        first_state: sizes.first_state() as u32,
        observations: buffers.observed(),
        actions: &own.actions,
        rewards: &own.rewards,
        dones_and_masks: &own.dones_and_masks,
        episodes: &own.episodes,
    }
}

/// The networks of a rollout: their stacks, their working weights, and the compiled forward pass.
struct Networks {
    stacks: wgpu::Buffer,
    weights: WorkingWeights,
    kernels: forward::Kernels,
}

impl Networks {
    fn new(setup: Setup<'_>) -> Result<Self> {
        let Setup { gpu, layout, kernel_config, buffers, .. } = setup;
        let stacks = forward::upload_stacks(gpu, &layout.stacks)?;
        let own = &buffers.networks;
        let weights =
            WorkingWeights::new(gpu, layout, kernel_config, &stacks, &own.params, &own.working_weights)?;
        let kernels = forward::Kernels::new(gpu, &layout.shape, kernel_config)?;
        Ok(Self { stacks, weights, kernels })
    }

    fn forward<'a>(&'a self, setup: Setup<'a>) -> Forward<'a> {
        Forward { setup, kernels: &self.kernels, stacks: &self.stacks, weights: &self.weights }
    }
}

/// The compiled forward pass with the buffers that all its uses in a rollout share.
struct Forward<'a> {
    setup: Setup<'a>,
    kernels: &'a forward::Kernels,
    stacks: &'a wgpu::Buffer,
    weights: &'a WorkingWeights,
}

impl Forward<'_> {
    fn bind(&self, batches: &wgpu::Buffer, head: &wgpu::Buffer) -> Result<forward::Pass> {
        let own = self.setup.buffers;
        let buffers = forward::Buffers {
            batches,
            stacks: self.stacks,
            weights: self.weights,
            observations: &own.rollout.observations,
            acts: &own.networks.activations,
            head,
            layer_norm_stats: &own.networks.layer_norm_stats,
            dones_and_masks: &own.rollout.dones_and_masks,
            memory: own.memory(),
        };
        self.kernels.bind(self.setup.gpu, buffers)
    }
}

/// For every step, the actors' forward pass and the sampling of actions.
fn acting(forward: &Forward<'_>, mode: ActionMode) -> Result<Vec<(Recording, Command)>> {
    let Setup { gpu, sizes, buffers, .. } = forward.setup;
    let batch = forward.setup.batch();
    let quads = sizes.rows_of_slot() / 4;
    let batches: Vec<_> = (0..sizes.steps)
        .map(|step| storing(one_slot(Batch { first_slot: step, rows: quads, ..batch })))
        .collect();
    let table = gpu.uniform_table("acting", &batches)?;
    let pass = forward.bind(&table, &buffers.networks.heads)?;
    let sample_kernel = sample::kernel(gpu, sizes.kind)?;
    let draws: Vec<_> = (0..sizes.steps).map(|step| draw(forward.setup, mode, step)).collect();
    let draws = gpu.uniform_table("draws", &draws)?;
    let own = &buffers.rollout;
    let mut bound = vec![
        &draws,
        &buffers.networks.heads,
        &own.dones_and_masks,
        &own.iteration,
        &own.actions,
        &own.targets,
    ];
    bound.extend(&own.draws);
    let sample_group = sample::bind(gpu, &sample_kernel, &bound)?;
    let sample_grid = sample::groups(&sample_kernel.variant, sizes.spec.agents, sizes.envs / 4);
    let stride = gpu.uniform_stride::<sample::Sample>();
    let sample = |step| Command::dispatch_at(&sample_kernel, &sample_group, step, stride, sample_grid);
    Ok((0..).zip(&batches).map(|(step, batch)| (pass.commands(step, batch, 1), sample(step))).collect())
}

/// Parameters of the draw of actions in step `step`.
fn draw(setup: Setup<'_>, mode: ActionMode, step: u32) -> sample::Sample {
    let Setup { config, sizes, .. } = setup;
    sample::Sample {
        step,
        steps: sizes.steps,
        agents: sizes.spec.agents,
        quads: sizes.envs / 4,
        actions: sizes.spec.actions,
        stride: setup.batch().stride,
        greedy: u32::from(mode == ActionMode::Greedy),
        masks: sizes.first_mask() / 4,
        seed_low: config.ppo.seed as u32,
        // A separate random stream: initial weights use the plain seed.
        seed_high: (config.ppo.seed >> 32) as u32 ^ 0x5EED_AC70,
        starts: sizes.starts,
        choice_targets: if sizes.choices > 0 { gae::choice_targets(sizes.rows()) } else { 0 },
    }
}

/// The same batch with GRU sequences of a single step.
fn one_slot(batch: Batch) -> Batch {
    let length = batch.recurrent.length.min(1);
    Batch { recurrent: RecurrentPart { length, ..batch.recurrent }, ..batch }
}

/// The same batch, which stores a GRU's new states for later dispatches.
fn storing(batch: Batch) -> Batch {
    Batch { recurrent: RecurrentPart { store_states: 1, ..batch.recurrent }, ..batch }
}

/// The critics over all slots, in batches of [`super::Sizes::value_slots`]. Recurrent critics process the rollout in consecutive
/// sequences of `chunk` steps, then the final observations of truncated episodes.
fn values(forward: &Forward<'_>) -> Result<Recording> {
    let Setup { gpu, sizes, buffers, .. } = forward.setup;
    let shared = forward.setup.batch();
    let per_slot = sizes.rows_of_slot() / 4;
    let batch = |slots: Range<u32>| Batch {
        first_slot: slots.start,
        rows: per_slot * slots.len() as u32,
        forward: ForwardPart {
            first_stack: 1,
            head_critic: per_slot * slots.start,
            ..ForwardPart::default()
        },
        ..shared
    };
    let split = |all: Range<u32>, size: u32| {
        all.clone().step_by(size as usize).map(move |first| first..all.end.min(first + size))
    };
    let batches: Vec<_> = match sizes.chunk {
        0 => split(0..sizes.slots(), sizes.value_slots).map(batch).collect(),
        chunk => {
            let sequence = |slots: Range<u32>| {
                let length = slots.len() as u32;
                let batch = storing(batch(slots));
                Batch { recurrent: RecurrentPart { length, ..batch.recurrent }, ..batch }
            };
            let sequences = split(0..sizes.steps + 1, chunk).map(sequence);
            let truncated = split(sizes.steps + 1..sizes.slots(), sizes.value_slots);
            sequences.chain(truncated.map(|slots| one_slot(batch(slots)))).collect()
        }
    };
    let table = gpu.uniform_table("values", &batches)?;
    let pass = forward.bind(&table, &buffers.rollout.values)?;
    Ok((0..).zip(&batches).flat_map(|(index, batch)| pass.commands(index, batch, 1)).collect())
}

/// A part of a buffer that is copied from the end of a rollout to the start of the next.
struct Carried<'a> {
    buffer: &'a wgpu::Buffer,
    /// Temporary copy, since wgpu cannot copy within one buffer.
    between: &'a wgpu::Buffer,
    last: u64,
    first: u64,
    bytes: u64,
}

/// Copies slot T to slot 0: observations, masks, and global states and GRU states if there are any.
fn carried(setup: Setup<'_>) -> Recording {
    let Setup { sizes, layout, kernel_config, buffers, .. } = setup;
    let own = &buffers.rollout;
    let steps = u64::from(sizes.steps);
    let stored = sizes.observed_storage(kernel_config.storage).precision().bytes();
    let ends = u64::from(sizes.envs) * 4;
    let masks = u64::from(sizes.first_mask()) * 4;
    let part = |buffer, between, first, last, bytes| Carried { buffer, between, last, first, bytes };
    let observed = sizes.observed() * stored;
    let slot = u64::from(sizes.rows_of_slot()) * 4;
    let mut parts = vec![
        part(buffers.observed(), &own.carried_observations, 0, observed * steps, observed),
        part(&own.dones_and_masks, &own.carried_masks, masks, masks + slot * steps, slot),
    ];
    if let Some(between) = &own.carried_states {
        let (first, bytes) = (sizes.first_state() * stored, sizes.states() * stored);
        parts.push(part(buffers.observed(), between, first, first + bytes * steps, bytes));
    }
    if let Some(recurrent) = &buffers.recurrent {
        let bytes = sizes.memory_bytes(layout);
        let place = |slot| u64::from(Memory::place(slot, sizes.chunk)) * bytes;
        let between = &recurrent.carried_states;
        parts.push(part(&recurrent.states, between, place(0), place(sizes.steps), bytes));
        let (first, last) = (sizes.endings() * 4, ends * (steps - 1));
        parts.push(part(&own.dones_and_masks, &recurrent.carried_endings, first, last, ends));
    }
    let copy = |source: &wgpu::Buffer, source_offset, target: &wgpu::Buffer, target_offset, bytes| {
        Command::Copy { source: source.clone(), source_offset, target: target.clone(), target_offset, bytes }
    };
    parts
        .into_iter()
        .flat_map(|Carried { buffer, between, last, first, bytes }| {
            [copy(buffer, last, between, 0, bytes), copy(between, 0, buffer, first, bytes)]
        })
        .collect()
}
