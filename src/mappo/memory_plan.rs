//! The memory plan of a run, fitted to the device before any allocation.

use super::buffers::{Buffers, UpdateBuffers};
use super::config::{Algorithm, Config};
use super::sizes::Sizes;
use crate::env::Environment;
use crate::gpu::{Budget, Class, GROUPS_IN_A_ROW, Gpu, Plan, TABLE_ENTRY, round_up};
use crate::nn::{KernelConfig, Layout, MAX_LOOP_ITERATIONS, WorkingWeights, weight_gradient};
use crate::ppo::{advantage_stats, loss, running_mean_std, write_metrics};
use crate::{Error, Result};

impl Sizes {
    /// The largest sizes within the budget, and the matching kernel configuration.
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
        let kernel_config = KernelConfig::new(gpu, config.device.precision, layout, quads)?;
        let sizes = Self::fit(config, environment, layout, &kernel_config, budget)?;
        let fewer = KernelConfig::new(gpu, config.device.precision, layout, sizes.envs / 4)?;
        if fewer == kernel_config {
            return Ok((sizes, kernel_config));
        }
        // With so few environments, invocations of one subgroup belong to different networks. Only the plain configuration allows
        // that.
        let plain = KernelConfig::plain(gpu.class(), fewer.storage).for_layout(gpu.class(), layout);
        Ok((Self::fit(config, environment, layout, &plain, budget)?, plain))
    }

    /// The largest sizes within the budget. Reduces the micro-batch first, which changes gradients only by rounding, then the
    /// number of environments.
    ///
    /// # Errors
    /// [`Error::Budget`] if even four environments with micro-batches of one step do not fit.
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
                    advice: match config.network.recurrent {
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

    /// Every buffer of a training run.
    #[must_use]
    pub fn plan(
        &self,
        environment: &dyn Environment,
        layout: &Layout,
        config: &Config,
        kernel_config: &KernelConfig,
    ) -> Plan {
        let mut plan = self.own_plan(layout, config, kernel_config);
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

    /// The trainer's buffers, without those of the environment and of recordings.
    pub(super) fn own_plan(&self, layout: &Layout, config: &Config, kernel_config: &KernelConfig) -> Plan {
        let mut plan = Buffers::plan(self, layout, kernel_config);
        plan.extend(&UpdateBuffers::plan(self, layout, config, kernel_config));
        plan
    }

    /// Maximum loop iterations of one invocation, over the kernels in which one workgroup reduces a whole rollout.
    fn loop_iterations(&self, config: &Config, kernel_config: &KernelConfig) -> u64 {
        let class = Class::Software;
        let [_, rows, quads] = self.wide();
        let agents = u64::from(self.spec.agents);
        let statistics = loss::partial_sums(kernel_config, quads) * self.updates(config);
        let mut most = write_metrics::loop_iterations(class, statistics, rows, u64::from(self.envs));
        most = most.max(advantage_stats::loop_iterations(
            class,
            rows,
            self.groups.into(),
            self.minibatches.into(),
        ));
        if self.normalized {
            most = most.max(running_mean_std::loop_iterations(class, rows, agents));
        }
        // Margin for loops over layers and networks.
        most + 16
    }

    /// Whether kernels with one invocation per quad of a micro-batch, or per row of a slot, stay within the maximum number of
    /// workgroups per dimension. Apart from the network kernels, these have workgroups of at most 64 invocations.
    fn launches(&self, kernel_config: &KernelConfig) -> bool {
        let most = u64::from(GROUPS_IN_A_ROW) * u64::from(kernel_config.block().min(64));
        let [slot, _, quads] = self.wide();
        quads <= most && slot <= most
    }

    /// Parameter tables with one entry per dispatch, which the recordings allocate.
    fn tables(&self, config: &Config) -> Plan {
        let mut plan = Plan::new();
        // Recurrent critics process the rollout in consecutive sequences of `chunk` steps.
        let batches = match self.chunk {
            0 => self.slots().div_ceil(self.micro_slots),
            chunk => (self.steps + 1).div_ceil(chunk) + self.truncations.div_ceil(self.micro_slots),
        };
        let agent_steps = u64::from(config.ppo.agent_steps(self.spec.agents));
        let factor_updates = match config.ppo.algorithm {
            Algorithm::Mappo => 0,
            Algorithm::Happo => 2 * agent_steps * u64::from(self.steps.div_ceil(self.micro_slots)),
        };
        for (name, entries) in [
            ("table of the actors", u64::from(self.steps)),
            ("table of the draws", u64::from(self.steps)),
            ("table of the values", u64::from(batches)),
            ("table of the normalisation", if self.normalized { u64::from(self.steps) + 1 } else { 0 }),
            ("table of the micro-batches", self.updates(config) + factor_updates),
            (
                "table of the shuffles",
                if self.shuffled() { agent_steps * u64::from(config.ppo.epochs) } else { 0 },
            ),
            ("table of the epochs", agent_steps * u64::from(config.ppo.epochs) * u64::from(self.minibatches)),
        ] {
            plan.words(name, entries * TABLE_ENTRY / 4);
        }
        plan
    }
}

#[cfg(test)]
#[path = "memory_plan_tests.rs"]
mod tests;
