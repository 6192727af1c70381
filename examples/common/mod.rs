//! Shared code of the MPE examples: options, and a training run with learning curve and checkpoints.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use phalanx::env::Environment;
use phalanx::files::write_atomically;
use phalanx::gpu::Gpu;
use phalanx::mappo::{ActionMode, Config, EvalConfig, Evaluation, Snapshots, Trainer};
use serde::{Deserialize, Serialize};

/// Iterations between two checkpoints.
const EVERY: u32 = 50;

#[derive(Debug, Args)]
pub struct Run {
    /// Total environment steps; by default as many as the published runs.
    #[arg(long)]
    steps: Option<u64>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Parallel environments.
    #[arg(long, default_value_t = 128)]
    envs: u32,
    /// CSV file for the learning curve: seed, environment steps, mean return, seconds.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Folder for checkpoints; training resumes from the latest one in it.
    #[arg(long)]
    checkpoints: Option<PathBuf>,
}

/// A point of the learning curve.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Point {
    seed: u64,
    env_steps: u64,
    mean_return: f64,
    seconds: f64,
}

/// The learning curve's CSV file, with one line per iteration, flushed immediately.
struct Curve {
    writer: csv::Writer<File>,
    /// Seconds of training before this process.
    before: f64,
}

impl Curve {
    /// Opens the file and keeps the points up to `env_steps`, from where training resumes.
    fn open(path: &Path, env_steps: u64) -> Result<Self> {
        let named = || path.display().to_string();
        let mut kept = Vec::new();
        if env_steps > 0 && path.exists() {
            // The last line may be incomplete; it is then newer than the checkpoint.
            let mut reader = csv::Reader::from_path(path).with_context(named)?;
            let points = reader.deserialize::<Point>().map_while(std::result::Result::ok);
            kept.extend(points.take_while(|point| point.env_steps <= env_steps));
        }
        let file = if kept.is_empty() {
            File::create(path).with_context(named)?
        } else {
            let mut text = csv::Writer::from_writer(Vec::new());
            kept.iter().try_for_each(|point| text.serialize(point))?;
            write_atomically(path, &text.into_inner()?)?;
            File::options().append(true).open(path).with_context(named)?
        };
        let writer = csv::WriterBuilder::new().has_headers(kept.is_empty()).from_writer(file);
        Ok(Self { writer, before: kept.last().map_or(0.0, |point| point.seconds) })
    }

    fn write(&mut self, point: Point) -> Result<()> {
        self.writer.serialize(Point { seconds: self.before + point.seconds, ..point })?;
        Ok(self.writer.flush()?)
    }
}

impl Run {
    /// Trains, resuming from the latest checkpoint if there is one, and prints the mean episode return times `agents`; then
    /// evaluates on 128 episodes with other seeds. `--steps`, or else `published`, determines the number of iterations.
    pub fn train(
        &self,
        environment: &dyn Environment,
        mut config: Config,
        agents: f64,
        published: u64,
    ) -> Result<()> {
        let per_iteration = u64::from(self.envs.next_multiple_of(4)) * u64::from(config.ppo.rollout_steps);
        let iterations = u32::try_from(self.steps.unwrap_or(published).div_ceil(per_iteration))
            .context("--steps is too large: more than 4,294,967,295 iterations")?;
        config.ppo.seed = self.seed;
        config.ppo.num_envs = self.envs;
        config.ppo.iterations = iterations;
        let gpu = Gpu::open(&Default::default())?;
        let mut trainer = Trainer::new(&gpu, environment, &config)?;
        println!("{}: {} environments, {iterations} iterations", gpu.info().name, trainer.sizes().envs);
        let snapshots = self.checkpoints.as_ref().map(|folder| Snapshots::open(folder, 2)).transpose()?;
        if let Some(latest) = snapshots.as_ref().map(Snapshots::latest).transpose()?.flatten() {
            trainer.resume(&latest)?;
            println!("resumed from {}", latest.display());
        }
        let mut curve = match &self.out {
            None => None,
            Some(path) => Some(Curve::open(path, trainer.env_steps())?),
        };
        let evaluation = |mode| {
            let eval_config = EvalConfig { envs: 128, episodes: 1, most_steps: 100, mode };
            Evaluation::new(&gpu, environment, &config, &eval_config)
        };
        let [mut greedy, mut sampled] = [evaluation(ActionMode::Greedy)?, evaluation(ActionMode::Sampled)?];
        let started = Instant::now();
        while trainer.iteration() < iterations {
            let until = trainer.iteration().saturating_add(EVERY);
            trainer.train_until(until, |progress| -> Result<()> {
                let Some(mean) = progress.mean_return().map(|mean| mean * agents) else {
                    return Ok(());
                };
                if let Some(curve) = &mut curve {
                    curve.write(Point {
                        seed: self.seed,
                        env_steps: progress.env_steps,
                        mean_return: mean,
                        seconds: started.elapsed().as_secs_f64(),
                    })?;
                }
                if progress.iteration % 10 == 1 || progress.iteration == iterations {
                    println!(
                        "{:>9} steps, {:>6.0} steps/s: return {mean:8.2}, entropy {:.3}",
                        progress.env_steps, progress.steps_per_second, progress.record.entropy
                    );
                }
                Ok(())
            })?;
            if let Some(snapshots) = &snapshots {
                snapshots.save(&trainer, None)?;
            }
        }
        for (name, evaluation) in [("greedy", &mut greedy), ("sampled", &mut sampled)] {
            let score = evaluation.run(&trainer)?;
            let [mean, error] = [score.mean(), score.error()].map(|value| value * agents);
            println!(
                "128 evaluation episodes with other seeds, {name} actions: return {mean:.2} +- {error:.2}"
            );
        }
        Ok(())
    }
}
