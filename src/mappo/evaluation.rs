//! What a policy in training is worth, on environments and seeds of its own: whole episodes, the same at every evaluation.

use super::plan::Sizes;
use super::rollout::{ActionMode, Rollout};
use super::{Config, Trainer};
use crate::env::Environment;
use crate::gpu::{Arena, Budget, Command, Gpu, Plan, Recorder};
use crate::nn::KernelConfig;
use crate::{Error, Result};

/// Apart from the seeds of training, which users count up from 1.
const SEED: u64 = 0xE7A1_0000_0000_0000;

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalConfig {
    /// Environments side by side, rounded up to a multiple of 4.
    pub envs: u32,
    /// Episodes of each environment that count: the first ones, so that short episodes do not count more often than long
    /// ones.
    pub episodes: u32,
    /// Steps after which an evaluation gives up on episodes that do not end.
    pub most_steps: u32,
    /// Most probable actions, or drawn ones.
    pub mode: ActionMode,
}

/// What an evaluation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalResult {
    /// Return of every episode, mean over agents, undiscounted: environment by environment.
    pub returns: Vec<f64>,
    /// Mean steps of an episode.
    pub length: f64,
}

impl EvalResult {
    /// Mean return.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.returns.iter().sum::<f64>() / self.returns.len() as f64
    }

    /// Standard error of the mean; NaN of fewer than two episodes.
    #[must_use]
    pub fn error(&self) -> f64 {
        let (n, mean) = (self.returns.len() as f64, self.mean());
        let squares: f64 = self.returns.iter().map(|r| (r - mean).powi(2)).sum();
        (squares / (n - 1.0) / n).sqrt()
    }
}

/// Environments, buffers and recordings for evaluating a trainer's policy. Nothing of the trainer's changes.
#[derive(Debug)]
pub struct Evaluation {
    gpu: Gpu,
    eval_config: EvalConfig,
    sizes: Sizes,
    plan: Plan,
    arena: Arena,
    rollout: Rollout,
    recorder: Recorder,
}

impl Evaluation {
    /// Allocates and compiles for policies of `config` in `environment`, which may be another than the one trained in, of the
    /// same sizes.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn new(
        gpu: &Gpu,
        environment: &dyn Environment,
        config: &Config,
        eval_config: &EvalConfig,
    ) -> Result<Self> {
        let config = Config { seed: config.seed ^ SEED, num_envs: eval_config.envs, ..config.clone() };
        let layout = config.layout(environment)?.acting();
        let sizes = Sizes::acting(&config, environment);
        let kernel_config = KernelConfig::new(gpu, config.precision, &layout, sizes.envs / 4)?;
        let own = sizes.rollout_plan(&layout, &kernel_config);
        let budget = Budget::of(gpu, config.memory_budget_mb);
        let mut plan = own.clone();
        plan.extend(&environment.plan(sizes.envs, sizes.steps));
        if !budget.holds(&plan) {
            return Err(Error::Budget {
                needed: plan.bytes().div_ceil(1 << 20),
                budget: budget.total >> 20,
                advice: "evaluate on fewer environments, or raise `memory_budget_mb`".into(),
            });
        }
        let arena = Arena::allocate(gpu, &own)?;
        let chosen = (&sizes, &kernel_config);
        let rollout = Rollout::new(gpu, chosen, &layout, &config, environment, &arena, eval_config.mode)?;
        let recorder = Recorder::new(gpu);
        Ok(Self { gpu: gpu.clone(), eval_config: *eval_config, sizes, plan, arena, rollout, recorder })
    }

    /// Its buffers, beside the trainer's.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// As much of a buffer of the trainer's as its own has room for.
    fn copy(&mut self, name: &str, trainer: &Trainer) -> Result<()> {
        let (source, target) = (trainer.arena.get(name)?.clone(), self.arena.get(name)?.clone());
        let bytes = target.size();
        self.recorder.encode(&[Command::Copy { source, source_offset: 0, target, target_offset: 0, bytes }])
    }

    /// Plays the eval_config's episodes with the trainer's policy as it is now.
    ///
    /// # Errors
    /// [`Error::Data`] if an episode does not end in time, [`Error::Shape`] if the networks are others, and what the device
    /// reports.
    pub fn run(&mut self, trainer: &Trainer) -> Result<EvalResult> {
        let (source, target) = (trainer.arena.get("params")?, self.arena.get("params")?);
        if source.size() != target.size() {
            return Err(Error::shape("bytes of the parameters", target.size(), source.size()));
        }
        let (own, theirs) = (&self.sizes, &trainer.sizes);
        if own.spec != theirs.spec {
            let [own, theirs] = [own, theirs].map(|sizes| format!("{:?}", sizes.spec));
            return Err(Error::shape("the environment that was trained in", own, theirs));
        }
        if own.normalized != theirs.normalized {
            return Err(Error::shape("observations that are normalised", own.normalized, theirs.normalized));
        }
        self.copy("params", trainer)?;
        if self.sizes.normalized {
            // The states' moments, which come last, are the critics' alone.
            self.copy("observation moments", trainer)?;
        }
        self.recorder.run(&self.rollout.prepare)?;
        self.recorder.run(&self.rollout.reset)?;
        let (envs, steps) = (self.sizes.envs as usize, self.sizes.steps as usize);
        let agents = self.sizes.spec.agents as usize;
        let mut open = vec![(0.0f64, 0u32); envs];
        let mut done: Vec<Vec<(f64, u32)>> = vec![Vec::new(); envs];
        let wanted = self.eval_config.episodes.max(1) as usize;
        for rollout in 0u32.. {
            if u64::from(rollout) * steps as u64 >= u64::from(self.eval_config.most_steps) {
                let most = self.eval_config.most_steps;
                return Err(Error::Data(format!(
                    "an episode did not end within the {most} steps of an evaluation"
                )));
            }
            // Draws go on where those of the last rollout ended.
            self.gpu.write(self.arena.get("iteration")?, 0, bytemuck::bytes_of(&rollout))?;
            self.recorder.run(&self.rollout.collect)?;
            self.recorder.run(&self.rollout.carry)?;
            let rewards: Vec<f32> = self.gpu.read(self.arena.get("rewards")?)?;
            let ends =
                self.gpu.read_range(self.arena.get("dones_and_masks")?, 0, (steps * envs * 4) as u64)?;
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
