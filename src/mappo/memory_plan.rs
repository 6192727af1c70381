//! The memory plan of a run, fitted to the device before any allocation.

use super::buffers::{Buffers, UpdateBuffers};
use super::config::{Algorithm, Config};
use super::sizes::Sizes;
use crate::env::Environment;
use crate::gpu::{Budget, Class, GROUPS_IN_A_ROW, Gpu, Plan, TABLE_ENTRY};
use crate::nn::{KernelConfig, Layout, MAX_LOOP_ITERATIONS, WorkingWeights, reduce, weight_gradient};
use crate::ppo::{advantage_stats, loss, running_mean_std, write_metrics};
use crate::{Error, Result};

impl Sizes {
    /// Sizes within the budget, and the matching kernel configuration.
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
        largest(config, environment, budget, |config| {
            // With few environments, invocations of one subgroup would belong to different networks: the kernels depend on their
            // number.
            let quads = Self::configured(config, environment).envs / 4;
            let kernel_config = KernelConfig::new(gpu, config.device.precision, layout, quads)?;
            let sizes = Self::with_all_envs(config, environment, layout, &kernel_config, budget);
            Ok(sizes.map(|sizes| (sizes, kernel_config)))
        })
    }

    /// Sizes within the budget. Reduces the micro-batch, which changes gradients only by rounding; reduces the number of
    /// environments, which changes results, only with [`shrink_envs`](super::DeviceConfig::shrink_envs).
    ///
    /// # Errors
    /// [`Error::Budget`] if the environments do not fit into memory, even with micro-batches of one step, [`Error::Buffer`] if one
    /// buffer would be too large, and [`Error::Config`] if the kernels cannot process so many. All name the largest number of
    /// environments that fits.
    pub fn fit(
        config: &Config,
        environment: &dyn Environment,
        layout: &Layout,
        kernel_config: &KernelConfig,
        budget: &Budget,
    ) -> Result<Self> {
        largest(config, environment, budget, |config| {
            Ok(Self::with_all_envs(config, environment, layout, kernel_config, budget))
        })
    }

    /// Sizes with the configured number of environments and the largest micro-batch that fits.
    fn with_all_envs(
        config: &Config,
        environment: &dyn Environment,
        layout: &Layout,
        kernel_config: &KernelConfig,
        budget: &Budget,
    ) -> Result<Self, Obstacle> {
        let mut sizes = Self::configured(config, environment).for_kernels(config, layout, kernel_config);
        loop {
            let loops = sizes.loop_iterations(config, layout, kernel_config);
            if budget.short_loops && loops > MAX_LOOP_ITERATIONS {
                // Smaller micro-batches would only mean more of them.
                return Err(Obstacle::Loops(loops));
            }
            let plan = sizes.plan(environment, layout, config, kernel_config);
            let launches = sizes.launches(kernel_config);
            if launches && budget.holds(&plan) {
                return Ok(sizes);
            }
            if let Some(halved) = sizes.halved(kernel_config) {
                sizes = halved;
            } else if !launches {
                return Err(Obstacle::Dispatch);
            } else if plan.bytes() > budget.total {
                return Err(Obstacle::Memory(plan.bytes()));
            } else {
                return Err(Obstacle::Buffer(plan.largest()));
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
        if kernel_config.blocks.is_none() {
            plan.words(
                "tiles",
                weight_gradient::tiles(layout, kernel_config).len() as u64
                    * size_of::<weight_gradient::Tile>() as u64
                    / 4,
            );
        }
        plan.words("row tiles", reduce::tiles(layout).len() as u64 * size_of::<reduce::RowTile>() as u64 / 4);
        plan.extend(&environment.plan(self.envs, self.steps));
        plan
    }

    /// The trainer's buffers, without those of the environment and of recordings.
    pub(super) fn own_plan(&self, layout: &Layout, config: &Config, kernel_config: &KernelConfig) -> Plan {
        let mut plan = Buffers::plan(self, layout, kernel_config);
        plan.extend(&UpdateBuffers::plan(self, layout, config, kernel_config));
        plan
    }

    /// Maximum loop iterations of one invocation, over the kernels that reduce a whole rollout or some rows of a matrix.
    fn loop_iterations(&self, config: &Config, layout: &Layout, kernel_config: &KernelConfig) -> u64 {
        let class = Class::Software;
        let [_, rows, quads] = self.wide();
        let agents = u64::from(self.spec.agents);
        let statistics = loss::partial_sums(kernel_config, quads) * self.updates(config);
        let mut most = write_metrics::loop_iterations(class, statistics, rows, u64::from(self.envs));
        most = most.max(advantage_stats::loop_iterations(
            class,
            rows,
            self.groups.into(),
            agents,
            self.minibatches.into(),
        ));
        if self.normalized {
            most = most.max(running_mean_std::loop_iterations(class, rows, agents));
        }
        let tiles = weight_gradient::tiles(layout, kernel_config).len() as u32;
        let splits = weight_gradient::splits(kernel_config, tiles, quads);
        most = most.max(reduce::loop_iterations(layout, splits));
        // Margin for loops over layers and networks.
        most + 16
    }

    /// Whether the networks' kernels, with a workgroup per quads of a micro-batch or of a pass over blocks, and those with one invocation per row of a slot, whose
    /// workgroups have at most 64 invocations, stay within the maximum number of workgroups per dimension.
    pub(crate) fn launches(&self, kernel_config: &KernelConfig) -> bool {
        let most = |each: u32| u64::from(GROUPS_IN_A_ROW) * u64::from(each.min(64));
        let [slot, _, quads] = self.wide();
        let passed = slot / 4 * u64::from(self.value_slots.max(self.evaluated_slots));
        // The workgroups of a gradient in blocks are limited, and loop.
        let quads = if kernel_config.blocks.is_some() { passed } else { quads };
        quads <= most(kernel_config.quads_of_group()) && slot <= most(kernel_config.block())
    }

    /// Parameter tables with one entry per dispatch, which the recordings allocate.
    fn tables(&self, config: &Config) -> Plan {
        let mut plan = Plan::new();
        // Recurrent critics process the rollout in consecutive sequences of `chunk` steps.
        let batches = match self.chunk {
            0 => self.slots().div_ceil(self.value_slots),
            chunk => (self.steps + 1).div_ceil(chunk) + self.truncations.div_ceil(self.value_slots),
        };
        let agent_steps = u64::from(config.ppo.agent_steps(self.spec.agents));
        let factor_updates = match config.ppo.algorithm {
            Algorithm::Mappo => 0,
            Algorithm::Happo => 2 * agent_steps * u64::from(self.steps.div_ceil(self.evaluated_slots)),
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
            (
                "table of the epochs",
                agent_steps * u64::from(config.ppo.epochs) * u64::from(self.minibatches) + 1,
            ),
        ] {
            plan.words(name, entries * TABLE_ENTRY / 4);
        }
        plan
    }
}

/// Why a number of environments does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// Bytes of all buffers.
    Memory(u64),
    /// Bytes of the largest buffer.
    Buffer(u64),
    /// Loop iterations of one invocation, on an adapter that stops long loops.
    Loops(u64),
    /// More workgroups than a dispatch has.
    Dispatch,
}

/// The result of `fit` for the configured number of environments or, if it does not fit and
/// [`shrink_envs`](super::DeviceConfig::shrink_envs) is set, for the largest number that does. `fit` receives the settings with
/// another `num_envs`.
fn largest<T>(
    config: &Config,
    environment: &dyn Environment,
    budget: &Budget,
    fit: impl Fn(&Config) -> Result<Result<T, Obstacle>>,
) -> Result<T> {
    let obstacle = match fit(config)? {
        Ok(fitting) => return Ok(fitting),
        Err(obstacle) => obstacle,
    };
    let wanted = Sizes::configured(config, environment).envs;
    let with = |quads: u32| {
        let mut fewer = config.clone();
        fewer.ppo.num_envs = quads * 4;
        fit(&fewer)
    };
    // More environments need more of everything, so the largest number that fits is found by bisection.
    let (mut fits, mut fails, mut found) = (0, wanted / 4, None);
    while fits + 1 < fails {
        let middle = fits + (fails - fits) / 2;
        match with(middle)? {
            Ok(fitting) => (fits, found) = (middle, Some(fitting)),
            Err(_) => fails = middle,
        }
    }
    match found {
        Some(fitting) if config.device.shrink_envs => Ok(fitting),
        Some(_) => Err(too_many(wanted, fits * 4, obstacle, budget)),
        None => {
            // Four environments may fail for another reason than all of them.
            let last = if wanted > 4 { with(1)?.err() } else { None };
            Err(too_few(config, last.unwrap_or(obstacle), budget))
        }
    }
}

/// `wanted` environments do not fit, `most` do.
fn too_many(wanted: u32, most: u32, obstacle: Obstacle, budget: &Budget) -> Error {
    let advice = format!(
        "{most} environments fit: set `num_envs = {most}`, or let `shrink_envs = true` choose the number; or lower \
         `rollout_steps` or `hidden`"
    );
    obstacle.error(&format!("a plan of {wanted} environments"), "num_envs", &advice, budget)
}

/// Not even four environments fit.
fn too_few(config: &Config, obstacle: Obstacle, budget: &Budget) -> Error {
    let advice = match config.network.recurrent {
        true => "lower `rollout_steps`, `chunk_length` or `hidden`",
        false => "lower `rollout_steps` or `hidden`",
    };
    obstacle.error("the smallest plan (four environments)", "rollout_steps", advice, budget)
}

impl Obstacle {
    fn error(self, what: &str, key: &str, advice: &str, budget: &Budget) -> Error {
        match self {
            Self::Memory(bytes) => Error::Budget {
                what: what.into(),
                needed: bytes.div_ceil(1 << 20),
                budget: budget.total >> 20,
                advice: format!("{advice}, or raise `memory_budget_mb` if the device has more"),
            },
            Self::Buffer(bytes) => Error::Buffer {
                what: format!("the largest buffer of {what}"),
                needed: bytes.div_ceil(1 << 20),
                limit: budget.binding >> 20,
                advice: advice.into(),
            },
            Self::Loops(iterations) => Error::config(
                key,
                format!(
                    "software adapters (llvmpipe) stop loops after 65,535 iterations, and {what} with this \
                     `rollout_steps` need {iterations}; {advice}"
                ),
            ),
            Self::Dispatch => Error::config(
                key,
                format!("a step of {what} exceeds the workgroups of one dispatch; {advice}"),
            ),
        }
    }
}

#[cfg(test)]
#[path = "memory_plan_tests.rs"]
mod tests;
