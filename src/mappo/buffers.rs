//! The buffers of a run as typed fields, and the plan of their sizes. Names in the plan are the buffers' labels.

use super::Config;
use super::config::Algorithm;
use super::sizes::Sizes;
use crate::Result;
use crate::gpu::{Arena, Gpu, Plan};
use crate::nn::forward::Memory;
use crate::nn::{KernelConfig, Layout, WorkingWeights, reduce, weight_gradient};
use crate::ppo::{
    ActionKind, adamw, advantage_sums, gae, loss, metrics_sums, observation_sums, running_mean_std, scalars,
    write_metrics,
};

/// Buffers of a policy that acts in an environment.
#[derive(Clone, Debug)]
pub struct Buffers {
    pub networks: NetworkBuffers,
    pub rollout: TransitionBuffers,
    /// Present if observations are normalised.
    pub normalization: Option<NormalizationBuffers>,
    /// Present for recurrent networks.
    pub recurrent: Option<RecurrentBuffers>,
}

/// Weights, and intermediate results of a micro-batch.
#[derive(Clone, Debug)]
pub struct NetworkBuffers {
    /// Master weights, f32.
    pub params: wgpu::Buffer,
    pub working_weights: wgpu::Buffer,
    pub activations: wgpu::Buffer,
    pub layer_norm_stats: wgpu::Buffer,
    pub heads: wgpu::Buffer,
}

/// Transitions of a rollout and the values derived from them. The `carried` buffers are temporary copies of the last slot, which
/// becomes the first slot of the next rollout: wgpu cannot copy within one buffer.
#[derive(Clone, Debug)]
pub struct TransitionBuffers {
    /// Observations as networks read them, then the global states.
    pub observations: wgpu::Buffer,
    pub carried_observations: wgpu::Buffer,
    /// Present if the critic uses the global state.
    pub carried_states: Option<wgpu::Buffer>,
    pub carried_masks: wgpu::Buffer,
    pub actions: wgpu::Buffer,
    /// Squashed actions before the tanh.
    pub draws: Option<wgpu::Buffer>,
    pub rewards: wgpu::Buffer,
    /// Log-probabilities, advantages, returns; with ratios per choice, also the choices' log-probabilities.
    pub targets: wgpu::Buffer,
    /// Ends of episodes, action masks, with a GRU the ends of the step before slot 0, and the order of shuffled minibatches.
    pub dones_and_masks: wgpu::Buffer,
    pub values: wgpu::Buffer,
    /// Sums over the episodes that ended.
    pub episodes: wgpu::Buffer,
    pub iteration: wgpu::Buffer,
    /// See [`scalars`].
    pub scalars: wgpu::Buffer,
}

/// Observations before they are normalised, and their running statistics.
#[derive(Clone, Debug)]
pub struct NormalizationBuffers {
    pub raw_observations: wgpu::Buffer,
    pub observation_stats: wgpu::Buffer,
    pub observation_sums: wgpu::Buffer,
}

/// GRU states, and the episode ends of the step before the rollout.
#[derive(Clone, Debug)]
pub struct RecurrentBuffers {
    pub states: wgpu::Buffer,
    pub carried_states: wgpu::Buffer,
    pub carried_endings: wgpu::Buffer,
    /// 1 for every environment, copied to the episode ends by a reset.
    pub all_ended: wgpu::Buffer,
}

/// Buffers of the updates.
#[derive(Clone, Debug)]
pub struct UpdateBuffers {
    /// Absent where [`crate::ppo::gradient`] keeps them in workgroup memory, which with HAPPO does not evaluate policies.
    pub activation_gradients: Option<wgpu::Buffer>,
    /// Sums over the rows of a minibatch, as if LayerNorms had no gain and offset.
    pub partial_gradients: wgpu::Buffer,
    pub gradient: wgpu::Buffer,
    pub first_moments: wgpu::Buffer,
    pub second_moments: wgpu::Buffer,
    /// See [`adamw`].
    pub optimizer: wgpu::Buffer,
    /// The optimizer state after the step, then the sums of squares of [`reduce`].
    pub step: wgpu::Buffer,
    /// Partial sums of the losses, then HAPPO's factors and the log-probabilities before an agent's epochs.
    pub statistics: wgpu::Buffer,
    /// HAPPO's factors for the first agent, all 1; absent with MAPPO.
    pub first_factors: Option<wgpu::Buffer>,
    /// Sums over parts of a rollout, of [`advantage_sums`] and of [`metrics_sums`].
    pub sums: wgpu::Buffer,
    pub record: wgpu::Buffer,
}

impl Buffers {
    /// The plan of all buffers.
    pub fn plan(sizes: &Sizes, layout: &Layout, kernel_config: &KernelConfig) -> Plan {
        let [slots, envs] = [sizes.slots(), sizes.envs].map(u64::from);
        let [slot, rows, quads] = sizes.wide();
        let room = sizes.wide_room(kernel_config);
        let stored = kernel_config.storage.precision().bytes();
        let mut plan = Plan::new();
        plan.words("params", u64::from(layout.params) * 4);
        plan.extend(&WorkingWeights::plan(layout, kernel_config));
        let observations = sizes.first_state() + slots * sizes.states();
        plan.bytes_of("observations", observations * stored);
        if sizes.normalized {
            plan.words("raw observations", observations);
            plan.words("observation moments", running_mean_std::words(sizes.columns()));
            plan.words("observation sums", observation_sums::words(sizes.columns(), rows));
        }
        let carried = sizes.observed_storage(kernel_config.storage).precision().bytes();
        plan.bytes_of("carried observations", sizes.observed() * carried);
        if sizes.state_dim > 0 {
            plan.bytes_of("carried states of the environments", sizes.states() * carried);
        }
        plan.words("carried masks", slot);
        let action_words = rows * u64::from(sizes.kind.words(sizes.spec.actions));
        plan.words("actions", action_words);
        if sizes.kind == ActionKind::Squashed {
            plan.words("draws", action_words);
        }
        plan.words("rewards", rows);
        plan.words("targets", gae::target_words(rows, sizes.choices));
        plan.words("dones_and_masks", sizes.order() + sizes.order_words());
        if sizes.chunk > 0 {
            let places = Memory::places(sizes.steps, sizes.chunk, sizes.truncations);
            let state = 2 * u64::from(layout.shape.memory()) * slot;
            plan.words("recurrent states", u64::from(places) * state);
            plan.words("carried states", state);
            plan.words("carried endings", envs);
            plan.words("all ended", envs);
        }
        plan.words("values", slots * slot);
        plan.words("episodes", envs * 4);
        plan.words("iteration", 4);
        plan.words("scalars", scalars::words(sizes.groups, sizes.spec.agents, sizes.minibatches));
        plan.bytes_of("activations", u64::from(layout.act_rows) * kernel_config.kept(quads) * 4 * stored);
        plan.words("LayerNorm statistics", u64::from(layout.layer_norm_stats_rows) * room * 4);
        plan.words("heads", u64::from(sizes.outputs() + 1) * room * 4);
        plan
    }

    /// The buffers of [`Buffers::plan`] in `arena`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the arena was allocated from another plan.
    pub fn new(arena: &Arena, sizes: &Sizes) -> Result<Self> {
        let get = |name| arena.get(name).cloned();
        let get_if = |wanted: bool, name| wanted.then(|| get(name)).transpose();
        Ok(Self {
            networks: NetworkBuffers {
                params: get("params")?,
                working_weights: get("working weights")?,
                activations: get("activations")?,
                layer_norm_stats: get("LayerNorm statistics")?,
                heads: get("heads")?,
            },
            rollout: TransitionBuffers {
                observations: get("observations")?,
                carried_observations: get("carried observations")?,
                carried_states: get_if(sizes.state_dim > 0, "carried states of the environments")?,
                carried_masks: get("carried masks")?,
                actions: get("actions")?,
                draws: get_if(sizes.kind == ActionKind::Squashed, "draws")?,
                rewards: get("rewards")?,
                targets: get("targets")?,
                dones_and_masks: get("dones_and_masks")?,
                values: get("values")?,
                episodes: get("episodes")?,
                iteration: get("iteration")?,
                scalars: get("scalars")?,
            },
            normalization: match sizes.normalized {
                true => Some(NormalizationBuffers {
                    raw_observations: get("raw observations")?,
                    observation_stats: get("observation moments")?,
                    observation_sums: get("observation sums")?,
                }),
                false => None,
            },
            recurrent: match sizes.chunk {
                0 => None,
                _ => Some(RecurrentBuffers {
                    states: get("recurrent states")?,
                    carried_states: get("carried states")?,
                    carried_endings: get("carried endings")?,
                    all_ended: get("all ended")?,
                }),
            },
        })
    }

    /// Allocates the buffers of a policy that acts without training.
    ///
    /// # Errors
    /// As [`Arena::allocate`].
    pub fn allocate(gpu: &Gpu, sizes: &Sizes, layout: &Layout, kernel_config: &KernelConfig) -> Result<Self> {
        Self::new(&Arena::allocate(gpu, &Self::plan(sizes, layout, kernel_config))?, sizes)
    }

    /// Observations as environments write them: raw ones if they are normalised afterwards.
    pub fn observed(&self) -> &wgpu::Buffer {
        self.normalization.as_ref().map_or(&self.rollout.observations, |buffers| &buffers.raw_observations)
    }

    /// GRU states as the networks' kernels bind them.
    pub fn memory(&self) -> Option<Memory<'_>> {
        self.recurrent.as_ref().map(|buffers| Memory { states: &buffers.states })
    }
}

impl UpdateBuffers {
    /// Whether gradients of activations go through a buffer.
    fn activation_gradients(config: &Config, kernel_config: &KernelConfig) -> bool {
        kernel_config.blocks.is_none() || config.ppo.algorithm == Algorithm::Happo
    }

    /// The plan of all buffers.
    pub fn plan(sizes: &Sizes, layout: &Layout, config: &Config, kernel_config: &KernelConfig) -> Plan {
        let params = u64::from(layout.params) * 4;
        let [slot, rows, quads] = sizes.wide();
        let stored = kernel_config.storage.precision().bytes();
        let tiles = weight_gradient::tiles(layout, kernel_config).len() as u32;
        let splits = match kernel_config.blocks {
            Some(blocks) => blocks.partial_sums(quads),
            None => weight_gradient::splits(kernel_config, tiles, quads),
        };
        let mut plan = Plan::new();
        if Self::activation_gradients(config, kernel_config) {
            let rows = match kernel_config.blocks {
                Some(_) => slot / 4 * u64::from(sizes.evaluated_slots),
                None => quads,
            };
            plan.bytes_of(
                "activation gradients",
                u64::from(layout.grad_rows) * kernel_config.room(rows) * 4 * stored,
            );
        }
        plan.words("partial gradients", params * u64::from(splits));
        plan.words("gradient", params);
        plan.words("first moments", params);
        plan.words("second moments", params);
        let state = adamw::state_words(layout.nets.len());
        plan.words("optimizer", state);
        plan.words("step", state + reduce::tiles(layout).len() as u64);
        let (updates, factors) = (sizes.updates(config), sizes.factors(config));
        plan.words("statistics", loss::statistics_words(kernel_config, quads, updates, factors));
        if factors > 0 {
            plan.words("first factors", factors);
        }
        let of_advantages = advantage_sums::words(rows, sizes.groups, sizes.minibatches);
        let of_losses = loss::partial_sums(kernel_config, quads) * sizes.updates(config);
        plan.words("sums", of_advantages.max(metrics_sums::words(of_losses, rows)));
        plan.words("record", write_metrics::RECORD);
        plan
    }

    /// The buffers of [`UpdateBuffers::plan`] in `arena`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the arena was allocated from another plan.
    pub fn new(arena: &Arena, sizes: &Sizes, config: &Config, kernel_config: &KernelConfig) -> Result<Self> {
        let get = |name| arena.get(name).cloned();
        let activation_gradients = Self::activation_gradients(config, kernel_config);
        Ok(Self {
            activation_gradients: activation_gradients.then(|| get("activation gradients")).transpose()?,
            partial_gradients: get("partial gradients")?,
            gradient: get("gradient")?,
            first_moments: get("first moments")?,
            second_moments: get("second moments")?,
            optimizer: get("optimizer")?,
            step: get("step")?,
            statistics: get("statistics")?,
            first_factors: (sizes.factors(config) > 0).then(|| get("first factors")).transpose()?,
            sums: get("sums")?,
            record: get("record")?,
        })
    }
}
