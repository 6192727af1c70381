//! Advantages of a rollout, and the per-minibatch statistics.

use super::schedule::Schedule;
use crate::Result;
use crate::gpu::{Command, Recording};
use crate::mappo::buffers::UpdateBuffers;
use crate::mappo::setup::Setup;
use crate::ppo::{advantage_stats, advantage_sums, epoch, gae, loss, scalars, shuffle};

/// Generalised advantage estimation and its statistics; with HAPPO, also the first agent's factors of 1.
pub fn estimate(setup: Setup<'_>, update: &UpdateBuffers) -> Result<Recording> {
    let Setup { gpu, config, sizes, kernel_config, buffers, .. } = setup;
    let rollout = &buffers.rollout;
    let (targets, scalars, dones_and_masks) = (&rollout.targets, &rollout.scalars, &rollout.dones_and_masks);
    let parameters = gae::Gae {
        steps: sizes.steps,
        agents: sizes.spec.agents,
        envs: sizes.envs,
        gamma: config.ppo.gamma as f32,
        lambda: config.ppo.gae_lambda as f32,
        truncations: sizes.truncations,
        reward_scale: config.ppo.reward_scale as f32,
        groups: sizes.groups,
    };
    let kernel = gae::kernel(gpu)?;
    let bound = [&rollout.values, &rollout.rewards, dones_and_masks, scalars, targets];
    let group = gae::bind(gpu, &kernel, &parameters, bound)?;
    let mut commands = vec![Command::dispatch(&kernel, &group, gae::groups(&kernel.variant, &parameters))];
    commands.extend(stats(setup, update, 0)?);
    if let Some(ones) = &update.first_factors {
        gpu.write(ones, 0, bytemuck::cast_slice(&vec![1f32; (ones.size() / 4) as usize]))?;
        let epochs = config.ppo.epochs * config.ppo.agent_steps(sizes.spec.agents);
        commands.push(Command::Copy {
            source: ones.clone(),
            source_offset: 0,
            target: update.statistics.clone(),
            target_offset: u64::from(sizes.partial_sums(kernel_config) * epochs) * loss::STATISTICS * 4,
            bytes: ones.size(),
        });
    }
    Ok(commands)
}

/// The statistics of a rollout and its minibatches; with an order, those of shuffled minibatches.
fn stats(setup: Setup<'_>, update: &UpdateBuffers, order: u32) -> Result<[Command; 2]> {
    let Setup { gpu, config, sizes, buffers, .. } = setup;
    let rollout = &buffers.rollout;
    let parameters = advantage_stats::AdvantageStats {
        size: sizes.rows(),
        agents: sizes.spec.agents,
        envs: sizes.envs,
        masks: sizes.first_mask(),
        separate: u32::from(sizes.groups > 1),
        minibatches: sizes.minibatches,
        chunk: sizes.chunk.max(1),
        over: config.ppo.advantage_norm as u32,
        order,
        parts: advantage_sums::parts(gpu.class(), sizes.rows().into(), sizes.groups, sizes.minibatches),
        pad: [0; 2],
    };
    let bound = [&rollout.targets, &rollout.scalars, &rollout.dones_and_masks, &update.sums];
    advantage_stats::commands(gpu, &parameters, bound)
}

/// The first dispatches of every epoch of every agent step if there are several minibatches: deals the steps to them, and computes
/// the minibatches' statistics.
pub fn shuffles(setup: Setup<'_>, update: &UpdateBuffers, schedule: &Schedule) -> Result<Vec<[Command; 3]>> {
    let Setup { gpu, config, sizes, buffers, .. } = setup;
    if !sizes.shuffled() {
        return Ok(Vec::new());
    }
    let chunk = sizes.chunk.max(1);
    let order = sizes.order() as u32;
    let parameters: Vec<_> = (0..schedule.agent_steps().end * config.ppo.epochs)
        .map(|epoch| shuffle::Shuffle {
            seed_low: config.ppo.seed as u32,
            seed_high: (config.ppo.seed >> 32) as u32 ^ shuffle::STREAM,
            epoch,
            quads: sizes.envs / 4,
            chunk,
            chunks: sizes.places() / chunk,
            order,
            pad: 0,
        })
        .collect();
    let kernel = shuffle::kernel(gpu)?;
    let table = gpu.uniform_table("shuffles", &parameters)?;
    let rollout = &buffers.rollout;
    let group = shuffle::bind(gpu, &kernel, [&table, &rollout.iteration, &rollout.dones_and_masks])?;
    let stride = gpu.uniform_stride::<shuffle::Shuffle>();
    let [sum, join] = stats(setup, update, order)?;
    let all = |(index, parameters)| {
        let grid = shuffle::groups(&kernel.variant, parameters);
        [Command::dispatch_at(&kernel, &group, index, stride, grid), sum.clone(), join.clone()]
    };
    Ok((0..).zip(&parameters).map(all).collect())
}

/// The beginning of every minibatch of every epoch of every agent step: updates ValueNorm and the entropy coefficient, and stops the epochs
/// if the KL divergence exceeds its target. The last entry begins nothing.
pub fn minibatch_starts(setup: Setup<'_>, schedule: &Schedule) -> Vec<epoch::Epoch> {
    let Setup { config, sizes, kernel_config, .. } = setup;
    let places = sizes.partial_sums(kernel_config);
    let end = config.ppo.entropy_end.unwrap_or(config.ppo.entropy);
    let iterations = f64::from(config.ppo.iterations);
    schedule
        .agent_steps()
        .flat_map(|agent_step| (0..config.ppo.epochs).map(move |number| (agent_step, number)))
        .flat_map(|(agent_step, number)| (0..sizes.minibatches).map(move |place| (agent_step, number, place)))
        .map(|(agent_step, number, place)| epoch::Epoch {
            weight: (1.0 - config.ppo.value_norm_beta) as f32,
            floor: config.ppo.value_norm_floor as f32,
            enabled: u32::from(config.ppo.value_norm),
            number,
            places,
            target_kl: config.ppo.target_kl as f32,
            entropy: config.ppo.entropy as f32,
            entropy_step: ((end - config.ppo.entropy) / iterations) as f32,
            iterations: config.ppo.iterations,
            further: u32::from(place > 0),
            minibatch_stats: match sizes.minibatches {
                1 => 0,
                all => scalars::minibatch(sizes.groups, sizes.spec.agents, all, place),
            },
            agent_step: schedule.agent(agent_step),
            agents: sizes.spec.agents,
            minibatches: sizes.minibatches,
            first_place: agent_step * config.ppo.epochs * places,
            groups: sizes.groups,
            rate_decay: if config.optimizer.learning_rate_decay { (1.0 / iterations) as f32 } else { 0.0 },
            begins: 1,
            pad: [0; 2],
        })
        .chain([epoch::Epoch::default()])
        .collect()
}
