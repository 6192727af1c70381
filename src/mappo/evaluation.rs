//! Evaluation of a policy during training, in separate environments with separate seeds: whole episodes, the same ones every time.

use super::buffers::Buffers;
use super::config::Config;
use super::rollout::{ActionMode, Rollout};
use super::setup::Setup;
use super::sizes::Sizes;
use super::trainer::Trainer;
use crate::env::Environment;
use crate::gpu::{Budget, Command, Gpu, Plan, Recorder};
use crate::nn::{KernelConfig, Layout};
use crate::ranges::check as range;
use crate::{Error, Result};

/// Separates evaluation seeds from training seeds, which users usually count from 1.
const SEED: u64 = 0xE7A1_0000_0000_0000;

/// Settings of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalConfig {
    /// Environments in parallel, rounded up to a multiple of 4.
    pub envs: u32,
    /// Number of first episodes of each environment that count. A fixed number prevents a bias towards short episodes.
    pub episodes: u32,
    /// Maximum number of steps; the evaluation fails if an episode has not ended by then.
    pub most_steps: u32,
    /// Sampled or greedy actions.
    pub mode: ActionMode,
}

impl EvalConfig {
    fn validate(&self) -> Result<()> {
        range("envs", self.envs, 1.0, 1_048_576.0)?;
        range("episodes", self.episodes, 1.0, f64::from(u32::MAX))?;
        range("most_steps", self.most_steps, 1.0, f64::from(u32::MAX))
    }
}

/// Returns of the episodes of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalResult {
    /// Undiscounted return of every episode, mean over agents, ordered by environment.
    pub returns: Vec<f64>,
    /// Mean episode length in steps.
    pub length: f64,
}

impl EvalResult {
    /// Mean return.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.returns.iter().sum::<f64>() / self.returns.len() as f64
    }

    /// Standard error of the mean; NaN for fewer than two episodes.
    #[must_use]
    pub fn error(&self) -> f64 {
        let (n, mean) = (self.returns.len() as f64, self.mean());
        let squares: f64 = self.returns.iter().map(|r| (r - mean).powi(2)).sum();
        (squares / (n - 1.0) / n).sqrt()
    }
}

/// Environments, buffers and recordings for evaluating a trainer's policy. Evaluations do not change the trainer.
#[derive(Debug)]
pub struct Evaluation {
    gpu: Gpu,
    eval_config: EvalConfig,
    sizes: Sizes,
    plan: Plan,
    buffers: Buffers,
    rollout: Rollout,
    recorder: Recorder,
}

impl Evaluation {
    /// Prepares evaluations of policies with `config` in `environment`, which may differ from the training environment but must have
    /// the same sizes.
    ///
    /// # Errors
    /// As [`Trainer::new`]; [`Error::Config`] if `envs`, `episodes` or `most_steps` of `eval_config` is 0, or there are more `envs` than
    /// the kernels can process.
    pub fn new(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        eval_config: &EvalConfig,
    ) -> Result<Self> {
        let planned = Planned::new(gpu, environment, config, eval_config)?;
        fits(&planned.plan, planned.sizes.envs, &planned.budget)?;
        Self::of(gpu, environment, eval_config, planned)
    }

    /// The plan of [`Evaluation::new`], of which nothing is allocated: its bytes are reserved with [`Trainer::beside`].
    ///
    /// # Errors
    /// As [`Evaluation::new`], but for the memory budget.
    pub fn plan_of(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        eval_config: &EvalConfig,
    ) -> Result<Plan> {
        Planned::new(gpu, environment, config, eval_config).map(|planned| planned.plan)
    }

    /// [`Evaluation::new`] for an evaluation whose memory was reserved when its trainer was planned ([`Trainer::beside`]), and is not
    /// compared with the budget again: what is left of it depends on what the driver counts.
    ///
    /// # Errors
    /// As [`Evaluation::new`], but for the memory budget; [`Error::OutOfMemory`].
    pub fn reserved(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        eval_config: &EvalConfig,
    ) -> Result<Self> {
        let planned = Planned::new(gpu, environment, config, eval_config)?;
        Self::of(gpu, environment, eval_config, planned)
    }

    fn of(
        gpu: &Gpu,
        environment: &dyn Environment,
        eval_config: &EvalConfig,
        planned: Planned,
    ) -> Result<Self> {
        let Planned { config, sizes, layout, kernel_config, plan, .. } = planned;
        let buffers = Buffers::allocate(gpu, &sizes, &layout, &kernel_config)?;
        let setup = Setup {
            gpu,
            config: &config,
            sizes: &sizes,
            layout: &layout,
            kernel_config: &kernel_config,
            buffers: &buffers,
        };
        let rollout = Rollout::new(setup, environment, eval_config.mode)?;
        let recorder = Recorder::new(gpu);
        Ok(Self { gpu: gpu.clone(), eval_config: *eval_config, sizes, plan, buffers, rollout, recorder })
    }

    /// Buffers of the evaluation, which are allocated in addition to the trainer's.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs the configured episodes with the trainer's current policy.
    ///
    /// # Errors
    /// [`Error::Data`] if an episode does not end within [`EvalConfig::most_steps`], [`Error::Shape`] if the trainer's networks or
    /// environment have other sizes; errors of the device.
    pub fn run(&mut self, trainer: &Trainer) -> Result<EvalResult> {
        let (source, target) = (&trainer.buffers.networks.params, &self.buffers.networks.params);
        if source.size() != target.size() {
            return Err(Error::shape("bytes of the parameters", target.size(), source.size()));
        }
        let (own, theirs) = (&self.sizes, &trainer.sizes);
        if own.spec != theirs.spec {
            let [own, theirs] = [own, theirs].map(|sizes| format!("{:?}", sizes.spec));
            return Err(Error::shape("sizes of the training environment", own, theirs));
        }
        if own.normalized != theirs.normalized {
            return Err(Error::shape("`observation_norm`", own.normalized, theirs.normalized));
        }
        self.recorder.encode(&[fill(source, target)])?;
        if let (Some(source), Some(target)) = (&trainer.buffers.normalization, &self.buffers.normalization) {
            // The statistics of the global states, which come last, are left out: only critics need them.
            self.recorder.encode(&[fill(&source.observation_stats, &target.observation_stats)])?;
        }
        self.recorder.run(&self.rollout.prepare)?;
        self.recorder.run(&self.rollout.reset)?;
        let (envs, steps) = (self.sizes.envs as usize, self.sizes.steps as usize);
        let agents = self.sizes.spec.agents as usize;
        let mut open = vec![(0.0f64, 0u32); envs];
        let mut done: Vec<Vec<(f64, u32)>> = vec![Vec::new(); envs];
        let wanted = self.eval_config.episodes as usize;
        for rollout in 0u32.. {
            if u64::from(rollout) * steps as u64 >= u64::from(self.eval_config.most_steps) {
                let most = self.eval_config.most_steps;
                return Err(Error::Data(format!(
                    "an episode did not end within the {most} steps of an evaluation: raise `most_steps`"
                )));
            }
            // Random numbers continue after those of the last rollout.
            self.gpu.write(&self.buffers.rollout.iteration, 0, bytemuck::bytes_of(&rollout))?;
            self.recorder.run(&self.rollout.collect)?;
            self.recorder.run(&self.rollout.carry)?;
            let rewards: Vec<f32> = self.gpu.read(&self.buffers.rollout.rewards)?;
            let ends =
                self.gpu.read_range(&self.buffers.rollout.dones_and_masks, 0, (steps * envs * 4) as u64)?;
            let ends: Vec<u32> = bytemuck::pod_collect_to_vec(&ends);
            for step in 0..steps {
                for env in 0..envs {
                    let own =
                        (0..agents).map(|agent| f64::from(rewards[(step * agents + agent) * envs + env]));
                    open[env].0 += own.sum::<f64>() / agents as f64;
                    open[env].1 += 1;
                    if ends[step * envs + env] != 0 {
                        let episode = std::mem::take(&mut open[env]);
                        if done[env].len() < wanted {
                            done[env].push(episode);
                        }
                    }
                }
            }
            if done.iter().all(|episodes| episodes.len() == wanted) {
                break;
            }
        }
        let episodes: Vec<_> = done.into_iter().flatten().collect();
        let length = episodes.iter().map(|(_, steps)| f64::from(*steps)).sum::<f64>() / episodes.len() as f64;
        Ok(EvalResult { returns: episodes.into_iter().map(|(total, _)| total).collect(), length })
    }
}

/// An evaluation before anything is allocated.
struct Planned {
    /// The settings of the training with the seed and the environments of the evaluation.
    config: Config,
    sizes: Sizes,
    layout: Layout,
    kernel_config: KernelConfig,
    plan: Plan,
    /// The budget of the training and the evaluation together.
    budget: Budget,
}

impl Planned {
    fn new(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        eval_config: &EvalConfig,
    ) -> Result<Self> {
        eval_config.validate()?;
        let mut config = config.clone();
        config.ppo.seed ^= SEED;
        config.ppo.num_envs = eval_config.envs;
        let layout = config.layout(environment)?.acting();
        let sizes = Sizes::acting(&config, environment);
        let kernel_config = KernelConfig::new(gpu, config.device.precision, &layout, sizes.envs / 4)?;
        let mut plan = Buffers::plan(&sizes, &layout, &kernel_config);
        plan.extend(&environment.plan(sizes.envs, sizes.steps));
        if !sizes.launches(&kernel_config) {
            let reason =
                format!("a step of {} environments exceeds the workgroups of one dispatch", sizes.envs);
            return Err(Error::config("envs", reason));
        }
        let budget = Budget::of(gpu, config.device.memory_budget_mb);
        let what = format!("an evaluation in {} environments", sizes.envs);
        budget.binds(&plan, &what, "evaluate in fewer environments, or lower `rollout_steps`")?;
        Ok(Self { config, sizes, layout, kernel_config, plan, budget })
    }
}

/// Checks that the memory of the budget suffices for the plan of an evaluation.
fn fits(plan: &Plan, envs: u32, budget: &Budget) -> Result<()> {
    if plan.bytes() <= budget.total {
        return Ok(());
    }
    Err(Error::Budget {
        what: format!("an evaluation in {envs} environments"),
        needed: plan.bytes().div_ceil(1 << 20),
        budget: budget.total >> 20,
        advice: "raise `memory_budget_mb`, use fewer evaluation environments, or lower `rollout_steps`"
            .into(),
    })
}

/// Fills `target` with the beginning of `source`.
fn fill(source: &wgpu::Buffer, target: &wgpu::Buffer) -> Command {
    Command::Copy {
        source: source.clone(),
        source_offset: 0,
        target: target.clone(),
        target_offset: 0,
        bytes: target.size(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_the_limit_of_one_buffer_are_told_apart() {
        let mut plan = Plan::new();
        plan.words("small", 1000);
        plan.words("large", 270_000);
        let budget = |total, binding| Budget { total, binding, short_loops: false };
        fits(&plan, 4, &budget(2 << 20, 2 << 20)).unwrap();
        let error = fits(&plan, 4, &budget(1 << 20, 2 << 20)).unwrap_err().to_string();
        for part in ["4 environments needs 2 MiB", "is 1 MiB", "memory_budget_mb", "fewer evaluation env"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        budget(1 << 20, 2 << 20).binds(&plan, "it", "").unwrap();
        let error = budget(2 << 20, 1 << 20).binds(&plan, "it", "").unwrap_err().to_string();
        assert!(error.contains("one buffer of this device has at most 1 MiB"), "{error}");
        assert!(!error.contains("memory"), "{error}");
        let most = u32::MAX;
        for (key, envs, episodes, most_steps) in
            [("envs", 0, 1, 1), ("envs", most, 1, 1), ("episodes", 1, 0, 1), ("most_steps", 1, 1, 0)]
        {
            let eval_config = EvalConfig { envs, episodes, most_steps, mode: ActionMode::Greedy };
            let error = eval_config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("setting `{key}`: ")), "{error}");
        }
    }
}
