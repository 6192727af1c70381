//! The last dispatches of an iteration, which write its metrics for readback.

use crate::Result;
use crate::gpu::Recording;
use crate::mappo::buffers::UpdateBuffers;
use crate::mappo::setup::Setup;
use crate::ppo::{metrics_sums, write_metrics};

/// Writes the record, clears the episode totals and increments the iteration counter.
pub fn write(setup: Setup<'_>, update: &UpdateBuffers) -> Result<Recording> {
    let Setup { gpu, config, sizes, layout, kernel_config, buffers } = setup;
    let agent_steps = config.ppo.agent_steps(sizes.spec.agents);
    let statistics = sizes.partial_sums(kernel_config) * config.ppo.epochs * agent_steps;
    let parameters = write_metrics::WriteMetrics {
        statistics,
        rewards: sizes.rows(),
        envs: sizes.envs,
        nets: layout.nets.len() as u32,
        actors: layout.nets.iter().filter(|net| net.stack == 0).count() as u32,
        agent_steps,
        groups: sizes.groups,
        parts: metrics_sums::parts(gpu.class(), statistics.into(), sizes.rows().into()),
    };
    let rollout = &buffers.rollout;
    let bound = write_metrics::Bound {
        statistics: &update.statistics,
        rewards: &rollout.rewards,
        targets: &rollout.targets,
        episodes: &rollout.episodes,
        optimizer: &update.optimizer,
        scalars: &rollout.scalars,
        iteration: &rollout.iteration,
        sums: &update.sums,
        record: &update.record,
    };
    Ok(write_metrics::commands(gpu, &parameters, bound)?.to_vec())
}
