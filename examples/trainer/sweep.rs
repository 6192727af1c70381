//! `sweep`: searches a space of settings for those whose agents earn most on the evaluation bars.
//!
//! Every trial is a run of its own in `OUT/trials`. Several processes may work on one sweep: they share its journal.

mod history;
mod journal;
mod pruning;
mod results;
mod sampler;
mod space;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::Args;
use phalanx::gpu::Gpu;

use crate::console::note;
use crate::interrupt::Interrupts;
use crate::parts::Parts;
use crate::run::ChosenModel;
use history::History;
use journal::{Header, Journal, Next};
use pruning::Pruning;
use space::Base;
use trial::Bench;

const COMMAND: &str = "sweep";

/// Trials that may fail before any other end, after which the sweep is given up.
const MOST_FAILURES: usize = 3;

#[derive(Args)]
pub struct SweepArgs {
    /// Candle files (CSV, also gzipped, or Parquet) or folders of them.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Space file (TOML): settings with ranges, { from = 1e-4, to = 1e-2, log = true }, or choices, { choices = [1, 2, 4] }.
    #[arg(long)]
    space: PathBuf,
    /// Number of trials in all, those of other processes on the same folder included.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    trials: u32,
    /// Folder for the journal, the results and, in `trials`, the run of every trial; created if it does not exist. The same command
    /// again, also at the same time or on another machine, goes on with the same sweep.
    #[arg(long)]
    out: PathBuf,
    /// Settings file (TOML) of what all trials have in common.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Random seed of the sampler and of every training; short for --set mappo.seed=N.
    #[arg(long)]
    seed: Option<u64>,
    /// Number of iterations of every trial; short for --set mappo.iterations=N.
    #[arg(long)]
    iterations: Option<u32>,
    /// A single setting of all trials, for instance evaluation.every=10; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Trials before which parameters are random and nothing is pruned.
    #[arg(long, value_name = "N", default_value_t = 5)]
    startup_trials: usize,
    /// Iterations of a trial before which it is not pruned.
    #[arg(long, value_name = "N", default_value_t = 0)]
    prune_after: u32,
    /// Train every trial to its end.
    #[arg(long, conflicts_with = "prune_after")]
    no_pruning: bool,
}

pub fn sweep(args: &SweepArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<ExitCode> {
    let mut sets = args.sets.clone();
    sets.extend(args.seed.map(|seed| format!("mappo.seed={seed}")));
    sets.extend(args.iterations.map(|iterations| format!("mappo.iterations={iterations}")));
    let base = Base { file: args.config.as_deref(), sets: &sets };
    let settings = base.with(&Default::default())?;
    let (every, iterations) = (settings.evaluation.every, settings.mappo.ppo.iterations);
    ensure!(
        every > 0,
        "setting `evaluation.every`: a sweep compares trials by evaluations during training, so it has to be above 0: add --set \
         evaluation.every=10"
    );
    ensure!(
        settings.evaluation.model == ChosenModel::Best,
        "setting `evaluation.model`: a sweep tests the model that it compares, which is the best one: leave it at `best`"
    );
    let space = space::read(&args.space, &base)?;
    if !space.contains_key("mappo.iterations") {
        ensure!(
            every <= iterations,
            "setting `evaluation.every`: there will be no evaluation, because it is {every} and there are {iterations} iterations"
        );
    }
    let candles = crate::candles::load(&args.data, &settings.data)?;
    settings.market.costs(&candles.symbols)?;
    let parts = Parts::new(&settings.data, &candles)?;
    let pruning =
        (!args.no_pruning).then_some(Pruning { trials: args.startup_trials, iterations: args.prune_after });
    let prune_after = pruning.map(|rule| rule.iterations);
    let checksum = candles.checksum(0..parts.end());
    let header = Header::new(&settings, &space, checksum, args.startup_trials, prune_after)?;
    let journal = Journal::open(&args.out, header)?;
    let gpu = open()?;
    note!("GPU       {}", crate::doctor::adapter(&gpu));
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    note!(
        "Sweep     {} trial{} of {} setting{}",
        args.trials,
        plural(args.trials as usize),
        space.len(),
        plural(space.len())
    );
    for (name, text) in crate::gaps::lines(&candles) {
        note!("{name:<10}{text}");
    }
    let bench = Bench {
        data: &args.data,
        base,
        settings: &settings,
        candles: &candles,
        test: parts.test[0].clone(),
        gpu: &gpu,
        journal: &journal,
        pruning,
    };
    let mut interrupts: Option<Interrupts> = None;
    loop {
        let next = journal.locked()?.take(args.trials as usize)?;
        let claim = match next {
            Next::Train(claim) => claim,
            Next::Over { elsewhere: 0 } => break,
            Next::Over { elsewhere } => {
                note!("Trials    of other processes are not over yet: {elsewhere}; the last process sums up");
                break;
            }
        };
        let again = if claim.resumed { ", begun by another process" } else { "" };
        note!("Trial     {} of {}{again}: {}", claim.number, args.trials, results::listed(&claim.parameters));
        let status = bench.run(&claim, &mut interrupts)?;
        if let Some(status) = status.or_else(|| interrupts.as_ref().and_then(Interrupts::asked)) {
            results::write(&journal, &space, &bench.base)?;
            note!("Interrupted; the same command goes on from here");
            return Ok(status);
        }
        give_up(journal.locked()?.history())?;
    }
    let history = results::write(&journal, &space, &bench.base)?;
    results::print(&history, &journal)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks that not every trial so far has failed.
fn give_up(history: &History) -> Result<()> {
    let failed = history.count("failed");
    if failed >= MOST_FAILURES && history.count("finished") + history.count("pruned") == 0 {
        bail!(
            "all {failed} trials that have ended failed, for the reasons in the journal: change the space or the settings"
        );
    }
    Ok(())
}
