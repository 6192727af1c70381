//! Trains on a simulator in plain Rust: the cart-pole of Barto, Sutton and Anderson (1983), as in Gymnasium's `CartPole-v1`.
//!
//! `cargo run --release --example cartpole -- --seed 1`

use std::collections::VecDeque;

use anyhow::Result;
use clap::Parser;
use phalanx::env::{CpuEnv, Outcome, Simulator, Spec};
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::mappo::Activation;
use phalanx::mappo::{Config, Trainer};
use phalanx::random::Stream;

/// Position and velocity of the cart, angle and angular velocity of the pole.
#[derive(Default)]
struct CartPole {
    state: [f64; 4],
    taken: u32,
}

const LIMIT: u32 = 500;

impl CartPole {
    fn observe(&self, observations: &mut [f32]) {
        observations.iter_mut().zip(self.state).for_each(|(feature, value)| *feature = value as f32);
    }
}

impl Simulator for CartPole {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 4, actions: 2 }
    }

    fn time_limit(&self) -> Option<u32> {
        Some(LIMIT)
    }

    fn reset(&mut self, seed: u64, observations: &mut [f32]) {
        let mut stream = Stream::new(seed, 0);
        self.state = std::array::from_fn(|_| 0.1 * stream.uniform() - 0.05);
        self.taken = 0;
        self.observe(observations);
    }

    fn step(&mut self, actions: &[u32], observations: &mut [f32], rewards: &mut [f32]) -> Outcome {
        const GRAVITY: f64 = 9.8;
        const CART: f64 = 1.0;
        const POLE: f64 = 0.1;
        const HALF_LENGTH: f64 = 0.5;
        const TIME_STEP: f64 = 0.02;
        let [x, velocity, angle, angular_velocity] = self.state;
        let force = if actions[0] == 1 { 10.0 } else { -10.0 };
        let (sin, cos) = angle.sin_cos();
        let push = (force + POLE * HALF_LENGTH * angular_velocity * angular_velocity * sin) / (CART + POLE);
        let angular_acceleration =
            (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE * cos * cos / (CART + POLE)));
        let acceleration = push - POLE * HALF_LENGTH * angular_acceleration * cos / (CART + POLE);
        self.state = [
            x + TIME_STEP * velocity,
            velocity + TIME_STEP * acceleration,
            angle + TIME_STEP * angular_velocity,
            angular_velocity + TIME_STEP * angular_acceleration,
        ];
        self.taken += 1;
        self.observe(observations);
        rewards[0] = 1.0;
        if self.state[0].abs() > 2.4 || self.state[2].abs() > 12f64.to_radians() {
            Outcome::Terminated
        } else if self.taken >= LIMIT {
            Outcome::Truncated
        } else {
            Outcome::Continues
        }
    }

    fn save(&self) -> Option<Vec<u8>> {
        let numbers = self.state.iter().flat_map(|x| x.to_le_bytes());
        Some(numbers.chain(self.taken.to_le_bytes()).collect())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (numbers, taken) = bytes.as_chunks::<8>();
        let numbers: Vec<f64> = numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        self.state = numbers.try_into().map_err(|_| "expected four numbers")?;
        self.taken = u32::from_le_bytes(taken.try_into().map_err(|_| "the number of steps is missing")?);
        Ok(())
    }
}

/// Trains an agent to balance a pole on a cart.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Total environment steps.
    #[arg(long, default_value_t = 500_000)]
    steps: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut config = Config::default();
    config.ppo.seed = options.seed;
    config.ppo.num_envs = 16;
    config.ppo.rollout_steps = 128;
    config.network.activation = Activation::Tanh;
    // The four features have different units, which a LayerNorm would mix.
    config.network.input_norm = false;
    config.optimizer.actor_learning_rate = 1e-3;
    config.optimizer.critic_learning_rate = 1e-3;
    config.optimizer.weight_decay = 0.0;
    config.device.accumulation = 1;
    let per_iteration = u64::from(config.ppo.num_envs * config.ppo.rollout_steps);
    config.ppo.iterations = (options.steps / per_iteration) as u32;
    let gpu = Gpu::open(&GpuOptions::default())?;
    let environment = CpuEnv::new("CartPole", CartPole::default);
    let mut trainer = Trainer::new(&gpu, &environment, &config)?;
    // Number of episodes and sum of returns of the last iterations, which cover at least a hundred episodes.
    let mut last: VecDeque<(f64, f64)> = VecDeque::new();
    trainer.train(|progress| -> Result<()> {
        let record = progress.record;
        if record.episodes > 0.0 {
            last.push_back((f64::from(record.episodes), f64::from(record.return_sum)));
        }
        let count = |last: &VecDeque<(f64, f64)>| last.iter().map(|(n, _)| n).sum::<f64>();
        while last.front().is_some_and(|(first, _)| count(&last) - first >= 100.0) {
            last.pop_front();
        }
        let mean = last.iter().map(|(_, sum)| sum).sum::<f64>() / count(&last);
        if progress.iteration % 10 == 0 || progress.iteration == config.ppo.iterations {
            println!(
                "{:>7} steps, {:>6.0} steps/s: mean return of the last {:.0} episodes {mean:.1}",
                progress.env_steps,
                progress.steps_per_second,
                count(&last)
            );
        }
        Ok(())
    })
}
