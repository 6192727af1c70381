//! Advantages, gradients and optimizer steps on one rollout, recorded once.

mod advantages;
mod gradient;
mod metrics;
mod optimizer;
mod schedule;

use super::buffers::UpdateBuffers;
use super::config::Algorithm;
use super::rollout::Rollout;
use super::setup::Setup;
use crate::Result;
use crate::gpu::Recording;
use gradient::GradientKernels;
use schedule::{Evaluation, Schedule, agent_order};

/// The recordings of one iteration after its rollout.
#[derive(Debug)]
pub struct Update {
    /// Advantages and their statistics.
    pub advantages: Recording,
    /// One recording per epoch: at most 10 dispatches for a minibatch of one micro-batch, 5 for each further micro-batch, and 3 to
    /// shuffle several minibatches; with networks in blocks (`nn/block.rs`) 7 and 1. With HAPPO, the epochs of agent 0, then those of agent 1, and so on.
    pub epochs: Vec<Recording>,
    /// With HAPPO, two recordings per agent: before the agent's epochs its log-probabilities are kept, after them the factors of
    /// later agents are multiplied by its probability ratios.
    pub evaluations: Vec<[Recording; 2]>,
    /// Seed of the agent order.
    seed: u64,
    /// Writes the metrics for readback and increments the iteration counter.
    pub write_metrics: Recording,
}

impl Update {
    /// Records everything on the buffers of `setup` and `buffers`.
    ///
    /// # Errors
    /// Errors of compilation and allocation.
    pub fn new(setup: Setup<'_>, buffers: &UpdateBuffers, rollout: &Rollout) -> Result<Self> {
        let schedule = Schedule::new(setup.config, setup.sizes);
        let batches = schedule.batches(setup);
        let table = setup.gpu.uniform_table("micro-batches", &batches)?;
        let kernels = GradientKernels::new(setup, buffers, rollout, &table)?;
        let mut shuffles = advantages::shuffles(setup, buffers, &schedule)?.into_iter();
        let mut minibatch_starts = advantages::minibatch_starts(setup, buffers, &schedule)?.into_iter();
        let (mut epochs, mut evaluations) = (Vec::new(), Vec::new());
        for agent_step in schedule.agent_steps() {
            let step = optimizer::step(setup, buffers, rollout, schedule.agent(agent_step))?;
            for epoch in schedule.epochs(agent_step) {
                let mut commands: Recording = shuffles.next().into_iter().flatten().collect();
                for (index, micro_batch) in epoch {
                    if micro_batch.first {
                        commands.extend(minibatch_starts.next());
                    }
                    let ends = [micro_batch.first, micro_batch.last];
                    commands.extend(kernels.gradient(index, &batches[index as usize], ends));
                    if micro_batch.last {
                        commands.extend(step.iter().cloned());
                    }
                }
                epochs.push(commands);
            }
            if setup.config.ppo.algorithm == Algorithm::Happo {
                evaluations.push(Evaluation::ALL.map(|pass| {
                    let parts = schedule.evaluation(agent_step, pass).into_iter();
                    parts.flat_map(|(index, _)| kernels.losses(index, &batches[index as usize])).collect()
                }));
            }
        }
        Ok(Self {
            advantages: advantages::estimate(setup, buffers)?,
            epochs,
            evaluations,
            seed: setup.config.ppo.seed,
            write_metrics: metrics::write(setup, buffers)?,
        })
    }

    /// The epochs of an iteration in execution order; with HAPPO, those of each agent but the last are between its evaluations.
    pub fn in_order(&self, iteration: u32) -> impl Iterator<Item = &Recording> {
        let agent_steps = self.evaluations.len().max(1);
        let each = self.epochs.len() / agent_steps;
        agent_order(agent_steps, self.seed, iteration).into_iter().enumerate().flat_map(
            move |(place, agent)| {
                let [before, after] = match self.evaluations.get(agent).filter(|_| place + 1 < agent_steps) {
                    Some([before, after]) => [Some(before), Some(after)],
                    None => [None; 2],
                };
                before.into_iter().chain(&self.epochs[agent * each..(agent + 1) * each]).chain(after)
            },
        )
    }
}
