//! The last dispatch of an iteration, which writes its metrics for readback.

use crate::Result;
use crate::gpu::{Command, Recording};
use crate::mappo::buffers::UpdateBuffers;
use crate::mappo::setup::Setup;
use crate::ppo::write_metrics;

/// Writes the record, clears the episode totals and increments the iteration counter.
pub fn write(setup: Setup<'_>, update: &UpdateBuffers) -> Result<Recording> {
    let Setup { gpu, config, sizes, layout, kernel_config, buffers } = setup;
    let agent_steps = config.ppo.agent_steps(sizes.spec.agents);
    let parameters = write_metrics::WriteMetrics {
        statistics: sizes.partial_sums(kernel_config) * config.ppo.epochs * agent_steps,
        rewards: sizes.rows(),
        envs: sizes.envs,
        nets: layout.nets.len() as u32,
        actors: layout.nets.iter().filter(|net| net.stack == 0).count() as u32,
        agent_steps,
        groups: sizes.groups,
        pad: 0,
    };
    let kernel = write_metrics::kernel(gpu)?;
    let rollout = &buffers.rollout;
    let bound = [
        &update.statistics,
        &rollout.rewards,
        &update.optimizer,
        &rollout.scalars,
        &rollout.episodes,
        &rollout.iteration,
        &update.record,
        &rollout.targets,
    ];
    let group = write_metrics::bind(gpu, &kernel, &parameters, bound)?;
    Ok(vec![Command::dispatch(&kernel, &group, write_metrics::GROUPS)])
}
