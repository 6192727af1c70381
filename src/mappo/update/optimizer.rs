//! The optimizer step, from the summed gradient to the new weights.

use crate::Result;
use crate::gpu::{Command, Recording};
use crate::mappo::buffers::UpdateBuffers;
use crate::mappo::rollout::Rollout;
use crate::mappo::setup::Setup;
use crate::nn::{Precision, unfold};
use crate::ppo::loss_scale::LossScale;
use crate::ppo::{adamw, clip};

/// Clips the gradient and applies it with AdamW. `agent` is the agent to update, counted from 1; 0: all agents.
pub fn step(setup: Setup<'_>, update: &UpdateBuffers, rollout: &Rollout, agent: u32) -> Result<Recording> {
    let Setup { gpu, config, layout, buffers, .. } = setup;
    let (stacks, weights) = (&rollout.stacks, &rollout.weights);
    let params = &buffers.networks.params;
    let (iteration, scalars) = (&buffers.rollout.iteration, &buffers.rollout.scalars);
    let (gradient, state) = (&update.gradient, &update.optimizer);
    let bound = [stacks, weights.nets(), params, &update.folded_gradient, gradient];
    let unfolded = unfold::command(gpu, layout, bound)?;
    let rates = [config.optimizer.actor_learning_rate, config.optimizer.critic_learning_rate];
    let nets: Vec<_> = layout
        .nets
        .iter()
        .map(|net| clip::NetworkSlice {
            first: net.first,
            length: net.length,
            rate: rates[net.stack] as f32,
            agent: net.agent.map_or(0, |agent| agent + 1),
        })
        .collect();
    let count = nets.len() as u32;
    let longest = nets.iter().map(|net| net.length).max().unwrap_or(0);
    let nets = gpu.upload("nets", &nets)?;
    let parameters = clip::Clip {
        max_norm: config.optimizer.max_grad_norm as f32,
        log_beta1: config.optimizer.adam_beta1.ln() as f32,
        log_beta2: config.optimizer.adam_beta2.ln() as f32,
        decay: if config.optimizer.learning_rate_decay {
            (1.0 / f64::from(config.ppo.iterations)) as f32
        } else {
            0.0
        },
        agent_step: agent,
        pad: [0; 3],
    };
    let clip_kernel = clip::kernel(gpu)?;
    let bound = [&nets, gradient, iteration, state, scalars];
    let clip_group = clip::bind(gpu, &clip_kernel, &parameters, bound)?;
    let scale = match config.device.precision {
        Precision::F32 => LossScale::CONSTANT,
        Precision::F16 => LossScale::DYNAMIC,
    };
    let parameters = adamw::AdamW::new(
        config.optimizer.adam_beta1,
        config.optimizer.adam_beta2,
        config.optimizer.adam_epsilon,
        config.optimizer.weight_decay,
    )
    .with_loss_scale(&scale, count);
    let adamw_kernel = adamw::kernel(gpu)?;
    let bound = [&nets, state, gradient, &update.first_moments, &update.second_moments, params, scalars];
    let adamw_group = adamw::bind(gpu, &adamw_kernel, &parameters, bound)?;
    let mut commands = vec![
        unfolded,
        Command::dispatch(&clip_kernel, &clip_group, clip::groups(count)),
        Command::dispatch(&adamw_kernel, &adamw_group, adamw::groups(&adamw_kernel.variant, longest, count)),
    ];
    commands.extend(weights.refresh().iter().cloned());
    Ok(commands)
}
