//! A custom environment on the device in its shortest form: the rules are the functions of `pendulum.wgsl`, and its sizes and parameters
//! are here. `docs/environments.md` explains both.
//!
//! `cargo run --release --example pendulum`

use phalanx::Result;
use phalanx::env::{DeviceEnv, Spec};
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::mappo::{Config, Trainer};

/// Mirrors `Parameters` in the WGSL.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Parameters {
    gravity: f32,
    torque: f32,
}

/// The environment.
///
/// # Errors
/// Those of [`phalanx::env::DeviceEnvBuilder::build`].
pub fn environment() -> Result<DeviceEnv> {
    DeviceEnv::builder("pendulum", include_str!("pendulum.wgsl"), Spec { agents: 1, obs_dim: 3, actions: 1 })
        .continuous()
        .parameters(&Parameters { gravity: 10.0, torque: 2.0 })
        .time_limit(200)
        .build()
}

/// Settings that solve it within a minute on a software rasteriser.
#[must_use]
pub fn config() -> Config {
    let mut config = Config::default();
    config.ppo.num_envs = 64;
    config.ppo.rollout_steps = 50;
    config.ppo.iterations = 60;
    config.ppo.epochs = 5;
    config.ppo.minibatches = 4;
    config.ppo.gamma = 0.9;
    config.ppo.entropy = 0.0;
    config.network.hidden = vec![32, 32];
    config.network.squash = true;
    config.optimizer.actor_learning_rate = 2e-3;
    config.optimizer.critic_learning_rate = 2e-3;
    config.device.accumulation = 1;
    config
}

fn main() -> Result<()> {
    let gpu = Gpu::open(&GpuOptions::default())?;
    let mut trainer = Trainer::new(&gpu, &environment()?, &config())?;
    println!("{}: {} environments", gpu.info().name, trainer.sizes().envs);
    trainer.train(|progress| -> Result<()> {
        if let (Some(mean), 0) = (progress.running_return, progress.iteration % 10) {
            println!("{:>7} steps: mean return of the last hundred episodes {mean:.0}", progress.env_steps);
        }
        Ok(())
    })
}
