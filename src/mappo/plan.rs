//! Sizes of a training run, fitted to the card before anything is allocated.

use std::ops::Range;

use super::{Algorithm, Config};
use crate::env::{Environment, Spec};
use crate::gpu::{Budget, Class, GROUPS_IN_A_ROW, Gpu, Plan, TABLE_ENTRY, Variant, round_up};
use crate::nn::{
    CriticInput, KernelConfig, Layout, MAX_LOOP_ITERATIONS, Sharing, Storage, WorkingWeights, forward,
    weight_gradient,
};
use crate::ppo::{ActionKind, clip, loss, scalars, write_metrics};
use crate::{Error, Result};

/// Sizes that everything else follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The environment's sizes.
    pub spec: Spec,
    /// A bit for every logit that begins a choice ([`Environment::choices`]).
    pub starts: u32,
    /// What an action is ([`Environment::continuous`], [`Config::squash`]).
    pub kind: ActionKind,
    /// Numbers of the environment's own state that are stored for the critics; 0 if they see something else.
    pub state_dim: u32,
    /// E, environments in parallel, a multiple of 4.
    pub envs: u32,
    /// T, steps of a rollout.
    pub steps: u32,
    /// K, most truncations of one environment in a rollout.
    pub truncations: u32,
    /// Steps of a chunk that a recurrent network learns from at once; 0: the networks are not recurrent.
    pub chunk: u32,
    /// M, optimizer steps of an epoch, each on its share of the rollout's steps.
    pub minibatches: u32,
    /// Observation slots of a micro-batch, of which a minibatch has one or more.
    pub micro_slots: u32,
    /// Whether critics value what was seen: not where a policy only acts.
    pub valued: bool,
    /// Whether what is seen is normalised by running moments ([`Config::observation_norm`]).
    pub normalized: bool,
}

impl Sizes {
    /// Sizes as configured, memory not considered.
    #[must_use]
    pub fn configured(config: &Config, environment: &dyn Environment) -> Self {
        let steps = config.rollout_steps;
        Self {
            spec: environment.spec(),
            starts: starts(&environment.choices()),
            kind: ActionKind::new(environment.continuous(), config.squash),
            state_dim: if config.critic_input == CriticInput::State { environment.state_dim() } else { 0 },
            envs: round_up(config.num_envs.max(1), 4),
            steps,
            truncations: environment.truncations(steps),
            chunk: config.chunk(),
            minibatches: config.minibatches.clamp(1, steps.div_ceil(config.chunk().max(1))),
            micro_slots: 0,
            valued: true,
            normalized: config.observation_norm,
        }
        .with_micro_batches(config)
    }

    /// For acting alone: buffers of a single slot, and of what was remembered only where the rollout begins and ends.
    #[must_use]
    pub fn acting(config: &Config, environment: &dyn Environment) -> Self {
        let sizes = Self::configured(config, environment);
        let chunk = if sizes.chunk > 0 { sizes.steps } else { 0 };
        Self { chunk, micro_slots: 1, valued: false, state_dim: 0, ..sizes }
    }

    /// The largest sizes within the budget, and the forms of the kernels that go with them.
    ///
    /// # Errors
    /// As [`Sizes::fit`] and [`KernelConfig::new`].
    pub fn decide(
        gpu: &Gpu,
        config: &Config,
        environment: &dyn Environment,
        layout: &Layout,
        budget: &Budget,
    ) -> Result<(Self, KernelConfig)> {
        let quads = Self::configured(config, environment).envs / 4;
        let kernel_config = KernelConfig::new(gpu, config.precision, layout, quads)?;
        let sizes = Self::fit(config, environment, layout, &kernel_config, budget)?;
        let fewer = KernelConfig::new(gpu, config.precision, layout, sizes.envs / 4)?;
        if fewer == kernel_config {
            return Ok((sizes, kernel_config));
        }
        // So few environments that lanes would no longer work on one network: the form that never minds.
        let plain = KernelConfig::plain(gpu.class(), fewer.storage).for_layout(gpu.class(), layout);
        Ok((Self::fit(config, environment, layout, &plain, budget)?, plain))
    }

    /// The largest sizes within the budget: first the micro-batch shrinks (the gradient stays the same), then the number
    /// of environments.
    ///
    /// # Errors
    /// [`Error::Budget`] if not even four environments with micro-batches of one step fit.
    pub fn fit(
        config: &Config,
        environment: &dyn Environment,
        layout: &Layout,
        kernel_config: &KernelConfig,
        budget: &Budget,
    ) -> Result<Self> {
        let mut sizes = Self::configured(config, environment);
        loop {
            let plan = sizes.plan(environment, layout, config, kernel_config);
            let reachable =
                !budget.short_loops || sizes.loop_iterations(config, kernel_config) <= MAX_LOOP_ITERATIONS;
            if reachable && sizes.launches(kernel_config) && budget.holds(&plan) {
                return Ok(sizes);
            }
            if reachable && sizes.micro_slots > sizes.chunk.max(1) {
                sizes.micro_slots = sizes.whole_chunks(sizes.micro_slots.div_ceil(2));
            } else if sizes.envs > 4 {
                sizes.envs = round_up(sizes.envs / 2, 4);
                sizes = sizes.with_micro_batches(config);
            } else {
                return Err(Error::Budget {
                    needed: plan.bytes().div_ceil(1 << 20),
                    budget: budget.total >> 20,
                    advice: match config.recurrent {
                        true => {
                            "lower `rollout_steps`, `chunk_length` or `hidden`, or raise `memory_budget_mb`"
                        }
                        false => "lower `rollout_steps` or `hidden`, or raise `memory_budget_mb`",
                    }
                    .into(),
                });
            }
        }
    }

    /// Observation slots: the rollout's, the one after it, those of truncated episodes.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.steps + 1 + self.truncations
    }

    /// Outputs of an actor: logits, or means and logarithms of deviations.
    #[must_use]
    pub fn outputs(&self) -> u32 {
        if self.kind.continuous() { 2 * self.spec.actions } else { self.spec.actions }
    }

    /// Words of an action.
    #[must_use]
    pub fn numbers(&self) -> u32 {
        if self.kind.continuous() { self.spec.actions } else { 1 }
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

    /// Quads of rows of a micro-batch.
    #[must_use]
    pub fn micro_quads(&self) -> u32 {
        self.rows_of_slot() / 4 * self.micro_slots
    }

    /// Quads that the buffers of a micro-batch have room for.
    #[must_use]
    pub fn room(&self, kernel_config: &KernelConfig) -> u32 {
        kernel_config.room(u64::from(self.micro_quads())) as u32
    }

    /// Micro-batches of one epoch.
    #[must_use]
    pub fn micro_batches(&self) -> u32 {
        (0..self.minibatches)
            .map(|m| self.minibatch(m).len().div_ceil(self.micro_slots as usize) as u32)
            .sum()
    }

    /// Steps of minibatch `m`.
    #[must_use]
    pub fn minibatch(&self, m: u32) -> Range<u32> {
        let chunk = self.chunk.max(1);
        let chunks = self.steps.div_ceil(chunk);
        let start = |m: u32| (m * chunks / self.minibatches * chunk).min(self.steps);
        start(m)..start(m + 1)
    }

    /// So many slots, or the next more that chunks are whole in.
    fn whole_chunks(&self, slots: u32) -> u32 {
        slots.next_multiple_of(self.chunk.max(1))
    }

    /// With the configured number of micro-batches for every minibatch.
    fn with_micro_batches(self, config: &Config) -> Self {
        let largest = (0..self.minibatches).map(|m| self.minibatch(m).len() as u32).max().unwrap_or(1);
        Self { micro_slots: self.whole_chunks(largest.div_ceil(config.accumulation.max(1))), ..self }
    }

    /// Rows of one slot, of a rollout, and quads of a micro-batch, before it is known that they fit into 32 bits: a plan is
    /// made to be refused as well.
    fn wide(&self) -> [u64; 3] {
        let slot = u64::from(self.spec.agents) * u64::from(self.envs);
        [slot, slot * u64::from(self.steps), slot / 4 * u64::from(self.micro_slots)]
    }

    /// Most loop turns of one invocation of the kernels that reduce a whole rollout: `ppo/advantage_stats` takes the rows twice, or three times,
    /// `ppo/write_metrics` statistics, rewards and environments, eight at a turn by every lane.
    fn loop_iterations(&self, config: &Config, kernel_config: &KernelConfig) -> u64 {
        let lanes = u64::from(Variant::reducing(Class::Software).workgroup);
        let [_, rows, quads] = self.wide();
        let statistics = quads.div_ceil(u64::from(kernel_config.workgroup)) * self.updates(config);
        let metrics = (statistics + rows).div_ceil(8 * lanes) + u64::from(self.envs).div_ceil(lanes);
        let separate = config.networks == Sharing::Separate;
        let groups = if separate { u64::from(self.spec.agents) } else { 1 } * u64::from(self.minibatches);
        // ppo/advantage_stats counts the rows of every minibatch once more, of separate agents each by itself.
        let passes = (groups + 2 * u64::from(self.minibatches)) * (lanes + 1);
        // ppo/running_mean_std goes through four rows at a time of a feature, twice.
        let running = if self.normalized {
            rows.div_ceil(4 * lanes) + 2 * lanes + u64::from(self.spec.agents)
        } else {
            0
        };
        metrics.max(3 * rows.div_ceil(8 * lanes) + passes).max(running) + 16
    }

    /// Whether the kernels' workgroups, an invocation per quad of a micro-batch or per row of a slot, fit into one direction.
    /// Other kernels than the networks' have workgroups of at most 64.
    fn launches(&self, kernel_config: &KernelConfig) -> bool {
        let most = u64::from(GROUPS_IN_A_ROW) * u64::from(kernel_config.block().min(64));
        let [slot, _, quads] = self.wide();
        quads <= most && slot <= most
    }

    /// Words of the dones_and_masks before those of the step before slot 0.
    pub(super) fn endings(&self) -> u64 {
        u64::from(self.steps) * u64::from(self.envs) + u64::from(self.slots()) * self.wide()[0]
    }

    /// Bytes of what a GRU remembers that enter a slot.
    pub(super) fn memory_bytes(&self, layout: &Layout) -> u64 {
        8 * u64::from(layout.shape.memory()) * self.wide()[0]
    }

    /// Numbers of the observations of a slot.
    pub(super) fn observed(&self) -> u64 {
        self.wide()[0] * u64::from(self.spec.obs_dim)
    }

    /// Numbers of the environments' own states of a slot.
    pub(super) fn states(&self) -> u64 {
        u64::from(self.envs) * u64::from(self.state_dim)
    }

    /// Numbers that have moments of their own: those of all agents' observations, then those of a state.
    pub(super) fn columns(&self) -> u32 {
        self.spec.agents * self.spec.obs_dim + self.state_dim
    }

    /// The buffer that environments write what is seen into, and how it is stored there.
    pub(super) fn seen(&self, storage: Storage) -> (&'static str, Storage) {
        if self.normalized { ("raw observations", Storage::F32) } else { ("observations", storage) }
    }

    /// Numbers before the first of these: the observations of all slots.
    pub(super) fn first_state(&self) -> u64 {
        u64::from(self.slots()) * self.observed()
    }

    /// Buffers of a rollout.
    #[must_use]
    pub fn rollout_plan(&self, layout: &Layout, kernel_config: &KernelConfig) -> Plan {
        let [slots, envs] = [self.slots(), self.envs].map(u64::from);
        let [slot, rows, quads] = self.wide();
        let room = kernel_config.room(quads);
        let stored = kernel_config.storage.precision().bytes();
        let mut plan = Plan::new();
        plan.words("params", u64::from(layout.params) * 4);
        plan.extend(&WorkingWeights::plan(layout, kernel_config));
        // The environments' own states after them.
        plan.bytes_of("observations", (self.first_state() + slots * self.states()) * stored);
        if self.normalized {
            plan.words("raw observations", self.first_state() + slots * self.states());
            plan.words("observation moments", 4 * u64::from(self.columns()));
        }
        let carried = self.seen(kernel_config.storage).1.precision().bytes();
        plan.bytes_of("carried observations", self.observed() * carried);
        if self.state_dim > 0 {
            plan.bytes_of("carried states of the environments", self.states() * carried);
        }
        plan.words("carried masks", slot);
        plan.words("actions", rows * u64::from(self.numbers()));
        if self.kind == ActionKind::Squashed {
            // The loss's own; what the environment reads is their tanh. Of no use after the iteration.
            plan.words("draws", rows * u64::from(self.numbers()));
        }
        plan.words("rewards", rows);
        plan.words("targets", rows * 3);
        // The last row, which only recurrent networks look at: which episodes ended before the rollout.
        let endings = if self.chunk > 0 { envs } else { 0 };
        plan.words("dones_and_masks", self.endings() + endings);
        if self.chunk > 0 {
            let places = forward::Memory::places(self.steps, self.chunk, self.truncations);
            let state = 2 * u64::from(layout.shape.memory()) * slot;
            plan.words("recurrent states", u64::from(places) * state);
            plan.words("carried states", state);
            plan.words("carried endings", envs);
            plan.words("all ended", envs);
        }
        plan.words("values", slots * slot);
        plan.words("episodes", envs * 4);
        plan.words("iteration", 4);
        plan.words(
            "scalars",
            u64::from(scalars::minibatch(self.minibatches, self.spec.agents, self.minibatches)),
        );
        plan.bytes_of("activations", u64::from(layout.act_rows) * room * 4 * stored);
        plan.words("moments", u64::from(layout.moment_rows) * room * 4);
        plan.words("heads", u64::from(self.outputs() + 1) * room * 4);
        plan
    }

    /// Buffers of the updates.
    #[must_use]
    pub fn update_plan(&self, layout: &Layout, config: &Config, kernel_config: &KernelConfig) -> Plan {
        let params = u64::from(layout.params) * 4;
        let [_, rows, quads] = self.wide();
        let stored = kernel_config.storage.precision().bytes();
        let tiles = weight_gradient::tiles(layout, kernel_config).len() as u32;
        let splits = weight_gradient::splits(kernel_config, tiles, quads);
        let mut plan = Plan::new();
        plan.bytes_of(
            "activation gradients",
            u64::from(layout.grad_rows) * kernel_config.room(quads) * 4 * stored,
        );
        plan.words("partial gradients", params * u64::from(splits));
        plan.words("folded gradient", params);
        plan.words("gradient", params);
        plan.words("first moments", params);
        plan.words("second moments", params);
        plan.words("optimizer", layout.nets.len() as u64 * clip::STATE);
        // A pair of vec4s per workgroup of the loss and micro-batch.
        let groups = quads.div_ceil(u64::from(loss::variant(kernel_config).workgroup));
        let factors =
            if config.algorithm == Algorithm::Happo { rows / u64::from(self.spec.agents) } else { 0 };
        plan.words("statistics", groups * self.updates(config) * 8 + factors);
        if factors > 0 {
            plan.words("first factors", factors);
        }
        plan.words("record", write_metrics::RECORD);
        plan
    }

    /// Micro-batches of all epochs.
    fn updates(&self, config: &Config) -> u64 {
        let agent_steps = config.agent_steps(self.spec.agents);
        u64::from(self.micro_batches()) * u64::from(config.epochs) * u64::from(agent_steps)
    }

    /// Tables of parameters, an entry per dispatch. The recordings bring them; an arena has none of them.
    fn tables(&self, config: &Config) -> Plan {
        let mut plan = Plan::new();
        // Those of recurrent critics are walked through chunk by chunk.
        let pieces = match self.chunk {
            0 => self.slots().div_ceil(self.micro_slots),
            chunk => (self.steps + 1).div_ceil(chunk) + self.truncations.div_ceil(self.micro_slots),
        };
        let pieces = u64::from(pieces);
        let agent_steps = u64::from(config.agent_steps(self.spec.agents));
        let settling = match config.algorithm {
            Algorithm::Mappo => 0,
            Algorithm::Happo => agent_steps * u64::from(self.micro_batches()),
        };
        for (name, entries) in [
            ("table of the actors", u64::from(self.steps)),
            ("table of the draws", u64::from(self.steps)),
            ("table of the values", pieces),
            ("table of the normalisation", if self.normalized { u64::from(self.steps) + 1 } else { 0 }),
            ("table of the micro-batches", self.updates(config) + settling),
            ("table of the epochs", agent_steps * u64::from(config.epochs) * u64::from(self.minibatches)),
        ] {
            plan.words(name, entries * TABLE_ENTRY / 4);
        }
        plan
    }

    /// Every buffer of a training run.
    #[must_use]
    pub fn plan(
        &self,
        environment: &dyn Environment,
        layout: &Layout,
        config: &Config,
        kernel_config: &KernelConfig,
    ) -> Plan {
        let mut plan = self.rollout_plan(layout, kernel_config);
        plan.extend(&self.update_plan(layout, config, kernel_config));
        plan.extend(&WorkingWeights::own_plan(layout, kernel_config));
        plan.extend(&self.tables(config));
        plan.words(
            "tiles",
            weight_gradient::tiles(layout, kernel_config).len() as u64
                * size_of::<weight_gradient::Tile>() as u64
                / 4,
        );
        plan.words("nets", layout.nets.len() as u64 * 4);
        plan.extend(&environment.plan(self.envs, self.steps));
        plan
    }
}

/// A bit for every logit that begins a choice.
fn starts(choices: &[u32]) -> u32 {
    let mut first = 0u32;
    choices.iter().fold(0, |mask, size| {
        let bit = 1u32.checked_shl(first).unwrap_or(0);
        first = first.saturating_add(*size);
        mask | bit
    })
}

#[cfg(test)]
mod tests;
