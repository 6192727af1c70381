//! The order of updates on a rollout: agents, epochs, minibatches and their micro-batches.

use std::ops::Range;

use crate::mappo::config::{Algorithm, Config};
use crate::mappo::setup::Setup;
use crate::mappo::sizes::Sizes;
use crate::nn::{Batch, ForwardPart, LossPart};
use crate::random::Stream;

/// A random order of all agents, which depends on the iteration (Fisher-Yates shuffle).
pub fn agent_order(agents: usize, seed: u64, iteration: u32) -> Vec<usize> {
    // A separate random stream: initial weights use the plain seed.
    let mut stream = Stream::new(seed ^ 0x7A6B_0000_0000_0000, iteration);
    let mut order: Vec<usize> = (0..agents).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, (stream.uniform() * (last + 1) as f64) as usize);
    }
    order
}

/// A pass of HAPPO that evaluates the policy of the agent of an agent step. Its number is that of
/// [`LossPart::update_factors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// Keeps the log-probabilities of its actions before its epochs.
    Before = 1,
    /// After its epochs, multiplies the factors of later agents by its probability ratios.
    After = 2,
}

impl Evaluation {
    /// Both passes.
    pub const ALL: [Self; 2] = [Self::Before, Self::After];
}

/// Slots of one forward and backward pass, or places in the order of shuffled minibatches; its gradient is added to that of its
/// minibatch.
pub struct MicroBatch {
    minibatch: u32,
    slots: Range<u32>,
    /// Whether it is the first of its minibatch.
    pub first: bool,
    /// Whether it is the last of its minibatch.
    pub last: bool,
}

/// The micro-batches of at most `most` slots of a minibatch that consists of these slots.
fn micro_batches(most: u32, minibatch: u32, own: Range<u32>) -> impl Iterator<Item = MicroBatch> {
    own.clone().step_by(most as usize).map(move |start| {
        let end = own.end.min(start + most);
        MicroBatch { minibatch, slots: start..end, first: start == own.start, last: end == own.end }
    })
}

/// The micro-batches of an iteration. The index of a micro-batch is that of its parameters in the table of batches, which holds the
/// epochs of all agent steps, then, with HAPPO, the evaluations of every agent's policy.
pub struct Schedule {
    happo: bool,
    agent_steps: u32,
    /// Per agent step.
    epochs: u32,
    /// Of every epoch, in execution order.
    micro_batches: Vec<MicroBatch>,
    /// With HAPPO, the rollout in order, for evaluations.
    evaluated: Vec<MicroBatch>,
}

impl Schedule {
    pub fn new(config: &Config, sizes: &Sizes) -> Self {
        let happo = config.ppo.algorithm == Algorithm::Happo;
        let evaluated = if happo { 0..sizes.steps } else { 0..0 };
        Self {
            happo,
            agent_steps: config.ppo.agent_steps(sizes.spec.agents),
            epochs: config.ppo.epochs,
            micro_batches: (0..sizes.minibatches)
                .flat_map(|m| micro_batches(sizes.micro_slots, m, sizes.minibatch(m)))
                .collect(),
            evaluated: micro_batches(sizes.evaluated_slots.max(1), 0, evaluated).collect(),
        }
    }

    /// Agent steps of an iteration: one without HAPPO.
    pub fn agent_steps(&self) -> std::ops::Range<u32> {
        0..self.agent_steps
    }

    /// The agent updated in an agent step, as numbered by kernels: from 1; 0: all agents.
    pub fn agent(&self, agent_step: u32) -> u32 {
        if self.happo { agent_step + 1 } else { 0 }
    }

    /// The micro-batches of every epoch of an agent step, with their indices.
    pub fn epochs(&self, agent_step: u32) -> impl Iterator<Item = Vec<(u32, &MicroBatch)>> {
        let (first, length) = (agent_step * self.epochs, self.micro_batches.len() as u32);
        (first..first + self.epochs).map(move |epoch| (epoch * length..).zip(&self.micro_batches).collect())
    }

    /// The micro-batches, with their indices, of a pass of HAPPO that evaluates an agent's policy; none without HAPPO.
    pub fn evaluation(&self, agent_step: u32, pass: Evaluation) -> Vec<(u32, &MicroBatch)> {
        let number = Evaluation::ALL.len() as u32 * agent_step + pass as u32 - 1;
        let before = self.agent_steps * self.epochs * self.micro_batches.len() as u32;
        (before + number * self.evaluated.len() as u32..).zip(&self.evaluated).collect()
    }

    /// Parameters of all micro-batches, by index.
    pub fn batches(&self, setup: Setup<'_>) -> Vec<Batch> {
        let Setup { sizes, kernel_config, .. } = setup;
        let per_slot = sizes.rows_of_slot() / 4;
        let forward = ForwardPart {
            head_critic: sizes.outputs() * sizes.room(kernel_config),
            ..ForwardPart::default()
        };
        let order = if sizes.shuffled() { (sizes.order() / 4) as u32 } else { 0 };
        let shared = setup.batch();
        let batch = |agent_step, update_factors, (index, micro_batch): (u32, &MicroBatch)| Batch {
            first_slot: micro_batch.slots.start,
            // Evaluations process the rollout in order.
            order: if update_factors == 0 { order } else { 0 },
            starts_sum: u32::from(micro_batch.first),
            rows: per_slot * micro_batch.slots.len() as u32,
            // No backward pass follows an evaluation.
            forward: ForwardPart { keep: u32::from(update_factors == 0), ..forward },
            loss: LossPart {
                index,
                minibatch: micro_batch.minibatch,
                agent_step: self.agent(agent_step),
                update_factors,
            },
            ..shared
        };
        let learning = self
            .agent_steps()
            .flat_map(|step| self.epochs(step).flatten().map(move |numbered| (step, 0, numbered)));
        let evaluations = self.agent_steps().flat_map(|step| {
            Evaluation::ALL.into_iter().flat_map(move |pass| {
                self.evaluation(step, pass).into_iter().map(move |numbered| (step, pass as u32, numbered))
            })
        });
        learning
            .chain(evaluations)
            .map(|(step, update_factors, numbered)| batch(step, update_factors, numbered))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_is_updated_once_and_the_order_changes() {
        let orders: Vec<_> = (0..600).map(|iteration| agent_order(3, 7, iteration)).collect();
        let mut counts = std::collections::BTreeMap::new();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
            *counts.entry(order.clone()).or_insert(0u32) += 1;
        }
        // Six orders, about a hundred times each; the standard deviation of a count is 9.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| count.abs_diff(100) < 40), "{counts:?}");
        assert!(orders == (0..600).map(|iteration| agent_order(3, 7, iteration)).collect::<Vec<_>>());
        assert!(orders[0..8] != (0..8).map(|iteration| agent_order(3, 8, iteration)).collect::<Vec<_>>()[..]);
        assert_eq!(agent_order(1, 7, 3), [0]);
    }
}
