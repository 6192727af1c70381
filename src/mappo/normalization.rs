//! Observations normalised by their running moments: every slot right before it is looked at, the moments between rollouts, so
//! that a rollout is played and learnt from with the same ones.

use super::plan::Sizes;
use crate::Result;
use crate::gpu::{Arena, Command, Gpu, Recording};
use crate::nn::{Sharing, Storage};
use crate::ppo::normalize::{self, LIMIT, Normalize};
use crate::ppo::running_mean_std::{self, RunningMeanStd};

/// For every step its slot; then, for the critics, those after the last step.
pub(super) fn slots(gpu: &Gpu, sizes: &Sizes, storage: Storage, arena: &Arena) -> Result<Recording> {
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
    let kernel = normalize::kernel(gpu, storage)?;
    let buffers = [
        &table,
        arena.get("raw observations")?,
        arena.get("observation moments")?,
        arena.get("observations")?,
    ];
    let group = normalize::bind(gpu, &kernel, buffers)?;
    let stride = gpu.uniform_stride::<Normalize>();
    let command = |(index, part)| {
        let grid = normalize::groups(&kernel.variant, part);
        Command::dispatch_at(&kernel, &group, index, stride, grid)
    };
    Ok((0..).zip(&parts).map(command).collect())
}

/// Moves the moments by what was seen in a rollout.
pub(super) fn moments(gpu: &Gpu, sizes: &Sizes, networks: Sharing, arena: &Arena) -> Result<Command> {
    let parameters = RunningMeanStd {
        steps: sizes.steps,
        agents: sizes.spec.agents,
        obs_dim: sizes.spec.obs_dim,
        state_dim: sizes.state_dim,
        quads: sizes.envs / 4,
        first_state: (sizes.first_state() / 4) as u32,
        masks: sizes.steps * sizes.envs / 4,
        separate: u32::from(networks == Sharing::Separate),
        ..RunningMeanStd::default()
    };
    let kernel = running_mean_std::kernel(gpu)?;
    let buffers =
        [arena.get("raw observations")?, arena.get("dones_and_masks")?, arena.get("observation moments")?];
    let group = running_mean_std::bind(gpu, &kernel, &parameters, buffers)?;
    Ok(Command::dispatch(&kernel, &group, running_mean_std::groups(&parameters)))
}
