//! `walk-forward`: retrains over consecutive folds of the candles and trades every test part with the agents that had not seen it.
//!
//! Every training is a run of its own in `OUT/folds`, so that an interrupted walk goes on where it stopped. The result, in `OUT`, is
//! one account over all test parts.

mod fold;
mod results;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use phalanx::gpu::Gpu;
use phalanx::research::{expanding, rolling};

use crate::console::{note, say};
use crate::folder::Owned;
use crate::interrupt::Interrupts;
use crate::run::Settings;
use crate::train::warn_of_settings;
use fold::Job;
use results::{Results, Traded};

const COMMAND: &str = "walk-forward";

#[derive(Args)]
pub struct WalkForwardArgs {
    /// Candle files (CSV, also gzipped, or Parquet) or folders of them.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Folder for the result and, in `folds`, for the run of every training; created if it does not exist. The same command again goes
    /// on where an earlier one stopped.
    #[arg(long)]
    out: PathBuf,
    /// Training part of a fold: all bars before its test part (expanding), or as many as the first fold has (rolling).
    #[arg(long, default_value = "expanding")]
    scheme: Scheme,
    /// Number of folds.
    #[arg(long, default_value_t = 6)]
    folds: usize,
    /// Fraction of the bars that trains the first fold; the rest is tested.
    #[arg(long, default_value_t = 0.5)]
    train_fraction: f64,
    /// Bars between training and test that are left out. Rewards never reach into the test part, so none have to be.
    #[arg(long, default_value_t = 0)]
    purge: usize,
    /// Trainings of every fold, with the seeds mappo.seed, mappo.seed + 1 and so on. The account trades the mean of their positions.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Settings file (TOML).
    #[arg(long)]
    config: Option<PathBuf>,
    /// Number of iterations of every training; short for --set mappo.iterations=N.
    #[arg(long)]
    iterations: Option<u32>,
    /// A single setting, for instance mappo.gamma=0.995; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Remove the runs of these folds and begin anew.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scheme {
    Expanding,
    Rolling,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Expanding => "expanding",
            Self::Rolling => "rolling",
        }
    }
}

/// Most seeds.
const MOST_SEEDS: u64 = 1000;

pub fn walk_forward(args: &WalkForwardArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<ExitCode> {
    ensure!(
        (1..=MOST_SEEDS).contains(&args.seeds),
        "--seeds {}: out of range, from 1 to {MOST_SEEDS}",
        args.seeds
    );
    let settings = base_settings(args)?;
    let candles = crate::candles::load(&args.data, &settings.data)?;
    let cut = match args.scheme {
        Scheme::Expanding => expanding,
        Scheme::Rolling => rolling,
    };
    settings.market.costs(&candles.symbols)?;
    let bars = settings.data.bars(&candles)?;
    let tested = bars.len();
    let folds = cut(bars, args.folds, args.train_fraction, args.purge).map_err(|error| match error {
        phalanx::Error::Config { key, reason } => anyhow!("--{}: {reason}", key.replace('_', "-")),
        other => other.into(),
    })?;
    let jobs = Job::all(args, &settings, &candles, &folds)?;
    let mut owned = Owned::create(&args.out, COMMAND)?;
    owned.only_a_walk()?;
    for job in &jobs {
        if args.force {
            job.clear()?;
        }
        job.before()?;
    }
    let gpu = open()?;
    note!("GPU       {}", crate::doctor::adapter(&gpu));
    note!(
        "Folds     {} ({}), {} of {} bars tested, {} trainings",
        folds.len(),
        args.scheme.name(),
        folds.iter().map(|fold| fold.test[0].len()).sum::<usize>(),
        tested,
        jobs.len()
    );
    for (name, text) in crate::gaps::lines(&candles) {
        note!("{name:<10}{text}");
    }
    warn_of_settings(&settings);
    let (mut trained, mut elapsed) = (0.0, 0.0);
    let mut interrupts: Option<Interrupts> = None;
    for (index, job) in jobs.iter().enumerate() {
        note!("Training  {} of {}: {}", index + 1, jobs.len(), job.title(&candles));
        let started = Instant::now();
        if let Some(seconds) = job.train(&candles, &gpu, &mut interrupts)? {
            trained += seconds;
            elapsed += started.elapsed().as_secs_f64();
        }
        if let Some(status) = interrupts.as_ref().and_then(Interrupts::asked) {
            return Ok(interrupted(status));
        }
    }
    let started = Instant::now();
    let asked = || interrupts.as_ref().and_then(Interrupts::asked);
    let traded = match Traded::new(&gpu, &candles, &settings, &jobs, asked)? {
        Ok(traded) => traded,
        Err(status) => return Ok(interrupted(status)),
    };
    let results = Results::new(owned.folder(), &candles, &settings, &jobs, &traded)?;
    results.publish(&mut owned, &candles, &settings, args.scheme.name())?;
    results.print();
    if trained > 0.0 {
        say!(
            "Whole trainings took {elapsed:.1} s, of which {trained:.1} s were iterations; trading the tests took {:.1} s.",
            started.elapsed().as_secs_f64()
        );
    }
    say!("Report: {}", owned.folder().report().display());
    Ok(ExitCode::SUCCESS)
}

fn interrupted(status: ExitCode) -> ExitCode {
    note!("Interrupted; the same command, without --force, goes on from here");
    status
}

/// The settings that all trainings have in common.
fn base_settings(args: &WalkForwardArgs) -> Result<Settings> {
    let mut sets = args.sets.clone();
    sets.extend(args.iterations.map(|iterations| format!("mappo.iterations={iterations}")));
    let settings = Settings::read(args.config.as_deref(), &sets)?;
    for (key, date) in
        [("data.train_to", &settings.data.train_to), ("data.test_from", &settings.data.test_from)]
    {
        ensure!(
            date.is_none(),
            "setting `{key}`: the folds decide where tests begin; `data.train_from` and `data.test_to` bound all of them, and \
             --train-fraction is the part that trains the first"
        );
    }
    let last = settings.mappo.ppo.seed.checked_add(args.seeds - 1).filter(|seed| *seed <= i64::MAX as u64);
    last.with_context(|| format!("setting `mappo.seed`: {} more seeds are too many", args.seeds - 1))?;
    Ok(settings)
}
