//! Normalisation of observations by their running mean and standard deviation, of every slot right before the networks read it.
//! The statistics are updated between rollouts, so that acting and training use the same ones.

use super::buffers::NormalizationBuffers;
use super::setup::Setup;
use crate::Result;
use crate::gpu::{Command, Recording};
use crate::nn::Sharing;
use crate::ppo::normalize::{self, LIMIT, Normalize};
use crate::ppo::observation_sums;
use crate::ppo::running_mean_std::{self, RunningMeanStd};

/// Normalises the slot of every step, then, for the critics, the slots after the last step.
pub fn slots(setup: Setup<'_>, buffers: &NormalizationBuffers) -> Result<Recording> {
    let Setup { gpu, sizes, kernel_config, .. } = setup;
    let [first_state, quads] = [(sizes.first_state() / 4) as u32, sizes.envs / 4];
    let part = |first_slot, slots| Normalize {
        first_slot,
        slots,
        quads,
        observed: sizes.spec.agents * sizes.spec.obs_dim,
        state_dim: sizes.state_dim,
        first_state,
        limit: LIMIT,
        pad: 0,
    };
    let mut parts: Vec<_> = (0..sizes.steps).map(|step| part(step, 1)).collect();
    if sizes.valued {
        parts.push(part(sizes.steps, sizes.slots() - sizes.steps));
    }
    let table = gpu.uniform_table("normalisation", &parts)?;
    let kernel = normalize::kernel(gpu, kernel_config.storage)?;
    let observations = &setup.buffers.rollout.observations;
    let bound = [&table, &buffers.raw_observations, &buffers.observation_stats, observations];
    let group = normalize::bind(gpu, &kernel, bound)?;
    let stride = gpu.uniform_stride::<Normalize>();
    let command = |(index, part)| {
        let grid = normalize::groups(&kernel.variant, part);
        Command::dispatch_at(&kernel, &group, index, stride, grid)
    };
    Ok((0..).zip(&parts).map(command).collect())
}

/// Updates the running statistics with the observations of a rollout.
pub fn update_stats(setup: Setup<'_>, buffers: &NormalizationBuffers) -> Result<[Command; 2]> {
    let Setup { gpu, config, sizes, .. } = setup;
    let parameters = RunningMeanStd {
        steps: sizes.steps,
        agents: sizes.spec.agents,
        obs_dim: sizes.spec.obs_dim,
        state_dim: sizes.state_dim,
        quads: sizes.envs / 4,
        first_state: (sizes.first_state() / 4) as u32,
        masks: sizes.first_mask() / 4,
        separate: u32::from(config.network.networks == Sharing::Separate),
        parts: observation_sums::parts(gpu.class(), sizes.rows().into()),
        ..RunningMeanStd::default()
    };
    let dones_and_masks = &setup.buffers.rollout.dones_and_masks;
    let bound =
        [&buffers.raw_observations, dones_and_masks, &buffers.observation_stats, &buffers.observation_sums];
    running_mean_std::commands(gpu, &parameters, bound)
}
