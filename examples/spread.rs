//! The benchmark of the MAPPO paper: MPE's simple_spread, with the settings of the paper's code.
//!
//! `cargo run --release --example spread -- --steps 2000000 --out curve.csv`

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use phalanx::env::Spread;
use phalanx::env::spread::Definition;
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::mappo::{Choice, Config, Evaluation, Precision, Schedule, Trainer};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rules {
    /// The code of the paper, marlbenchmark/on-policy.
    OnPolicy,
    /// MPE2's simple_spread_v3; returns are the sum over the agents.
    Mpe2,
}

/// Trains agents to cover landmarks, and shows the mean return of their episodes.
#[derive(Debug, Parser)]
struct Options {
    /// Whose rules.
    #[arg(long, value_enum, default_value_t = Rules::OnPolicy)]
    rules: Rules,
    /// Environment steps in all.
    #[arg(long, default_value_t = 20_000_000)]
    steps: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Parallel environments.
    #[arg(long, default_value_t = 128)]
    envs: u32,
    /// Actors and critics with a GRU, as the paper's MAPPO has them.
    #[arg(long)]
    recurrent: bool,
    /// Store activations in 16 bits.
    #[arg(long)]
    half: bool,
    /// Write the learning curve here: seed, environment steps, mean return, seconds.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (definition, agents) = match options.rules {
        Rules::OnPolicy => (Definition::OnPolicy, 1.0),
        Rules::Mpe2 => (Definition::Mpe2, 3.0),
    };
    let mut config = Config {
        seed: options.seed,
        num_envs: options.envs,
        recurrent: options.recurrent,
        ..Config::on_policy_mpe()
    };
    if options.half {
        config.precision = Precision::F16;
    }
    let per_iteration = u64::from(options.envs.next_multiple_of(4)) * u64::from(config.rollout_steps);
    config.iterations = u32::try_from(options.steps.div_ceil(per_iteration)).context("so many steps")?;
    let gpu = Gpu::open(&GpuOptions::default())?;
    let mut trainer = Trainer::new(&gpu, &Spread::new(definition), &config)?;
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
        Evaluation::new(&gpu, &Spread::new(definition), &config, &schedule)
    };
    let [mut greedy, mut sampled] = [evaluation(Choice::Greedy)?, evaluation(Choice::Sampled)?];
    let started = Instant::now();
    trainer.train(|progress| -> Result<()> {
        let seconds = started.elapsed().as_secs_f64();
        let Some(mean) = progress.mean_return().map(|mean| mean * agents) else {
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
        let [mean, error] = [score.mean(), score.error()].map(|value| value * agents);
        println!("128 episodes of other seeds, {name} actions: return {mean:.2} +- {error:.2}");
    }
    Ok(())
}
