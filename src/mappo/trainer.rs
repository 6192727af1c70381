//! The loop: rollout, values, advantages, updates, record; one readback an iteration, one iteration behind.

use std::time::{Duration, Instant};

use super::plan::Sizes;
use super::rollout::{ActionMode, Rollout};
use super::update::Update;
use super::{Config, kernels};
use crate::env::Environment;
use crate::gpu::{Arena, Budget, Counts, Gpu, Plan, Readback, Recorder};
use crate::model::initial_weights;
use crate::nn::autotune::Autotune;
use crate::nn::{KernelConfig, Layout, Precision};
use crate::ppo::loss_scale;
use crate::ppo::write_metrics::Record;
use crate::{Error, Result};

/// Iterations that may be under way before the host waits for the oldest.
const IN_FLIGHT: usize = 2;

/// What an iteration came to.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Iterations done, from 1.
    pub iteration: u32,
    /// Environment steps done in all, over all environments.
    pub env_steps: u64,
    /// Environment steps a second since training began.
    pub steps_per_second: f64,
    /// Losses, norms and episodes.
    pub record: Record,
}

impl Progress {
    /// Mean return of the episodes that ended in this iteration; `None` if none did.
    #[must_use]
    pub fn mean_return(&self) -> Option<f64> {
        let Record { return_sum, episodes, .. } = self.record;
        (episodes > 0.0).then(|| f64::from(return_sum) / f64::from(episodes))
    }

    /// Mean steps of the episodes that ended in this iteration; `None` if none did.
    #[must_use]
    pub fn mean_length(&self) -> Option<f64> {
        let Record { episode_steps, episodes, .. } = self.record;
        (episodes > 0.0).then(|| f64::from(episode_steps) / f64::from(episodes))
    }
}

/// Wall time of the phases of an iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Acting and stepping the environments.
    pub rollout: Duration,
    /// The critics' values of the rollout, and the advantages.
    pub values: Duration,
    /// All epochs.
    pub update: Duration,
    /// The record, and what is carried into the next rollout.
    pub record: Duration,
    /// Of all this, encoding and submitting on the host.
    pub host: Duration,
}

/// Trains the agents of an environment.
#[derive(Debug)]
pub struct Trainer {
    pub(super) gpu: Gpu,
    pub(super) config: Config,
    pub(super) sizes: Sizes,
    pub(super) kernel_config: KernelConfig,
    pub(super) layout: Layout,
    plan: Plan,
    pub(super) arena: Arena,
    pub(super) rollout: Rollout,
    update: Update,
    pub(super) recorder: Recorder,
    readback: Readback,
    pub(super) submitted: u32,
    pub(super) collected: u32,
    /// Iterations of the run that were done before this process took it over.
    before: u32,
    pub(super) identity: String,
    started: Option<Instant>,
}

impl Trainer {
    /// Plans, allocates, compiles and initialises everything. Nothing is allocated later. With [`Config::observation_norm`] it
    /// plays a rollout at random, which shows the units of what is seen, and starts the environments afresh.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Budget`] if nothing fits, and what the device, or a simulator in that
    /// rollout, reports.
    pub fn new(gpu: &Gpu, environment: &dyn Environment, config: &Config) -> Result<Self> {
        Self::build(gpu, environment, config, None)
    }

    /// The same with the forms of the kernels that measured best on this adapter, now or before. Another form sums in
    /// another order: results repeat to the last bit with the same file of measurements only.
    ///
    /// # Errors
    /// As [`Trainer::new`] and [`Autotune::best`].
    pub fn autotuned(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        autotune: &mut Autotune,
    ) -> Result<Self> {
        Self::build(gpu, environment, config, Some(autotune))
    }

    fn build(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        autotune: Option<&mut Autotune>,
    ) -> Result<Self> {
        let budget = Budget::of(gpu, config.memory_budget_mb);
        let layout = config.layout(environment)?;
        let (mut sizes, mut kernel_config) = Sizes::decide(gpu, config, environment, &layout, &budget)?;
        if let Some(autotune) = autotune {
            let quads = sizes.envs / 4;
            let best = autotune.best(gpu, config.precision, &layout, quads, sizes.micro_slots)?;
            let fitted = Sizes::fit(config, environment, &layout, &best, &budget)?;
            if fitted.envs == sizes.envs && fitted.micro_slots == sizes.micro_slots {
                (sizes, kernel_config) = (fitted, best);
            } else {
                tracing::warn!(
                    ?best,
                    "the fastest form needs more memory than there is; the shipped one stays"
                );
            }
        }
        if sizes != Sizes::configured(config, environment) {
            tracing::warn!(
                envs = sizes.envs,
                micro_slots = sizes.micro_slots,
                "the plan was shrunk to fit the memory"
            );
        }
        let mut own = sizes.rollout_plan(&layout, &kernel_config);
        own.extend(&sizes.update_plan(&layout, config, &kernel_config));
        let arena = Arena::allocate(gpu, &own)?;
        let chosen = (&sizes, &kernel_config);
        kernels::compile(gpu, chosen, &layout, config)?;
        let rollout = Rollout::new(gpu, chosen, &layout, config, environment, &arena, ActionMode::Sampled)?;
        let update = Update::new(gpu, chosen, &layout, config, &arena, &rollout)?;
        let weights = initial_weights(&layout, config.activation, config.seed);
        gpu.write(arena.get("params")?, 0, bytemuck::cast_slice(&weights))?;
        // The kernel that keeps this up to date runs only after the first advantages.
        let deviation = if config.value_norm { config.value_norm_floor.sqrt() as f32 } else { 1.0 };
        let at = crate::ppo::scalars::DEVIATION as u64 * 4;
        gpu.write(arena.get("scalars")?, at, bytemuck::bytes_of(&deviation))?;
        let scale = match config.precision {
            Precision::F32 => 1.0,
            Precision::F16 => loss_scale::INITIAL,
        };
        loss_scale::start(gpu, arena.get("scalars")?, scale)?;
        let mut recorder = Recorder::new(gpu);
        recorder.run(&rollout.prepare)?;
        recorder.run(&rollout.reset)?;
        if sizes.normalized {
            // Random play, which is thrown away, shows what the units are.
            recorder.run(&rollout.collect)?;
            recorder.run(&rollout.carry)?;
            recorder.run(&rollout.reset)?;
            let episodes = arena.get("episodes")?;
            gpu.write(episodes, 0, &vec![0; episodes.size() as usize])?;
        }
        // Kept now: a run may be killed and never drop its device.
        gpu.save_kernels()?;
        let readback = Readback::new(gpu, arena.get("record")?.size(), IN_FLIGHT)?;
        Ok(Self {
            gpu: gpu.clone(),
            plan: sizes.plan(environment, &layout, config, &kernel_config),
            config: config.clone(),
            sizes,
            kernel_config,
            layout,
            arena,
            rollout,
            update,
            recorder,
            readback,
            submitted: 0,
            collected: 0,
            before: 0,
            identity: environment.identity(),
            started: None,
        })
    }

    /// Sends one iteration to the device without waiting for it.
    ///
    /// # Errors
    /// [`Error::Shape`] if too many are under way, and what the device reports.
    pub fn submit(&mut self) -> Result<()> {
        if !self.readback.has_room() {
            return Err(Error::shape(
                "iterations under way",
                format!("at most {IN_FLIGHT}"),
                self.readback.pending() + 1,
            ));
        }
        self.started.get_or_insert_with(Instant::now);
        self.recorder.run(&self.rollout.collect)?;
        self.recorder.encode(&self.rollout.values)?;
        self.recorder.encode(&self.update.advantages)?;
        for epoch in self.update.order(self.submitted) {
            self.recorder.run(epoch)?;
        }
        self.recorder.encode(&self.update.write_metrics)?;
        self.recorder.encode(&self.rollout.carry)?;
        self.recorder.submit_with_readback(self.arena.get("record")?, &mut self.readback)?;
        self.submitted += 1;
        Ok(())
    }

    /// The oldest iteration under way, waiting for it; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn collect(&mut self) -> Result<Option<Progress>> {
        let Some(records) = self.readback.take::<Record>(&self.gpu)? else {
            return Ok(None);
        };
        self.collected += 1;
        let per_iteration = u64::from(self.sizes.envs) * u64::from(self.sizes.steps);
        let env_steps = self.env_steps();
        let seconds = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        Ok(Some(Progress {
            iteration: self.collected,
            env_steps,
            steps_per_second: (u64::from(self.collected - self.before) * per_iteration) as f64
                / seconds.max(1e-9),
            record: records.first().copied().unwrap_or_default(),
        }))
    }

    /// One iteration, for measuring: the device is waited for after every phase, which training does not do.
    ///
    /// # Errors
    /// As [`Trainer::submit`] and [`Trainer::collect`].
    pub fn profile(&mut self) -> Result<Phases> {
        if self.submitted != self.collected {
            return Err(Error::shape("iterations under way", 0, self.submitted - self.collected));
        }
        let mut phases = Phases::default();
        let mut last = Instant::now();
        let mut lap = |gpu: &Gpu, phase: &mut Duration, submitted: &mut Duration| -> Result<()> {
            *submitted += last.elapsed();
            gpu.wait()?;
            *phase = last.elapsed();
            last = Instant::now();
            Ok(())
        };
        self.recorder.run(&self.rollout.collect)?;
        lap(&self.gpu, &mut phases.rollout, &mut phases.host)?;
        self.recorder.encode(&self.rollout.values)?;
        self.recorder.run(&self.update.advantages)?;
        lap(&self.gpu, &mut phases.values, &mut phases.host)?;
        for epoch in self.update.order(self.submitted) {
            self.recorder.run(epoch)?;
        }
        lap(&self.gpu, &mut phases.update, &mut phases.host)?;
        self.recorder.encode(&self.update.write_metrics)?;
        self.recorder.encode(&self.rollout.carry)?;
        self.recorder.submit_with_readback(self.arena.get("record")?, &mut self.readback)?;
        self.submitted += 1;
        self.collect()?;
        let mut record = Duration::ZERO;
        lap(&self.gpu, &mut record, &mut phases.host)?;
        phases.record = record;
        Ok(phases)
    }

    /// Trains the configured number of iterations, with the next always under way while `report` looks at the last.
    ///
    /// # Errors
    /// What `report` returns, and what the device reports.
    pub fn train<E: From<Error>>(
        &mut self,
        report: impl FnMut(&Progress) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.train_until(self.config.iterations, report)
    }

    /// The same up to iteration `last` of the run, after which nothing is under way.
    ///
    /// # Errors
    /// As [`Trainer::train`].
    pub fn train_until<E: From<Error>>(
        &mut self,
        last: u32,
        mut report: impl FnMut(&Progress) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let last = last.min(self.config.iterations);
        while self.collected < last {
            if self.submitted < last && self.readback.has_room() {
                self.submit()?;
                if self.readback.has_room() && self.submitted < last {
                    continue;
                }
            }
            if let Some(progress) = self.collect()? {
                report(&progress)?;
            }
        }
        Ok(())
    }

    /// Environment steps of the iterations done, over all environments.
    #[must_use]
    pub fn env_steps(&self) -> u64 {
        u64::from(self.collected) * u64::from(self.sizes.envs) * u64::from(self.sizes.steps)
    }

    pub(super) fn set_iteration(&mut self, iteration: u32) {
        (self.submitted, self.collected, self.before) = (iteration, iteration, iteration);
        self.started = None;
    }

    /// The flat parameter buffer, padding included.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn weights(&self) -> Result<Vec<f32>> {
        let mut weights = self.gpu.read(self.arena.get("params")?)?;
        weights.truncate(self.layout.params as usize * 4);
        Ok(weights)
    }

    /// RunningMeanStd moments of what is seen, for every agent and feature, then for every number of the environment's own state: mean,
    /// what its f32 could not hold, sum of the squared deviations, and of how many (`ppo::running_mean_std`). Empty without
    /// [`Config::observation_norm`].
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn observation_moments(&self) -> Result<Vec<[f32; 4]>> {
        if !self.sizes.normalized {
            return Ok(Vec::new());
        }
        let mut moments = self.gpu.read(self.arena.get("observation moments")?)?;
        moments.truncate(self.sizes.columns() as usize);
        Ok(moments)
    }

    /// Where everything lies in it.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The sizes that the plan came to.
    #[must_use]
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The forms of the networks' kernels.
    #[must_use]
    pub fn kernel_config(&self) -> &KernelConfig {
        &self.kernel_config
    }

    /// Every buffer of the run.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What was sent to the device so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.recorder.counts()
    }
}

#[cfg(test)]
#[path = "parity.rs"]
mod parity;

#[cfg(test)]
#[path = "critic_state.rs"]
mod critic_state;

#[cfg(test)]
#[path = "whole_update.rs"]
mod whole_update;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{EnvRecording, RolloutBuffers, Spec};
    use crate::ppo::scalars;

    struct Still;

    impl Environment for Still {
        fn spec(&self) -> Spec {
            Spec { agents: 1, obs_dim: 2, actions: 2 }
        }
        fn truncations(&self, _: u32) -> u32 {
            0
        }
        fn plan(&self, _: u32, _: u32) -> Plan {
            Plan::new()
        }
        fn record(&self, _: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
            Ok(EnvRecording { reset: vec![], steps: vec![vec![]; rollout.steps as usize], state: vec![] })
        }
    }

    /// The first advantages are computed before any update of the moments: without normalisation values count as
    /// they are from the start, with it their variance is the least one, as in the reference.
    #[test]
    fn values_that_are_not_normalised_count_in_the_first_iteration() {
        let gpu = crate::testing::unchecked_gpu();
        for (value_norm, deviation) in [(false, 1.0), (true, 1e-3)] {
            let config =
                Config { value_norm, num_envs: 4, rollout_steps: 2, hidden: vec![4], ..Config::default() };
            let trainer = Trainer::new(&gpu, &Still, &config).unwrap();
            let got: Vec<f32> = gpu.read(trainer.arena.get("scalars").unwrap()).unwrap();
            assert_eq!(
                [got[scalars::MEAN], got[scalars::DEVIATION]],
                [0.0, deviation],
                "value_norm = {value_norm}"
            );
        }
    }
}
