//! A custom environment on the device: two agents in a corridor of 16 cells must stand on their goals at the same time. Its rules are
//! the functions of `corridor.wgsl`. `docs/environments.md` explains how to write one.
//!
//! `cargo run --release --example corridor`; add `-- --half` for f16.

use phalanx::Result;
use phalanx::env::{DeviceEnv, Spec};
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::mappo::{Config, Precision, Trainer};

/// The environment.
///
/// # Errors
/// Those of [`phalanx::env::DeviceEnvBuilder::build`].
pub fn environment() -> Result<DeviceEnv> {
    DeviceEnv::builder("corridor", include_str!("corridor.wgsl"), Spec { agents: 2, obs_dim: 3, actions: 3 })
        // Positions and goals are cells, which files of checkpoints must not exceed.
        .validate(|fields| (0..4).try_for_each(|field| fields.counts("cell", field, 0..=15)))
        .time_limit(32)
        .build()
}

fn main() -> Result<()> {
    let half = std::env::args().any(|argument| argument == "--half");
    let mut config = Config::default();
    config.ppo.num_envs = 64;
    config.ppo.rollout_steps = 32;
    config.ppo.iterations = 60;
    config.ppo.epochs = 5;
    config.network.hidden = vec![32, 32];
    // LayerNorm over three features would hide the distances.
    config.network.input_norm = false;
    config.optimizer.actor_learning_rate = 2e-3;
    config.optimizer.critic_learning_rate = 2e-3;
    config.device.accumulation = 1;
    config.device.precision = if half { Precision::F16 } else { Precision::F32 };
    let gpu = Gpu::open(&GpuOptions::default())?;
    let mut trainer = Trainer::new(&gpu, &environment()?, &config)?;
    println!("{}: {} environments", gpu.info().name, trainer.sizes().envs);
    // Sums over ten iterations: episodes, returns, steps, and episodes that ended on both goals.
    let mut sums = [0f32; 4];
    trainer.train(|progress| -> Result<()> {
        let record = progress.record;
        let values = [record.episodes, record.return_sum, record.episode_steps, record.terminated];
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        if progress.iteration % 10 == 0 {
            let [_, total, length, arrived] = sums.map(|sum| sum / sums[0]);
            println!(
                "iteration {}: mean return {total:6.2}, mean length {length:4.1}, success {:3.0} %",
                progress.iteration,
                100.0 * arrived
            );
            sums = [0.0; 4];
        }
        Ok(())
    })
}
