//! Advantages, losses, gradients and optimizer steps on one rollout, recorded once.

use std::ops::Range;

use super::plan::Sizes;
use super::rollout::{Rollout, batch, memory};
use super::{Algorithm, Config};
use crate::Result;
use crate::gpu::{Arena, BindGroup, Command, Gpu, Kernel, Recording};
use crate::nn::{
    Batch, KernelConfig, Layout, Precision, Sharing, backward, forward, reduce, unfold, weight_gradient,
};
use crate::ppo::loss_scale::LossScale;
use crate::ppo::{ActionKind, adamw, advantage_stats, clip, epoch, gae, loss, scalars, write_metrics};
use crate::random::Stream;

/// The recordings of one iteration after its rollout.
#[derive(Debug)]
pub struct Update {
    /// Advantages and their moments.
    pub advantages: Recording,
    /// One per epoch: at most 10 dispatches for a minibatch of one micro-batch, 5 for each further micro-batch. In turns
    /// ([`super::Algorithm::Happo`]) those of the first agent, then those of the second and so on.
    pub epochs: Vec<Recording>,
    /// In turns, for every agent: what it has changed goes into the factor of those after it.
    pub settling: Vec<Recording>,
    /// Seed of the order of turns.
    seed: u64,
    /// The record for the host, and the iteration.
    pub write_metrics: Recording,
}

/// Compiled kernels and bound buffers of a micro-batch, the same for all.
struct MicroBatch {
    forward: (Kernel, BindGroup),
    loss: (Kernel, BindGroup),
    backward: (Kernel, BindGroup),
    weights: (Kernel, BindGroup),
    first: (Kernel, BindGroup),
    further: (Kernel, BindGroup),
    stride: u32,
    tiles: u32,
    splits: u32,
    params: u32,
    kernel_config: KernelConfig,
}

impl Update {
    /// Records everything on the buffers of `arena`, allocated from [`Sizes::plan`].
    ///
    /// # Errors
    /// What compilation and allocation report.
    pub fn new(
        gpu: &Gpu,
        (sizes, kernel_config): (&Sizes, &KernelConfig),
        layout: &Layout,
        config: &Config,
        arena: &Arena,
        rollout: &Rollout,
    ) -> Result<Self> {
        let micro = sizes.micro_batches();
        let per_slot = sizes.rows_of_slot() / 4;
        let one_by_one = config.algorithm == Algorithm::Happo;
        let agent_steps = config.agent_steps(sizes.spec.agents);
        let number_of = |agent_step: u32| if one_by_one { agent_step + 1 } else { 0 };
        let of_piece = |(piece, agent_step, settle, index): (&Piece, u32, u32, u32)| Batch {
            first_slot: piece.slots.start,
            rows: per_slot * piece.slots.len() as u32,
            head_critic: sizes.outputs() * sizes.room(kernel_config),
            index,
            keep: 1,
            minibatch: piece.minibatch,
            agent_step: number_of(agent_step),
            settle,
            ..batch(sizes, layout, kernel_config)
        };
        let pieces: Vec<_> = (0..config.epochs).flat_map(|epoch| pieces(sizes, epoch)).collect();
        let learning =
            (0..agent_steps).flat_map(|agent_step| pieces.iter().map(move |piece| (piece, agent_step, 0)));
        // After its turn the agent's ratios are looked at once more.
        let settling = (0..if one_by_one { agent_steps } else { 0 })
            .flat_map(|agent_step| pieces[..micro as usize].iter().map(move |piece| (piece, agent_step, 1)));
        let batches: Vec<_> = learning
            .chain(settling)
            .zip(0..)
            .map(|((piece, agent_step, settle), index)| of_piece((piece, agent_step, settle, index)))
            .collect();
        let table = gpu.uniform_table("micro-batches", &batches)?;
        let kernels = MicroBatch::new(gpu, (sizes, kernel_config), layout, config, arena, &table, rollout)?;
        let places = loss::groups(&kernels.loss.0.variant, sizes.micro_quads())[0] * micro;
        let begin = beginnings(gpu, sizes, config, arena, places)?;
        let (mut epochs, mut settling) = (Vec::new(), Vec::new());
        for agent_step in 0..agent_steps {
            let step = optimizer(gpu, layout, config, arena, rollout, number_of(agent_step))?;
            for epoch in agent_step * config.epochs..(agent_step + 1) * config.epochs {
                let mut commands = Vec::new();
                let mut begin = begin[(epoch * sizes.minibatches) as usize..].iter().cloned();
                for index in epoch * micro..(epoch + 1) * micro {
                    let piece = &pieces[index as usize % pieces.len()];
                    if piece.first {
                        commands.extend(begin.next());
                    }
                    commands.extend(kernels.commands(index, &batches[index as usize], piece.first));
                    if piece.last {
                        commands.extend(step.iter().cloned());
                    }
                }
                epochs.push(commands);
            }
            if one_by_one {
                let first = agent_steps * config.epochs * micro + agent_step * micro;
                let commands =
                    (first..first + micro).flat_map(|index| kernels.settle(index, &batches[index as usize]));
                settling.push(commands.collect());
            }
        }
        let mut advantages = advantages(gpu, sizes, config, arena)?;
        if one_by_one {
            let ones = arena.get("first factors")?;
            gpu.write(ones, 0, bytemuck::cast_slice(&vec![1f32; (ones.size() / 4) as usize]))?;
            let all = agent_steps * config.epochs;
            advantages.push(Command::Copy {
                source: ones.clone(),
                source_offset: 0,
                target: arena.get("statistics")?.clone(),
                target_offset: u64::from(places * all) * 32,
                bytes: ones.size(),
            });
        }
        Ok(Self {
            advantages,
            epochs,
            settling,
            seed: config.seed,
            write_metrics: record(gpu, sizes, layout, config, arena, places)?,
        })
    }

    /// What there is to do in an iteration, epoch by epoch; nobody comes after the last turn.
    pub fn order(&self, iteration: u32) -> impl Iterator<Item = &Recording> {
        let agent_steps = self.settling.len().max(1);
        let each = self.epochs.len() / agent_steps;
        permutation(agent_steps, self.seed, iteration).into_iter().enumerate().flat_map(
            move |(place, agent_step)| {
                let settling = self.settling.get(agent_step).filter(|_| place + 1 < agent_steps);
                self.epochs[agent_step * each..(agent_step + 1) * each].iter().chain(settling)
            },
        )
    }
}

/// All agents in an order of the iteration's own (Fisher and Yates).
fn permutation(agents: usize, seed: u64, iteration: u32) -> Vec<usize> {
    // A key of its own: initial weights draw from the seed itself.
    let mut stream = Stream::new(seed ^ 0x7A6B_0000_0000_0000, iteration);
    let mut order: Vec<usize> = (0..agents).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, (stream.uniform() * (last + 1) as f64) as usize);
    }
    order
}

/// A micro-batch of an epoch.
struct Piece {
    minibatch: u32,
    slots: Range<u32>,
    /// The first and the last of its minibatch.
    first: bool,
    last: bool,
}

/// The minibatch that comes at a place in an epoch.
fn minibatch_at(sizes: &Sizes, epoch: u32, place: u32) -> u32 {
    (place + epoch) % sizes.minibatches
}

/// All of an epoch. Each epoch begins with another minibatch, so that none always has the last word.
fn pieces(sizes: &Sizes, epoch: u32) -> Vec<Piece> {
    let order = (0..sizes.minibatches).map(|place| minibatch_at(sizes, epoch, place));
    order
        .flat_map(|minibatch| {
            let own = sizes.minibatch(minibatch);
            own.clone().step_by(sizes.micro_slots as usize).map(move |start| {
                let end = own.end.min(start + sizes.micro_slots);
                Piece { minibatch, slots: start..end, first: start == own.start, last: end == own.end }
            })
        })
        .collect()
}

impl MicroBatch {
    fn new(
        gpu: &Gpu,
        (sizes, kernel_config): (&Sizes, &KernelConfig),
        layout: &Layout,
        config: &Config,
        arena: &Arena,
        table: &wgpu::Buffer,
        rollout: &Rollout,
    ) -> Result<Self> {
        let get = |name| arena.get(name);
        let (acts, moments, grads) = (get("activations")?, get("moments")?, get("activation gradients")?);
        let (head, observations) = (get("heads")?, get("observations")?);
        let (roles, weights) = (&rollout.roles, &rollout.weights);
        let forward_kernel = rollout.forward.clone();
        let memory = memory(sizes, arena)?;
        let buffers =
            forward::Buffers { batches: table, roles, weights, observations, acts, head, moments, memory };
        let forward_group = forward::bind(gpu, &forward_kernel, buffers)?;
        let parameters = loss::Loss {
            actions: sizes.spec.actions,
            section: sizes.rows() / 4,
            masks: sizes.steps * sizes.envs / 4,
            grad_actor: layout.head_gradient(0),
            grad_critic: layout.head_gradient(1),
            clip: config.clip as f32,
            value_clip: config.value_clip as f32,
            huber: config.huber_delta as f32,
            value: config.value_coefficient as f32,
            starts: sizes.starts,
            factors: 0,
            pad: 0,
        };
        let one_by_one = config.algorithm == Algorithm::Happo;
        let loss_kernel = loss::kernel(gpu, kernel_config, sizes.kind, one_by_one)?;
        let updates = sizes.micro_batches() * config.epochs * config.agent_steps(sizes.spec.agents);
        let places = loss::groups(&loss_kernel.variant, sizes.micro_quads())[0] * updates;
        let parameters = loss::Loss { factors: 2 * places, ..parameters };
        let actions = if sizes.kind == ActionKind::Squashed { "draws" } else { "actions" };
        let buffers = loss::Buffers {
            batches: table,
            head,
            dones_and_masks: get("dones_and_masks")?,
            actions: get(actions)?,
            targets: get("targets")?,
            values: get("values")?,
            scalars: get("scalars")?,
            grads,
            statistics: get("statistics")?,
        };
        let loss_group = loss::bind(gpu, &loss_kernel, &parameters, buffers)?;
        let backward_kernel = backward::kernel(gpu, &layout.shape, kernel_config)?;
        let dones_and_masks = memory.map(|memory| memory.dones_and_masks);
        let buffers =
            backward::Buffers { batches: table, roles, weights, acts, moments, grads, dones_and_masks };
        let backward_group = backward::bind(gpu, &backward_kernel, buffers)?;

        let tiles = weight_gradient::tiles(layout, kernel_config);
        let splits =
            weight_gradient::splits(kernel_config, tiles.len() as u32, u64::from(sizes.micro_quads()));
        let split = weight_gradient::Split {
            count: splits,
            stride: layout.params,
            tiles: tiles.len() as u32,
            pad: 0,
        };
        let (partials, sums) = (get("partial gradients")?, get("folded gradient")?);
        let weights_kernel = weight_gradient::kernel(gpu, kernel_config)?;
        let buffers = weight_gradient::Buffers {
            batches: table,
            split: &gpu.uniform("split", &split)?,
            tiles: &gpu.upload("tiles", &tiles)?,
            observations,
            acts,
            moments,
            grads,
            partials,
        };
        let weights_group = weight_gradient::bind(gpu, &weights_kernel, buffers)?;
        let reduce_kernel = reduce::kernel(gpu)?;
        let reduced = |first| {
            let parameters = reduce::Reduce { length: layout.params, splits, first, pad: 0 };
            reduce::bind(gpu, &reduce_kernel, &parameters, partials, sums)
        };
        Ok(Self {
            forward: (forward_kernel, forward_group),
            loss: (loss_kernel, loss_group),
            backward: (backward_kernel, backward_group),
            weights: (weights_kernel, weights_group),
            first: (reduce_kernel.clone(), reduced(1)?),
            further: (reduce_kernel.clone(), reduced(0)?),
            stride: gpu.uniform_stride::<Batch>(),
            tiles: tiles.len() as u32,
            splits,
            params: layout.params,
            kernel_config: *kernel_config,
        })
    }

    /// What the agent whose turn it was has changed goes into the factors of those after it.
    fn settle(&self, index: u32, batch: &Batch) -> [Command; 2] {
        let at = |(kernel, group): &(Kernel, BindGroup), grid| {
            Command::dispatch_at(kernel, group, index, self.stride, grid)
        };
        let stacks = forward::groups(&self.kernel_config, batch, 2);
        [at(&self.forward, stacks), at(&self.loss, loss::groups(&self.loss.0.variant, batch.rows))]
    }

    fn commands(&self, index: u32, batch: &Batch, first: bool) -> [Command; 5] {
        let at = |(kernel, group): &(Kernel, BindGroup), grid| {
            Command::dispatch_at(kernel, group, index, self.stride, grid)
        };
        let stacks = forward::groups(&self.kernel_config, batch, 2);
        let (reduce_kernel, reduce_group) = if first { &self.first } else { &self.further };
        let reduced = reduce::groups(&reduce_kernel.variant, self.params);
        [
            at(&self.forward, stacks),
            at(&self.loss, loss::groups(&self.loss.0.variant, batch.rows)),
            at(&self.backward, stacks),
            at(&self.weights, weight_gradient::groups(self.tiles, self.splits)),
            Command::dispatch(reduce_kernel, reduce_group, reduced),
        ]
    }
}

fn advantages(gpu: &Gpu, sizes: &Sizes, config: &Config, arena: &Arena) -> Result<Recording> {
    let parameters = gae::Gae {
        steps: sizes.steps,
        agents: sizes.spec.agents,
        envs: sizes.envs,
        gamma: config.gamma as f32,
        lambda: config.gae_lambda as f32,
        truncations: sizes.truncations,
        reward_scale: config.reward_scale as f32,
        pad: 0,
    };
    let (targets, scalars) = (arena.get("targets")?, arena.get("scalars")?);
    let kernel = gae::kernel(gpu)?;
    let buffers =
        [arena.get("values")?, arena.get("rewards")?, arena.get("dones_and_masks")?, scalars, targets];
    let group = gae::bind(gpu, &kernel, &parameters, buffers)?;
    let moments_kernel = advantage_stats::kernel(gpu)?;
    let rows = advantage_stats::AdvantageStats {
        size: sizes.rows(),
        agents: sizes.spec.agents,
        envs: sizes.envs,
        masks: sizes.steps * sizes.envs,
        separate: u32::from(config.networks == Sharing::Separate),
        minibatches: sizes.minibatches,
        chunk: sizes.chunk.max(1),
        over: config.advantage_norm as u32,
    };
    let buffers = [targets, scalars, arena.get("dones_and_masks")?];
    let moments_group = advantage_stats::bind(gpu, &moments_kernel, &rows, buffers)?;
    Ok(vec![
        Command::dispatch(&kernel, &group, gae::groups(&kernel.variant, &parameters)),
        Command::dispatch(&moments_kernel, &moments_group, advantage_stats::GROUPS),
    ])
}

/// What begins each minibatch of each epoch; `places` of statistics are left by each epoch.
fn beginnings(gpu: &Gpu, sizes: &Sizes, config: &Config, arena: &Arena, places: u32) -> Result<Recording> {
    let kernel = epoch::kernel(gpu)?;
    let end = config.entropy_end.unwrap_or(config.entropy);
    let agent_steps = config.agent_steps(sizes.spec.agents);
    let one_by_one = config.algorithm == Algorithm::Happo;
    let epochs: Vec<_> = (0..agent_steps)
        .flat_map(|agent_step| (0..config.epochs).map(move |number| (agent_step, number)))
        .flat_map(|(agent_step, number)| (0..sizes.minibatches).map(move |place| (agent_step, number, place)))
        .map(|(agent_step, number, place)| epoch::Epoch {
            // As far in all turns of a rollout as without turns.
            weight: ((1.0 - config.value_norm_beta) / f64::from(agent_steps)) as f32,
            floor: config.value_norm_floor as f32,
            enabled: u32::from(config.value_norm),
            number,
            places,
            target_kl: config.target_kl as f32,
            entropy: config.entropy as f32,
            entropy_step: ((end - config.entropy) / f64::from(config.iterations)) as f32,
            iterations: config.iterations,
            further: u32::from(place > 0),
            moments: match sizes.minibatches {
                1 => 0,
                all => scalars::minibatch(all, sizes.spec.agents, minibatch_at(sizes, number, place)),
            },
            agent_step: if one_by_one { agent_step + 1 } else { 0 },
            agents: sizes.spec.agents,
            minibatches: sizes.minibatches,
            first_place: agent_step * config.epochs * places,
            pad: 0,
        })
        .collect();
    let table = gpu.uniform_table("epochs", &epochs)?;
    let buffers = [&table, arena.get("scalars")?, arena.get("statistics")?, arena.get("iteration")?];
    let group = epoch::bind(gpu, &kernel, buffers)?;
    let stride = gpu.uniform_stride::<epoch::Epoch>();
    let at = |number| Command::dispatch_at(&kernel, &group, number, stride, epoch::GROUPS);
    Ok((0..epochs.len() as u32).map(at).collect())
}

/// From the accumulated sums to the next weights.
fn optimizer(
    gpu: &Gpu,
    layout: &Layout,
    config: &Config,
    arena: &Arena,
    rollout: &Rollout,
    agent_step: u32,
) -> Result<Recording> {
    let (roles, weights) = (&rollout.roles, &rollout.weights);
    let (params, sums) = (arena.get("params")?, arena.get("folded gradient")?);
    let buffers = [roles, weights.nets(), params, sums, arena.get("gradient")?];
    let unfolded = unfold::command(gpu, layout, buffers)?;
    let rates = [config.actor_learning_rate, config.critic_learning_rate];
    let nets: Vec<_> = layout
        .nets
        .iter()
        .map(|net| clip::NetworkSlice {
            first: net.first,
            length: net.length,
            rate: rates[net.role] as f32,
            agent: net.agent.map_or(0, |agent| agent + 1),
        })
        .collect();
    let count = nets.len() as u32;
    let longest = nets.iter().map(|net| net.length).max().unwrap_or(0);
    let nets = gpu.upload("nets", &nets)?;
    let parameters = clip::Clip {
        max_norm: config.max_grad_norm as f32,
        log_beta1: config.adam_beta1.ln() as f32,
        log_beta2: config.adam_beta2.ln() as f32,
        decay: if config.learning_rate_decay { (1.0 / f64::from(config.iterations)) as f32 } else { 0.0 },
        agent_step,
        pad: [0; 3],
    };
    let (gradient, state) = (arena.get("gradient")?, arena.get("optimizer")?);
    let kernel = clip::kernel(gpu)?;
    let scalars = arena.get("scalars")?;
    let buffers = [&nets, gradient, arena.get("iteration")?, state, scalars];
    let group = clip::bind(gpu, &kernel, &parameters, buffers)?;
    let scale = match config.precision {
        Precision::F32 => LossScale::CONSTANT,
        Precision::F16 => LossScale::DYNAMIC,
    };
    let step =
        adamw::AdamW::new(config.adam_beta1, config.adam_beta2, config.adam_epsilon, config.weight_decay)
            .with_loss_scale(&scale, count);
    let (first, second) = (arena.get("first moments")?, arena.get("second moments")?);
    let step_kernel = adamw::kernel(gpu)?;
    let buffers = [&nets, state, gradient, first, second, params, scalars];
    let step_group = adamw::bind(gpu, &step_kernel, &step, buffers)?;
    let mut commands = vec![
        unfolded,
        Command::dispatch(&kernel, &group, clip::groups(count)),
        Command::dispatch(&step_kernel, &step_group, adamw::groups(&step_kernel.variant, longest, count)),
    ];
    commands.extend(weights.refresh().iter().cloned());
    Ok(commands)
}

fn record(
    gpu: &Gpu,
    sizes: &Sizes,
    layout: &Layout,
    config: &Config,
    arena: &Arena,
    places: u32,
) -> Result<Recording> {
    let agent_steps = config.agent_steps(sizes.spec.agents);
    let parameters = write_metrics::WriteMetrics {
        statistics: places * config.epochs * agent_steps,
        rewards: sizes.rows(),
        envs: sizes.envs,
        nets: layout.nets.len() as u32,
        actors: layout.nets.iter().filter(|net| net.role == 0).count() as u32,
        agent_steps,
        pad: [0; 2],
    };
    let kernel = write_metrics::kernel(gpu)?;
    let buffers = [
        arena.get("statistics")?,
        arena.get("rewards")?,
        arena.get("optimizer")?,
        arena.get("scalars")?,
        arena.get("episodes")?,
        arena.get("iteration")?,
        arena.get("record")?,
    ];
    let group = write_metrics::bind(gpu, &kernel, &parameters, buffers)?;
    Ok(vec![Command::dispatch(&kernel, &group, write_metrics::GROUPS)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_has_one_turn_and_the_order_changes() {
        let orders: Vec<_> = (0..600).map(|iteration| permutation(3, 7, iteration)).collect();
        let mut counts = std::collections::BTreeMap::new();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
            *counts.entry(order.clone()).or_insert(0u32) += 1;
        }
        // Six orders, about a hundred times each; the deviation of a count is 9.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| count.abs_diff(100) < 40), "{counts:?}");
        assert!(orders == (0..600).map(|iteration| permutation(3, 7, iteration)).collect::<Vec<_>>());
        assert!(orders[0..8] != (0..8).map(|iteration| permutation(3, 8, iteration)).collect::<Vec<_>>()[..]);
        assert_eq!(permutation(1, 7, 3), [0]);
    }
}
