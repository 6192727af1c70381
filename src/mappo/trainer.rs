//! One iteration: rollout, values, advantages, updates, metrics. One readback per iteration, delayed by one iteration.

use super::buffers::{Buffers, UpdateBuffers};
use super::config::Config;
use super::health::Health;
use super::kernels;
use super::progress::{Phase, Phases, Progress};
use super::rollout::{ActionMode, Rollout};
use super::setup::Setup;
use super::sizes::Sizes;
use super::snapshot;
use super::update::Update;
use crate::env::Environment;
use crate::gpu::time::Instant;
use crate::gpu::{Arena, Budget, Counts, Gpu, Plan, Readback, Recorder, block_on};
use crate::model::initial_weights;
use crate::nn::autotune::Autotune;
use crate::nn::{KernelConfig, Layout, Precision};
use crate::ppo::write_metrics::Record;
use crate::ppo::{loss_scale, scalars};
use crate::{Error, Result};

/// Maximum number of iterations in flight before the CPU waits for the oldest.
const IN_FLIGHT: usize = 2;

/// Trains the agents of an environment.
#[derive(Debug)]
pub struct Trainer {
    pub(super) gpu: Gpu,
    pub(super) config: Config,
    pub(super) sizes: Sizes,
    pub(super) kernel_config: KernelConfig,
    pub(super) layout: Layout,
    plan: Plan,
    pub(super) buffers: Buffers,
    pub(super) update_buffers: UpdateBuffers,
    pub(super) rollout: Rollout,
    update: Update,
    pub(super) recorder: Recorder,
    readback: Readback,
    pub(super) submitted: u32,
    pub(super) collected: u32,
    /// Iterations completed before this process resumed the run.
    resumed_at: u32,
    pub(super) health: Health,
    /// Whether an iteration failed half-way: then the buffers belong to no iteration.
    pub(super) interrupted: bool,
    /// Whether the observations of this process's first rollout were checked.
    pub(super) examined: bool,
    pub(super) identity: String,
    /// The environment's candles and statistics, for snapshots.
    pub(super) candles: Option<String>,
    pub(super) scaling: Option<snapshot::Statistics>,
    pub(super) started: Option<Instant>,
    /// Iterations from one whose phases are timed to the next; 0: never.
    pub(super) timed_every: u32,
    /// The last timed iteration that was not collected yet.
    pub(super) timed: Option<(u32, Phases)>,
}

impl Trainer {
    /// Plans, allocates, compiles and initialises everything; training allocates nothing. With
    /// [`observation_norm`](super::NetworkConfig::observation_norm) it also runs a rollout of random actions to initialise the
    /// statistics of the observations, and resets the environments.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Budget`] if no plan fits; errors of the device, and of simulators in that
    /// rollout.
    pub fn new(gpu: &Gpu, environment: &dyn Environment, config: &Config) -> Result<Self> {
        Self::build(gpu, environment, config, None, 0)
    }

    /// Like [`Trainer::new`], with the fastest kernel configuration for this adapter, measured now or earlier. Configurations differ in
    /// the order of summation: results are reproducible to the last bit only with the same autotuning file.
    ///
    /// # Errors
    /// As [`Trainer::new`] and [`Autotune::best`].
    pub fn autotuned(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        autotune: &mut Autotune,
    ) -> Result<Self> {
        Self::build(gpu, environment, config, Some(autotune), 0)
    }

    /// Like [`Trainer::new`] or, with an autotuning file, [`Trainer::autotuned`], with `reserved` bytes of the memory budget left for
    /// evaluations ([`Evaluation::plan_of`](super::Evaluation::plan_of)). Where the budget is short, that makes the micro-batch smaller.
    ///
    /// # Errors
    /// As [`Trainer::autotuned`].
    pub fn beside(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        autotune: Option<&mut Autotune>,
        reserved: u64,
    ) -> Result<Self> {
        Self::build(gpu, environment, config, autotune, reserved)
    }

    fn build(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        autotune: Option<&mut Autotune>,
        reserved: u64,
    ) -> Result<Self> {
        let budget = Budget::of(gpu, config.device.memory_budget_mb);
        let layout = config.layout(environment)?;
        let decide = |budget: &Budget| Sizes::decide(gpu, config, environment, &layout, budget);
        let (sizes, mut kernel_config) = budget.beside(reserved, decide)?;
        let budget = budget.less(reserved);
        if let Some(autotune) = autotune {
            let quads = sizes.envs / 4;
            let best = autotune.best(gpu, config.device.precision, &layout, quads, sizes.micro_slots)?;
            let mut planned = config.clone();
            planned.ppo.num_envs = sizes.envs;
            match Sizes::fit(&planned, environment, &layout, &best, &budget) {
                Ok(fitted) if fitted == sizes => kernel_config = best,
                _ => tracing::warn!(
                    ?best,
                    "the fastest kernel configuration does not fit in the memory budget; using the default"
                ),
            }
        }
        if sizes != Sizes::configured(config, environment).for_kernels(config, &layout, &kernel_config) {
            tracing::warn!(
                envs = sizes.envs,
                micro_slots = sizes.micro_slots,
                "the plan was reduced to fit in memory"
            );
        }
        Self::planned(gpu, environment, config, layout, (sizes, kernel_config))
    }

    /// Allocates and records everything for these sizes.
    pub(super) fn planned(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        layout: Layout,
        (sizes, kernel_config): (Sizes, KernelConfig),
    ) -> Result<Self> {
        let arena = Arena::allocate(gpu, &sizes.own_plan(&layout, config, &kernel_config))?;
        let buffers = Buffers::new(&arena, &sizes)?;
        let update_buffers = UpdateBuffers::new(&arena, &sizes, config, &kernel_config)?;
        let setup = Setup {
            gpu,
            config,
            sizes: &sizes,
            layout: &layout,
            kernel_config: &kernel_config,
            buffers: &buffers,
        };
        kernels::compile(setup, environment)?;
        let rollout = Rollout::new(setup, environment, ActionMode::Sampled)?;
        let update = Update::new(setup, &update_buffers, &rollout)?;
        start_training(setup)?;
        let mut recorder = Recorder::new(gpu);
        recorder.run(&rollout.prepare)?;
        recorder.run(&rollout.reset)?;
        if sizes.normalized {
            // A rollout of random actions initialises the statistics of the observations, and is discarded.
            recorder.run(&rollout.collect)?;
            recorder.run(&rollout.carry)?;
            recorder.run(&rollout.reset)?;
            let episodes = &buffers.rollout.episodes;
            gpu.write(episodes, 0, &vec![0; episodes.size() as usize])?;
        }
        // Saved now, because a killed run never drops its device.
        if let Err(error) = gpu.save_kernels() {
            tracing::warn!(%error, "could not cache compiled kernels on disk");
        }
        let readback = Readback::new(gpu, update_buffers.record.size(), IN_FLIGHT)?;
        Ok(Self {
            gpu: gpu.clone(),
            plan: sizes.plan(environment, &layout, config, &kernel_config),
            config: config.clone(),
            sizes,
            kernel_config,
            layout,
            buffers,
            update_buffers,
            rollout,
            update,
            recorder,
            readback,
            submitted: 0,
            collected: 0,
            resumed_at: 0,
            health: Health::default(),
            interrupted: false,
            examined: false,
            identity: environment.identity(),
            candles: environment.candles(),
            scaling: snapshot::scaling_of(environment),
            started: None,
            timed_every: 0,
            timed: None,
        })
    }

    /// Submits one iteration to the device without waiting for it.
    ///
    /// # Errors
    /// [`Error::Shape`] if too many iterations are in flight; [`Error::Data`] if an earlier iteration failed half-way and the trainer
    /// was not resumed since; errors of the device and of simulators.
    pub fn submit(&mut self) -> Result<()> {
        self.not_interrupted()?;
        if !self.readback.has_room() {
            return Err(Error::shape(
                "iterations in flight",
                format!("at most {IN_FLIGHT}"),
                self.readback.pending() + 1,
            ));
        }
        self.started.get_or_insert_with(Instant::now);
        self.run_phases(|_, _| Ok(()))
    }

    /// Checks that no iteration failed half-way.
    ///
    /// # Errors
    /// [`Error::Data`].
    pub(super) fn not_interrupted(&self) -> Result<()> {
        match self.interrupted {
            false => Ok(()),
            true => Err(Error::Data(
                "an iteration failed half-way: continue from a snapshot (`Trainer::resume`)".into(),
            )),
        }
    }

    /// Encodes and submits the phases of one iteration, and calls `after` at the end of each.
    pub(super) fn run_phases(&mut self, after: impl FnMut(&mut Recorder, Phase) -> Result<()>) -> Result<()> {
        let result = self.encode_phases(after);
        self.interrupted = result.is_err();
        result
    }

    fn encode_phases(&mut self, mut after: impl FnMut(&mut Recorder, Phase) -> Result<()>) -> Result<()> {
        let Self { rollout, update, recorder, readback, .. } = self;
        let phases = [
            (Phase::Rollout, vec![&rollout.collect]),
            (Phase::Values, vec![&rollout.values, &update.advantages]),
            (Phase::Update, update.in_order(self.submitted).collect()),
            (Phase::Record, vec![&update.write_metrics, &rollout.carry]),
        ];
        for (phase, recordings) in phases {
            for recording in recordings {
                recorder.encode(recording)?;
                if matches!(phase, Phase::Rollout | Phase::Update) {
                    // The device executes this while the CPU encodes the next recording.
                    recorder.submit()?;
                }
            }
            if phase == Phase::Record {
                recorder.submit_with_readback(&self.update_buffers.record, readback)?;
            }
            after(recorder, phase)?;
        }
        self.submitted += 1;
        Ok(())
    }

    /// Waits for the oldest iteration in flight and returns its metrics; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn collect(&mut self) -> Result<Option<Progress>> {
        block_on(self.collect_async())
    }

    /// [`Trainer::collect`] for callers that await the device: in a browser, a loop of [`Trainer::submit`] and this. Poll the
    /// future to completion: dropping it loses the metrics, and the trainer counts the iteration as in flight for good.
    ///
    /// # Errors
    /// As [`Trainer::collect`].
    pub async fn collect_async(&mut self) -> Result<Option<Progress>> {
        let Some(records) = self.readback.take_async::<Record>(&self.gpu).await? else {
            return Ok(None);
        };
        let record = records
            .first()
            .copied()
            .ok_or_else(|| Error::shape("records of an iteration", 1, records.len()))?;
        self.collected += 1;
        self.health.count(&record, self.sizes.minibatches);
        let per_iteration = u64::from(self.sizes.envs) * u64::from(self.sizes.steps);
        let env_steps = self.env_steps();
        let seconds = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let collected = self.collected;
        Ok(Some(Progress {
            iteration: self.collected,
            env_steps,
            steps_per_second: (u64::from(self.collected - self.resumed_at) * per_iteration) as f64
                / seconds.max(1e-9),
            running_return: self.health.running_return(),
            iterations_without_step: self.health.iterations_without_step(),
            phases: self.timed.take_if(|(iteration, _)| *iteration == collected).map(|(_, phases)| phases),
            record,
        }))
    }

    /// Whether another iteration may be submitted.
    pub(super) fn has_room(&self) -> bool {
        self.readback.has_room()
    }

    /// Environment steps of the completed iterations, over all environments.
    #[must_use]
    pub fn env_steps(&self) -> u64 {
        u64::from(self.collected) * u64::from(self.sizes.envs) * u64::from(self.sizes.steps)
    }

    pub(super) fn set_iteration(&mut self, iteration: u32) {
        (self.submitted, self.collected, self.resumed_at) = (iteration, iteration, iteration);
        self.started = None;
        self.timed = None;
        self.health = Health::default();
        self.interrupted = false;
    }

    /// The flat parameter buffer, padding included.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn weights(&self) -> Result<Vec<f32>> {
        let mut weights = self.gpu.read(&self.buffers.networks.params)?;
        weights.truncate(self.layout.params as usize * 4);
        Ok(weights)
    }

    /// Running statistics of the observations for every agent and feature, then for every number of the global state:
    /// mean, rounding error of the mean, sum of squared deviations, and count (`ppo::running_mean_std`). Empty
    /// without [`observation_norm`](super::NetworkConfig::observation_norm).
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn observation_moments(&self) -> Result<Vec<[f32; 4]>> {
        let Some(normalization) = &self.buffers.normalization else {
            return Ok(Vec::new());
        };
        let mut stats = self.gpu.read(&normalization.observation_stats)?;
        stats.truncate(self.sizes.columns() as usize);
        Ok(stats)
    }

    /// The settings of the run.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Layout of the parameter buffer ([`Trainer::weights`]).
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The sizes of the run, fitted to memory.
    #[must_use]
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The configuration of the network kernels.
    #[must_use]
    pub fn kernel_config(&self) -> &KernelConfig {
        &self.kernel_config
    }

    /// The memory plan, with every buffer of the run.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Numbers of dispatches, passes, submits and readbacks so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.recorder.counts()
    }
}

/// Writes the initial state of training: weights, the scale of the values, and the loss scale.
fn start_training(setup: Setup<'_>) -> Result<()> {
    let Setup { gpu, config, sizes, layout, buffers, .. } = setup;
    let weights = initial_weights(layout, config.network.activation, config.ppo.seed);
    gpu.write(&buffers.networks.params, 0, bytemuck::cast_slice(&weights))?;
    // The kernel that updates this scale runs only after the first advantages are computed.
    let deviation = if config.ppo.value_norm { config.ppo.value_norm_floor.sqrt() as f32 } else { 1.0 };
    let of_scalars = &buffers.rollout.scalars;
    for group in 0..sizes.groups {
        let at = scalars::of_group(group, scalars::DEVIATION) as u64;
        gpu.write(of_scalars, at * 4, bytemuck::bytes_of(&deviation))?;
    }
    let scale = match config.device.precision {
        Precision::F32 => 1.0,
        Precision::F16 => loss_scale::INITIAL,
    };
    loss_scale::start(gpu, of_scalars, scale)
}

#[cfg(test)]
#[path = "testing.rs"]
mod testing;

#[cfg(test)]
#[path = "parity_tests.rs"]
mod parity_tests;

#[cfg(test)]
#[path = "critic_state_tests.rs"]
mod critic_state_tests;

#[cfg(test)]
#[path = "block_gradient_tests.rs"]
mod block_gradient_tests;
#[cfg(test)]
#[path = "rollout_tests.rs"]
mod rollout_tests;
#[cfg(test)]
#[path = "shuffle_tests.rs"]
mod shuffle_tests;

#[cfg(test)]
#[path = "whole_update_tests.rs"]
mod whole_update_tests;

#[cfg(test)]
#[path = "original_code_tests.rs"]
mod original_code_tests;

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
