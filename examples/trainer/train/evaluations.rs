//! Evaluations during training.

use std::ops::{ControlFlow, Range};

use anyhow::{Context as _, Result};
use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::gpu::Gpu;
use phalanx::mappo::{ActionMode, EvalConfig, Evaluation, Trainer};
use phalanx::market::MarketData;

use crate::run::Settings;

/// Evaluations that compare trainings with each other.
pub struct Scoring<'a> {
    /// Rules of the market, and rewards, of the evaluations.
    pub market: TradingSettings,
    /// Called after an evaluation with the iteration and the return of greedy actions; may end the training.
    pub evaluated: &'a mut dyn FnMut(u32, f64) -> Result<ControlFlow<()>>,
}

/// Evaluations on the evaluation bars, with greedy and with sampled actions, before their trainer is planned.
pub struct Evaluations {
    environment: Trading,
    configs: [EvalConfig; 2],
}

impl Evaluations {
    /// Evaluations by the rules of `market`.
    pub fn new(
        data: &MarketData,
        settings: &Settings,
        market: &TradingSettings,
        bars: Range<usize>,
    ) -> Result<Self> {
        let most_steps = 2 * bars.len() as u32 + settings.mappo.ppo.rollout_steps;
        let environment = Trading::new(data, market, &Episodes::Whole(bars))
            .context("the bars set aside for evaluation (`evaluation.fraction`)")?;
        let config = |mode, envs| EvalConfig { envs, episodes: 1, most_steps, mode };
        // All environments trade the same bars, so greedy actions need only the minimum of four environments.
        let configs = [config(ActionMode::Greedy, 4), config(ActionMode::Sampled, 16)];
        Ok(Self { environment, configs })
    }

    /// Bytes of device memory that they will take.
    pub fn bytes(&self, gpu: &Gpu, settings: &Settings) -> Result<u64> {
        let bytes = |config| {
            let plan = Evaluation::plan_of(gpu, &self.environment, &settings.mappo, config)?;
            Ok(plan.bytes())
        };
        self.configs.iter().map(bytes).sum()
    }

    pub fn start(&self, gpu: &Gpu, settings: &Settings) -> Result<Evaluator> {
        let [greedy, sampled] =
            self.configs.map(|config| Evaluation::reserved(gpu, &self.environment, &settings.mappo, &config));
        Ok(Evaluator([greedy?, sampled?]))
    }
}

/// Evaluates the policy.
pub struct Evaluator([Evaluation; 2]);

impl Evaluator {
    /// Bytes of device memory, in addition to the trainer's.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|evaluation| evaluation.plan().bytes()).sum()
    }

    pub fn run(&mut self, trainer: &Trainer) -> Result<[f64; 2]> {
        let [greedy, sampled] = &mut self.0;
        Ok([greedy.run(trainer)?.mean(), sampled.run(trainer)?.mean()])
    }
}
