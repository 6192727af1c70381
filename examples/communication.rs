//! Agents that have to talk: MPE's simple_speaker_listener and simple_reference, with the settings of the MAPPO paper's code for
//! the former, a network for each agent among them (for simple_reference that code shares one).
//!
//! `cargo run --release --example communication -- --task reference --steps 3000000 --out curve.csv`

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use phalanx::env::Communication;
use phalanx::env::communication::Task;
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::mappo::{Choice, Config, Evaluation, Schedule, Trainer};
use phalanx::nn::{Activation, Sharing};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// One speaks and one moves.
    SpeakerListener,
    /// Both speak and both move.
    Reference,
}

/// Trains two agents to tell each other where to go, and shows the mean return of their episodes (mean over agents).
#[derive(Debug, Parser)]
struct Options {
    /// Who speaks and who moves.
    #[arg(long, value_enum, default_value_t = Name::SpeakerListener)]
    task: Name,
    /// Environment steps in all.
    #[arg(long, default_value_t = 2_000_000)]
    steps: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Parallel environments.
    #[arg(long, default_value_t = 128)]
    envs: u32,
    /// Write the learning curve here: seed, environment steps, mean return, seconds.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let environment = Communication::new(match options.task {
        Name::SpeakerListener => Task::SpeakerListener,
        Name::Reference => Task::Reference,
    });
    let mut config = Config {
        seed: options.seed,
        num_envs: options.envs,
        epochs: 15,
        activation: Activation::Relu,
        networks: Sharing::Separate,
        ..Config::on_policy_mpe()
    };
    let per_iteration = u64::from(options.envs.next_multiple_of(4)) * u64::from(config.rollout_steps);
    config.iterations = u32::try_from(options.steps.div_ceil(per_iteration)).context("so many steps")?;
    let gpu = Gpu::open(&GpuOptions::default())?;
    let mut trainer = Trainer::new(&gpu, &environment, &config)?;
    let mut curve = match &options.out {
        None => None,
        Some(path) => {
            let mut file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
            writeln!(file, "seed,env_steps,mean_return,seconds")?;
            Some(file)
        }
    };
    println!("{}: {} environments, {} iterations", gpu.info().name, trainer.sizes().envs, config.iterations);
    let evaluation = |choice| {
        let schedule = Schedule { envs: 128, episodes: 1, most_steps: 100, choice };
        Evaluation::new(&gpu, &environment, &config, &schedule)
    };
    let [mut greedy, mut sampled] = [evaluation(Choice::Greedy)?, evaluation(Choice::Sampled)?];
    let started = Instant::now();
    trainer.train(|progress| -> Result<()> {
        let seconds = started.elapsed().as_secs_f64();
        let Some(mean) = progress.mean_return() else {
            return Ok(());
        };
        if let Some(file) = &mut curve {
            writeln!(file, "{},{},{mean:.3},{seconds:.1}", options.seed, progress.env_steps)?;
        }
        if progress.iteration % 10 == 1 || progress.iteration == config.iterations {
            println!(
                "{:>9} steps, {:>6.0} a second: return {mean:8.2}, entropy {:.3}",
                progress.env_steps, progress.steps_per_second, progress.record.entropy
            );
        }
        Ok(())
    })?;
    for (name, evaluation) in [("most probable", &mut greedy), ("drawn", &mut sampled)] {
        let score = evaluation.run(&trainer)?;
        println!(
            "128 episodes of other seeds, {name} actions: return {:.2} +- {:.2}",
            score.mean(),
            score.error()
        );
    }
    Ok(())
}
