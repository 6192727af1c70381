//! A policy on the device, acting in an environment.

use super::policy::Policy;
use crate::env::{Environment, Storage};
use crate::gpu::{Budget, Gpu, Recorder};
use crate::mappo::buffers::Buffers;
use crate::mappo::rollout::Rollout;
use crate::mappo::setup::Setup;
use crate::mappo::{ActionMode, Sizes};
use crate::nn::{KernelConfig, Layout};
use crate::{Error, Result};

/// Buffers with the policy's weights and statistics, and the recorded rollout, all environments at the beginning of an episode.
#[derive(Debug)]
pub(super) struct Acting {
    pub(super) sizes: Sizes,
    pub(super) layout: Layout,
    #[cfg(feature = "market")]
    pub(super) kernel_config: KernelConfig,
    pub(super) buffers: Buffers,
    pub(super) rollout: Rollout,
    pub(super) recorder: Recorder,
    /// Element type of the observations.
    pub(super) storage: Storage,
}

impl Acting {
    /// `environments`, rounded up to a multiple of 4, play rollouts of `steps` steps.
    pub(super) fn new(
        gpu: &Gpu,
        policy: &Policy,
        environment: &dyn Environment,
        sizes: [u32; 2],
        mode: ActionMode,
        seed: u64,
    ) -> Result<Self> {
        let record = |setup: Setup<'_>| Ok((Rollout::new(setup, environment, mode)?, ()));
        Ok(Self::recorded(gpu, policy, environment, sizes, seed, record)?.0)
    }

    /// The same with greedy actions and the commands of every step apart ([`Rollout::in_steps`]).
    #[cfg(feature = "market")]
    pub(super) fn in_steps(
        gpu: &Gpu,
        policy: &Policy,
        environment: &dyn Environment,
        sizes: [u32; 2],
    ) -> Result<(Self, Vec<crate::mappo::rollout::Step>)> {
        let record = |setup: Setup<'_>| Rollout::in_steps(setup, environment, ActionMode::Greedy);
        Self::recorded(gpu, policy, environment, sizes, 0, record)
    }

    fn recorded<T>(
        gpu: &Gpu,
        policy: &Policy,
        environment: &dyn Environment,
        [environments, steps]: [u32; 2],
        seed: u64,
        record: impl FnOnce(Setup<'_>) -> Result<(Rollout, T)>,
    ) -> Result<(Self, T)> {
        let metadata = policy.metadata();
        let mut config = metadata.config();
        config.ppo.num_envs = environments;
        config.ppo.rollout_steps = steps;
        config.ppo.seed = seed;
        let sizes = Sizes::acting(&config, environment);
        let layout = policy.layout.acting();
        let kernel_config = KernelConfig::new(gpu, config.device.precision, &layout, sizes.envs / 4)?;
        if !sizes.launches(&kernel_config) {
            let reason = format!("{environments} exceed the workgroups of one dispatch");
            return Err(Error::config("environments", reason));
        }
        let plan = Buffers::plan(&sizes, &layout, &kernel_config);
        let what = format!("{environments} environments");
        Budget::of(gpu, None).binds(&plan, &what, "decide for fewer environments at a time")?;
        let buffers = Buffers::allocate(gpu, &sizes, &layout, &kernel_config)?;
        gpu.write(&buffers.networks.params, 0, bytemuck::cast_slice(policy.weights()))?;
        if let Some(normalization) = &buffers.normalization {
            // The statistics of the global states come last, and only critics need them.
            let stats = &metadata.observation_moments[..sizes.columns() as usize];
            gpu.write(&normalization.observation_stats, 0, bytemuck::cast_slice(stats))?;
        }
        let setup = Setup {
            gpu,
            config: &config,
            sizes: &sizes,
            layout: &layout,
            kernel_config: &kernel_config,
            buffers: &buffers,
        };
        let (rollout, recorded) = record(setup)?;
        let mut recorder = Recorder::new(gpu);
        recorder.run(&rollout.prepare)?;
        recorder.run(&rollout.reset)?;
        let storage = sizes.observed_storage(kernel_config.storage);
        let own = Self {
            sizes,
            layout,
            #[cfg(feature = "market")]
            kernel_config,
            buffers,
            rollout,
            recorder,
            storage,
        };
        Ok((own, recorded))
    }
}
