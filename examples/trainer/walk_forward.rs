//! `walk-forward`: retrains over folds of the candles and trades every test part with agents that had not seen it.
//!
//! Every training is a run of its own in `OUT/folds`, so that an interrupted walk goes on where it stopped. The result, in `OUT`, is
//! one account over all test parts.

mod cut;
mod fold;
mod results;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use phalanx::gpu::Gpu;
use phalanx::market::Candles;

use crate::console::{note, say};
use crate::folder::Owned;
use crate::interrupt::Interrupts;
use crate::run::Settings;
use crate::train::warn_of_settings;
use cut::{Cut, Scheme};
use fold::Job;
use results::{Results, Traded};
use training::{Taken, train_all};

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
    /// Training part of a fold: all bars before its test part (expanding), as many as the first fold has (rolling), or all parts but
    /// those it tests, before and after them (cpcv: combinatorial purged cross-validation, which tests every choice of parts).
    #[arg(long, default_value = "expanding")]
    scheme: Scheme,
    /// Number of folds; with cpcv of parts that the bars are cut into.
    #[arg(long, default_value_t = 6)]
    folds: usize,
    /// Parts that a fold tests, with cpcv; 2 by default. So 6 parts make 15 folds and 5 paths through all bars.
    #[arg(long)]
    test_groups: Option<usize>,
    /// Fraction of the bars that trains the first fold, without cpcv; 0.5 by default. The rest is tested.
    #[arg(long)]
    train_fraction: Option<f64>,
    /// Bars between training and test that are left out. Rewards never reach into the test part, so none have to be.
    #[arg(long, default_value_t = 0)]
    purge: usize,
    /// Bars after a test that are not trained on, with cpcv, because their features look back into it; a hundredth of the bars
    /// by default, and 33 at least, which is as far as features look back.
    #[arg(long)]
    embargo: Option<usize>,
    /// Trainings of every fold, with the seeds mappo.seed, mappo.seed + 1 and so on. The account trades the mean of their positions.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Trainings at the same time, which share the GPU and its memory: more than one pays where a training is too small for it.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
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

/// Most seeds.
const MOST_SEEDS: u64 = 1000;

/// Most trainings at the same time.
const MOST_JOBS: usize = 64;

pub fn walk_forward(args: &WalkForwardArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<ExitCode> {
    ensure!(
        (1..=MOST_SEEDS).contains(&args.seeds),
        "--seeds {}: out of range, from 1 to {MOST_SEEDS}",
        args.seeds
    );
    ensure!(
        (1..=MOST_JOBS).contains(&args.jobs),
        "--jobs {}: out of range, from 1 to {MOST_JOBS}",
        args.jobs
    );
    let settings = base_settings(args)?;
    let candles = crate::candles::load(&args.data, &settings.data)?;
    settings.market.costs(&candles.symbols)?;
    let bars = settings.data.bars(&candles)?;
    let all = bars.len();
    let cut = Cut::new(args, bars)?;
    let jobs = Job::all(args, &settings, &candles, &cut)?;
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
        "Folds     {} ({}), {} of {all} bars tested, {} trainings",
        cut.folds.len(),
        args.scheme.name(),
        cut.tested().len(),
        jobs.len()
    );
    for (name, text) in crate::gaps::lines(&candles) {
        note!("{name:<10}{text}");
    }
    warn_of_settings(&settings);
    let interrupts = Interrupts::catch()?;
    let (at_once, share) = shared(&gpu, &candles, &jobs, args.jobs)?;
    let Taken { trained, elapsed } = match train_all(&jobs, at_once, &candles, &share, &interrupts)? {
        Ok(taken) => taken,
        Err(status) => return Ok(interrupted(status)),
    };
    let started = Instant::now();
    interrupts.stops("after the tests of this fold; all trainings are kept");
    let traded = match Traded::new(&gpu, &candles, &settings, &cut, &jobs, || interrupts.asked())? {
        Ok(traded) => traded,
        Err(status) => return Ok(interrupted(status)),
    };
    interrupts.stops("when the results are written");
    let results = Results::new(owned.folder(), &candles, &settings, &cut, &jobs, &traded)?;
    results.publish(&mut owned, &candles, &settings, args.scheme.name())?;
    results.print();
    if trained > 0.0 {
        let summed = if args.jobs > 1 { ", summed over those at the same time" } else { "" };
        say!(
            "Whole trainings took {elapsed:.1} s{summed}, of which {trained:.1} s were iterations; trading the tests took {:.1} s.",
            started.elapsed().as_secs_f64()
        );
    }
    say!("Report: {}", owned.folder().report().display());
    Ok(ExitCode::SUCCESS)
}

/// The number of trainings at the same time, and a handle on the GPU for each of them with its part of the memory, which is asked once, before
/// one of them has taken any. No more train at once than have the plan that each would have alone, so that the results are the same.
fn shared(gpu: &Gpu, candles: &Candles, jobs: &[Job], wanted: usize) -> Result<(usize, Gpu)> {
    let wanted = wanted.min(jobs.len());
    // Their settings are alike; the table of an environment grows with its ranges.
    let largest = jobs.iter().max_by_key(|job| job.bars.train.len()).filter(|_| wanted > 1);
    let Some(largest) = largest else { return Ok((1, gpu.clone())) };
    let (at_once, mebibytes) = largest.needs(gpu, candles)?.share(wanted);
    if at_once < wanted {
        note!("Memory    for {at_once} of the {wanted} trainings at the same time that --jobs allows");
    }
    if at_once < 2 {
        return Ok((1, gpu.clone()));
    }
    note!("Memory    {mebibytes} MiB for each of {at_once} trainings at the same time");
    Ok((at_once, gpu.with_memory_budget_mb(mebibytes)))
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
    ensure!(
        settings.data.held_out.is_empty(),
        "setting `data.held_out`: the folds decide which bars are held out"
    );
    let last = settings.mappo.ppo.seed.checked_add(args.seeds - 1).filter(|seed| *seed <= i64::MAX as u64);
    last.with_context(|| format!("setting `mappo.seed`: {} more seeds are too many", args.seeds - 1))?;
    Ok(settings)
}
