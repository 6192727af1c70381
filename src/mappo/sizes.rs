//! Sizes of a run. [`super::buffers`] plans the buffers of these sizes, [`super::memory_plan`] fits them to the device.

use std::ops::Range;

use super::config::{Algorithm, Config};
use crate::env::{Environment, Spec};
use crate::gpu::{GROUPS_IN_A_ROW, round_up};
use crate::nn::{CriticInput, KernelConfig, Layout, MOST_MULTIPLY_ADDS, Sharing, Storage};
use crate::ppo::{ActionKind, loss};

/// Slots of each of the fewest dispatches of about the same size over `slots` slots of `each` multiply-adds.
fn slots_of(slots: u32, each: u64) -> u32 {
    let most = (MOST_MULTIPLY_ADDS / each.max(1)).clamp(1, slots.max(1).into()) as u32;
    slots.div_ceil(slots.div_ceil(most).max(1))
}

/// Basic sizes of a run, which determine all buffers and dispatches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The environment's sizes.
    pub spec: Spec,
    /// Bit mask of the logits that start a choice ([`Environment::choices`]).
    pub starts: u32,
    /// Choices of an action whose probability ratios are clipped one by one; 0: the ratio of the whole action is clipped.
    pub choices: u32,
    /// Discrete, continuous or squashed actions ([`Environment::continuous`], [`squash`](super::NetworkConfig::squash)).
    pub kind: ActionKind,
    /// Groups of agents that share networks: 1, or one per agent. Each has a ValueNorm, and normalises its advantages.
    pub groups: u32,
    /// Size of the global state that is stored for the critics; 0 if they use observations.
    pub state_dim: u32,
    /// E, number of parallel environments, a multiple of 4.
    pub envs: u32,
    /// T, steps per rollout.
    pub steps: u32,
    /// K, maximum number of truncations of one environment in a rollout.
    pub truncations: u32,
    /// Steps of truncated back-propagation through time; 0 without a GRU.
    pub chunk: u32,
    /// M, minibatches per epoch.
    pub minibatches: u32,
    /// Observation slots per micro-batch; a minibatch has one or more micro-batches.
    pub micro_slots: u32,
    /// Observation slots of a dispatch of the critics that computes values of the rollout.
    pub value_slots: u32,
    /// Observation slots of a dispatch that evaluates a policy of HAPPO before and after its epochs.
    pub evaluated_slots: u32,
    /// Whether critics compute values of the rollout; `false` for a policy that only acts.
    pub valued: bool,
    /// Whether observations are normalised by running statistics ([`observation_norm`](super::NetworkConfig::observation_norm)).
    pub normalized: bool,
}

impl Sizes {
    /// Sizes as configured, whether or not they fit into memory.
    #[must_use]
    pub fn configured(config: &Config, environment: &dyn Environment) -> Self {
        let steps = config.ppo.rollout_steps;
        Self {
            spec: environment.spec(),
            starts: starts(&environment.choices()),
            choices: config.ppo.clipped_choices(environment),
            groups: match config.network.networks {
                Sharing::Shared => 1,
                Sharing::Separate => environment.spec().agents,
            },
            kind: ActionKind::new(environment.continuous(), config.network.squash),
            state_dim: if config.network.critic_input == CriticInput::State {
                environment.state_dim()
            } else {
                0
            },
            envs: round_up(config.ppo.num_envs.max(1), 4),
            steps,
            truncations: environment.truncations(steps),
            chunk: config.chunk(),
            minibatches: config.ppo.minibatches.clamp(1, steps.div_ceil(config.chunk().max(1))),
            micro_slots: 0,
            value_slots: 0,
            evaluated_slots: 0,
            valued: true,
            normalized: config.network.observation_norm,
        }
        .with_micro_batches(config)
    }

    /// The same sizes for a configuration of the kernels, which may keep activations in workgroup memory. Then micro-batches save no
    /// memory, and there are as few as `MOST_MULTIPLY_ADDS` allows.
    #[must_use]
    pub fn for_kernels(self, config: &Config, layout: &Layout, kernel_config: &KernelConfig) -> Self {
        if kernel_config.blocks.is_none() {
            return self;
        }
        let slot = self.wide()[0];
        let [actor, critic] = [0, 1].map(|stack| slot.saturating_mul(layout.multiply_adds(stack)));
        let launched =
            u64::from(GROUPS_IN_A_ROW) * u64::from(kernel_config.quads_of_group()) / (slot / 4).max(1);
        let happo = config.ppo.algorithm == Algorithm::Happo;
        Self {
            // Forward pass, gradients of the activations, and gradients of the weights.
            micro_slots: slots_of(self.largest_minibatch(), actor.saturating_add(critic).saturating_mul(3)),
            value_slots: slots_of(self.slots(), critic).min(launched.clamp(1, u32::MAX.into()) as u32),
            evaluated_slots: if happo { self.evaluated_slots.min(slots_of(self.steps, actor)) } else { 0 },
            ..self
        }
    }

    /// Sizes of a policy that only acts: micro-batches of one slot, and GRU states only at the start and the end of the rollout.
    #[must_use]
    pub fn acting(config: &Config, environment: &dyn Environment) -> Self {
        let sizes = Self::configured(config, environment);
        let chunk = if sizes.chunk > 0 { sizes.steps } else { 0 };
        let sizes = Self { chunk, minibatches: 1, valued: false, state_dim: 0, choices: 0, ..sizes };
        sizes.with_micro_slots(1)
    }

    /// Observation slots: one before each step, one after the last, and those of truncated episodes.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.steps + 1 + self.truncations
    }

    /// Whether an action consists of several choices.
    #[must_use]
    pub fn several_choices(&self) -> bool {
        self.kind == ActionKind::Choices && self.starts.count_ones() > 1
    }

    /// Options of every choice of a discrete action.
    #[must_use]
    pub fn choice_sizes(&self) -> Vec<u32> {
        let starts: Vec<_> = (0..32).filter(|bit| self.starts & (1 << bit) != 0).collect();
        let ends = starts.iter().copied().skip(1).chain([self.spec.actions]);
        starts.iter().zip(ends).map(|(start, end)| end - start).collect()
    }

    /// Outputs of an actor: logits, or means and log standard deviations.
    #[must_use]
    pub fn outputs(&self) -> u32 {
        self.kind.outputs(self.spec.actions)
    }

    /// Rows of one observation slot.
    #[must_use]
    pub fn rows_of_slot(&self) -> u32 {
        self.spec.agents * self.envs
    }

    /// Rows of a rollout.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.rows_of_slot() * self.steps
    }

    /// Quads of rows per micro-batch.
    #[must_use]
    pub fn micro_quads(&self) -> u32 {
        self.rows_of_slot() / 4 * self.micro_slots
    }

    /// Capacity, in quads of rows, of the buffers of heads and LayerNorm statistics.
    #[must_use]
    pub fn room(&self, kernel_config: &KernelConfig) -> u32 {
        self.wide_room(kernel_config) as u32
    }

    /// [`Sizes::room`] in 64 bits. Those of a micro-batch; in blocks, those of a slot or of an evaluation of HAPPO, and of the blocks that
    /// are being worked on.
    pub(super) fn wide_room(&self, kernel_config: &KernelConfig) -> u64 {
        let [slot, _, quads] = self.wide();
        if kernel_config.blocks.is_none() {
            return kernel_config.room(quads);
        }
        let evaluated = slot / 4 * u64::from(self.evaluated_slots.max(1));
        kernel_config.room(evaluated).max(kernel_config.kept(quads))
    }

    /// Micro-batches per epoch.
    #[must_use]
    pub fn micro_batches(&self) -> u32 {
        (0..self.minibatches)
            .map(|m| self.minibatch(m).len().div_ceil(self.micro_slots as usize) as u32)
            .sum()
    }

    /// Whether the steps of a rollout are dealt to several minibatches at random.
    #[must_use]
    pub fn shuffled(&self) -> bool {
        self.minibatches > 1
    }

    /// Places of minibatch `m`, each with a slot of rows: the steps of the rollout if it is the only one, else its range of the
    /// random order. With a GRU, the order consists of whole sequences.
    #[must_use]
    pub fn minibatch(&self, m: u32) -> Range<u32> {
        let places = self.places();
        let chunk = self.chunk.max(1);
        let chunks = places.div_ceil(chunk);
        let start = |m: u32| (m * chunks / self.minibatches * chunk).min(places);
        start(m)..start(m + 1)
    }

    /// Places of all minibatches.
    pub(super) fn places(&self) -> u32 {
        if self.shuffled() { self.whole_chunks(self.steps) } else { self.steps }
    }

    /// `slots`, rounded up to whole sequences of truncated back-propagation through time.
    pub(super) fn whole_chunks(&self, slots: u32) -> u32 {
        slots.next_multiple_of(self.chunk.max(1))
    }

    /// Places of the largest minibatch.
    fn largest_minibatch(&self) -> u32 {
        (0..self.minibatches).map(|m| self.minibatch(m).len() as u32).max().unwrap_or(1)
    }

    /// The same sizes with the configured number of micro-batches per minibatch.
    pub(super) fn with_micro_batches(self, config: &Config) -> Self {
        let slots = self.largest_minibatch().div_ceil(config.device.accumulation.max(1));
        self.with_micro_slots(self.whole_chunks(slots))
    }

    /// The same sizes with micro-batches of `slots` slots, and as many in the dispatches of values and evaluations.
    fn with_micro_slots(self, slots: u32) -> Self {
        Self { micro_slots: slots, value_slots: slots, evaluated_slots: slots, ..self }
    }

    /// The same sizes with half as many slots in the dispatches whose results lie in buffers; `None` if they have one sequence.
    pub(super) fn halved(self, kernel_config: &KernelConfig) -> Option<Self> {
        let half = |slots: u32| self.whole_chunks(slots.div_ceil(2));
        if self.micro_slots.max(self.evaluated_slots) <= self.chunk.max(1) {
            return None;
        }
        Some(match kernel_config.blocks {
            None => self.with_micro_slots(half(self.micro_slots)),
            Some(_) => Self {
                micro_slots: half(self.micro_slots),
                evaluated_slots: half(self.evaluated_slots),
                ..self
            },
        })
    }

    /// Rows of a slot, rows of a rollout, and quads of a micro-batch, in 64 bits: plans that do not fit may exceed 32.
    pub(super) fn wide(&self) -> [u64; 3] {
        let slot = u64::from(self.spec.agents) * u64::from(self.envs);
        [slot, slot * u64::from(self.steps), slot / 4 * u64::from(self.micro_slots)]
    }

    /// Offset of the masks in `dones_and_masks`, in words.
    pub(crate) fn first_mask(&self) -> u32 {
        self.steps * self.envs
    }

    /// Offset, in words, of the episode ends of the step before slot 0 in `dones_and_masks`.
    pub(crate) fn endings(&self) -> u64 {
        u64::from(self.steps) * u64::from(self.envs) + u64::from(self.slots()) * self.wide()[0]
    }

    /// Offset of the order of shuffled minibatches in `dones_and_masks`, in words: a multiple of 4.
    pub(super) fn order(&self) -> u64 {
        // With a GRU, the ends of the step before slot 0 come first.
        self.endings() + if self.chunk > 0 { u64::from(self.envs) } else { 0 }
    }

    /// Words of the order, in whole vec4s: a slot for every place and quad of environments.
    pub(super) fn order_words(&self) -> u64 {
        match self.shuffled() {
            true => (u64::from(self.places()) * u64::from(self.envs / 4)).next_multiple_of(4),
            false => 0,
        }
    }

    /// Bytes of the GRU states of a slot.
    pub(crate) fn memory_bytes(&self, layout: &Layout) -> u64 {
        8 * u64::from(layout.shape.memory()) * self.wide()[0]
    }

    /// Elements of the observations of a slot.
    pub(super) fn observed(&self) -> u64 {
        self.wide()[0] * u64::from(self.spec.obs_dim)
    }

    /// Elements of the global states of a slot.
    pub(super) fn states(&self) -> u64 {
        u64::from(self.envs) * u64::from(self.state_dim)
    }

    /// Columns with separate running statistics: the features of every agent, then the numbers of the global state.
    pub(crate) fn columns(&self) -> u32 {
        self.spec.agents * self.spec.obs_dim + self.state_dim
    }

    /// Storage type of observations as written by environments; `storage` is that of the networks.
    pub(crate) fn observed_storage(&self, storage: Storage) -> Storage {
        if self.normalized { Storage::F32 } else { storage }
    }

    /// Offset of the global states, in elements: they follow the observations of all slots.
    pub(super) fn first_state(&self) -> u64 {
        u64::from(self.slots()) * self.observed()
    }

    /// Micro-batches per iteration, over all epochs.
    pub(super) fn updates(&self, config: &Config) -> u64 {
        let agent_steps = config.ppo.agent_steps(self.spec.agents);
        u64::from(self.micro_batches()) * u64::from(config.ppo.epochs) * u64::from(agent_steps)
    }

    /// Workgroups of the loss in one epoch; each writes separate partial sums.
    pub(super) fn partial_sums(&self, kernel_config: &KernelConfig) -> u32 {
        loss::partial_sums(kernel_config, u64::from(self.micro_quads())) as u32 * self.micro_batches()
    }

    /// Number of HAPPO's factors, one per step and environment; 0 with MAPPO.
    pub(super) fn factors(&self, config: &Config) -> u64 {
        match config.ppo.algorithm {
            Algorithm::Mappo => 0,
            Algorithm::Happo => u64::from(self.steps) * u64::from(self.envs),
        }
    }
}

/// Bit mask of the logits that start a choice.
fn starts(choices: &[u32]) -> u32 {
    let mut first = 0u32;
    choices.iter().fold(0, |mask, size| {
        let bit = 1u32.checked_shl(first).unwrap_or(0);
        first = first.saturating_add(*size);
        mask | bit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_choice_starts_after_the_previous_one() {
        assert_eq!([starts(&[5]), starts(&[5, 10]), starts(&[2; 16])], [1, 0b10_0001, 0x5555_5555]);
    }

    #[test]
    fn dispatches_are_few_and_within_the_limit() {
        for (slots, share, expected) in
            [(128, 0.99, 1), (128, 0.3, 3), (128, 0.001, 128), (129, 0.02, 43), (7, 2.0, 1)]
        {
            let each = (share * MOST_MULTIPLY_ADDS as f64) as u64;
            let size = slots_of(slots, each);
            assert_eq!(size, expected, "{slots} slots of {share}");
            assert!(size == 1 || u64::from(size) * each <= MOST_MULTIPLY_ADDS);
        }
        assert_eq!([slots_of(5, 0), slots_of(0, 1)], [5, 0]);
    }
}
