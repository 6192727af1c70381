//! Trains on simulators in plain Rust, with the rules of Gymnasium's classic control tasks and phalanx's default settings.
//!
//! `cargo run --release --example control -- --task cart-pole --seed 1`

mod acrobot;
mod cart_pole;
mod pendulum;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use phalanx::env::CpuEnv;
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::mappo::{Config, Trainer};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Task {
    CartPole,
    Pendulum,
    Acrobot,
}

impl Task {
    fn environment(self) -> CpuEnv {
        match self {
            Self::CartPole => CpuEnv::new("CartPole", cart_pole::CartPole::default),
            Self::Pendulum => CpuEnv::new("Pendulum", pendulum::Pendulum::default),
            Self::Acrobot => CpuEnv::new("Acrobot", acrobot::Acrobot::default),
        }
    }
}

/// Trains an agent on a classic control task.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long, value_enum, default_value = "cart-pole")]
    task: Task,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Total environment steps.
    #[arg(long, default_value_t = 300_000)]
    steps: u64,
    /// A setting of the training, such as `hidden=[32, 32]`; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let key = |set: &String| set.split('=').next().unwrap_or_default().trim().to_string();
    if let Some(set) = options.sets.iter().find(|set| ["seed", "iterations"].contains(&key(set).as_str())) {
        anyhow::bail!("--set {set}: use --seed or --steps");
    }
    // All settings that are not given have their defaults.
    let mut config: Config = toml::from_str(&options.sets.join("\n"))?;
    config.ppo.seed = options.seed;
    let per_iteration = u64::from(config.ppo.num_envs * config.ppo.rollout_steps);
    config.ppo.iterations = options.steps.div_ceil(per_iteration) as u32;
    let gpu = Gpu::open(&GpuOptions::default())?;
    let mut trainer = Trainer::new(&gpu, &options.task.environment(), &config)?;
    trainer.train(|progress| {
        if let Some(mean) = progress.running_return
            && (progress.iteration % 5 == 0 || progress.iteration == config.ppo.iterations)
        {
            println!(
                "{:>7} steps, {:>6.0} steps/s: mean return of the last hundred episodes {mean:.1}",
                progress.env_steps, progress.steps_per_second
            );
        }
    })?;
    Ok(())
}
