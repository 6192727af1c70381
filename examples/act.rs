//! Trains a policy on CartPole, saves it, and lets another process load it and act.
//!
//! `cargo run --release --example act`

#[path = "control/cart_pole.rs"]
mod cart_pole;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cart_pole::CartPole;
use phalanx::env::{CpuEnv, Outcome, Simulator};
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::mappo::{Config, Trainer};
use phalanx::policy::{ActionMode, Policy};

/// Environment steps of the training; 100,000 are enough to balance the pole.
const STEPS: u32 = 100_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    if let Some(model) = arguments.next() {
        return act(model.as_ref());
    }
    let folder = tempfile::tempdir()?;
    let model = folder.path().join("cartpole.safetensors");
    train(&model)?;
    // The other process knows nothing but the file.
    let status = Command::new(std::env::current_exe()?).arg(&model).status()?;
    ensure!(status.success(), "the other process failed");
    Ok(())
}

fn train(model: &Path) -> Result<()> {
    let gpu = Gpu::open(&GpuOptions::default())?;
    let environment = CpuEnv::new("CartPole", CartPole::default);
    let mut config = Config::default();
    config.ppo.iterations = STEPS.div_ceil(config.ppo.num_envs * config.ppo.rollout_steps);
    let mut trainer = Trainer::new(&gpu, &environment, &config)?;
    trainer.train(|progress| {
        if progress.iteration.is_multiple_of(5) {
            let mean = progress.running_return.unwrap_or(f64::NAN);
            println!("{:>7} steps: mean return {mean:.1}", progress.env_steps);
        }
    })?;
    let names = ["position", "velocity", "angle", "angular velocity"].map(String::from).to_vec();
    trainer.policy()?.with_features(names)?.save(model)?;
    println!("Saved to {}", model.display());
    Ok(())
}

/// Plays episodes with the greedy policy, one decision at a time, without a GPU.
fn act(model: &Path) -> Result<()> {
    let policy = Policy::load(model)?;
    println!("Loaded {} parameters", policy.parameters());
    let mut state = policy.state(1)?;
    let mut observation = [0f32; 4];
    let (mut total, mut decisions) = (0.0, 0u32);
    let started = Instant::now();
    for episode in 0..10 {
        let mut cart = CartPole::default();
        cart.reset(1000 + episode, &mut observation);
        state.reset(0);
        loop {
            let action = policy.act(&mut state, &observation, &[], ActionMode::Greedy)?.choice(0, 0, 0);
            let mut reward = [0f32];
            decisions += 1;
            let outcome = cart.step(&[action], &mut observation, &mut reward);
            total += f64::from(reward[0]);
            if !matches!(outcome, Outcome::Continues) {
                break;
            }
        }
    }
    let each = started.elapsed().as_secs_f64() * 1e6 / f64::from(decisions);
    println!("Ten episodes: mean return {:.1}; {each:.2} microseconds a step", total / 10.0);
    policy.metadata().features.first().context("the file has the names of the features")?;
    Ok(())
}
