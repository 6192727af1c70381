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
use optimizer::Optimizer;
use schedule::{Evaluation, Schedule, agent_order};

/// The recordings of one iteration after its rollout.
#[derive(Debug)]
pub struct Update {
    /// Advantages and their statistics.
    pub advantages: Recording,
    /// One recording per epoch. A minibatch takes 3 dispatches for the optimizer step and 4 for every micro-batch, or 1 with networks in
    /// blocks (`nn/block.rs`). The first epoch of an agent step, and every epoch of several minibatches, begins with one more; 3 shuffle
    /// the latter. With HAPPO, the epochs of agent 0, then those of agent 1, and so on.
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
        let starts = advantages::minibatch_starts(setup, &schedule);
        let none = starts.len() as u32 - 1;
        // The optimizer step before a minibatch begins it, unless the agent step or a shuffled epoch begins with it.
        let shuffled = setup.sizes.shuffled();
        let follows = |number: u32| {
            let start = &starts[number as usize];
            start.further == 1 || (start.number > 0 && !shuffled)
        };
        let optimizer = Optimizer::new(setup, buffers, rollout, &starts)?;
        let (mut epochs, mut evaluations) = (Vec::new(), Vec::new());
        let mut minibatch = 0;
        for agent_step in schedule.agent_steps() {
            let adamw = optimizer.adamw(schedule.agent(agent_step))?;
            for epoch in schedule.epochs(agent_step) {
                let mut commands: Recording = shuffles.next().into_iter().flatten().collect();
                for (index, micro_batch) in epoch {
                    if micro_batch.first && !follows(minibatch) {
                        commands.push(optimizer.begin(minibatch));
                    }
                    commands.extend(kernels.gradient(index, &batches[index as usize]));
                    if micro_batch.last {
                        minibatch += 1;
                        let next = if minibatch < none && follows(minibatch) { minibatch } else { none };
                        commands.extend(optimizer.step(&adamw, next));
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
