//! The trainer program: trains agents on candles, backtests them on held-out candles, and writes reports.

mod agents;
mod assess;
mod audit;
mod backtest;
mod candles;
mod checked;
mod compare;
mod console;
mod dashboard;
mod doctor;
mod evidence;
mod export;
mod folder;
mod follow;
mod gaps;
mod held_out;
mod indicators;
mod inputs;
mod interrupt;
mod known;
mod live;
mod log;
mod memory;
mod metrics;
mod parts;
mod progress;
mod readiness;
mod report;
mod run;
mod serve;
mod settings;
mod summary;
mod sweep;
mod tensorboard;
mod train;
mod validate;
mod walk_forward;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use console::note;
use live::LiveArgs;
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::market::{Adjust, GapPolicy};
use readiness::ReadinessArgs;
use serve::ServeArgs;
use sweep::SweepArgs;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use validate::ValidateArgs;
use walk_forward::WalkForwardArgs;

/// Trains multi-agent PPO trading agents on any GPU.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// GPU to use: part of its name, or a backend (vulkan, metal, dx12). The environment variable PHALANX_ADAPTER does the same.
    #[arg(long, global = true)]
    adapter: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train agents on candles.
    Train(TrainArgs),
    /// Watch a training, or look at a finished one.
    Watch(WatchArgs),
    /// Trade the held-out candles with trained agents and write a report.
    Backtest(BacktestArgs),
    /// Retrain over several folds of the candles and trade what each had not seen.
    WalkForward(WalkForwardArgs),
    /// Search for settings: train trials of a space of settings, and stop those that fall behind.
    Sweep(SweepArgs),
    /// Look for knowledge of later candles, fills that cannot be had, and costs that were too low; train again as a control, and with
    /// other seeds.
    Audit(audit::AuditArgs),
    /// Compare the accounts of several runs on the bars that all of them traded.
    Compare(compare::CompareArgs),
    /// Decide on bars from standard input, one JSON line per bar of all instruments.
    Live(LiveArgs),
    /// Decide on bars sent over HTTP, with metrics and a live page.
    Serve(ServeArgs),
    /// Check within seconds whether a model is fit for use: returns, latency, agreement of engines and precisions.
    Validate(ValidateArgs),
    /// Measure on this GPU what phalanx promises, and compute a score.
    Readiness(ReadinessArgs),
    /// Write the trained agents to a file for other programs: ONNX or safetensors.
    Export(export::ExportArgs),
    /// Compute technical indicators of candles.
    Indicators(IndicatorsArgs),
    /// Show the GPU, its features, its kernels, and the memory that training takes.
    Doctor {
        /// Also list every feature, limit, kernel variant and large buffer.
        #[arg(long)]
        verbose: bool,
    },
}

#[derive(Args, Clone)]
struct TrainArgs {
    /// Candle files (CSV, also gzipped, or Parquet) or folders of them.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Folder for the run; created if it does not exist.
    #[arg(long)]
    out: PathBuf,
    /// Settings file (TOML).
    #[arg(long)]
    config: Option<PathBuf>,
    /// Random seed; short for --set mappo.seed=N.
    #[arg(long)]
    seed: Option<u64>,
    /// Number of iterations, each a rollout and its updates; short for --set mappo.iterations=N.
    #[arg(long)]
    iterations: Option<u32>,
    /// Autotuning file (JSON): selects the fastest kernels from it, or benchmarks them first and stores the result.
    #[arg(long)]
    tune: Option<PathBuf>,
    /// A single setting, for instance mappo.gamma=0.995; can be repeated. With --resume only limits: data.limits.bars=500000000.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Replace an existing run in the folder.
    #[arg(long)]
    force: bool,
    /// Resume the interrupted run in the folder, with its original settings. With --iterations N, train it further, to N iterations
    /// in all, even if it is finished.
    #[arg(long, conflicts_with_all = ["config", "seed", "force", "init"])]
    resume: bool,
    /// Model file whose weights training starts from, instead of random ones; its networks must have the same shapes.
    #[arg(long, value_name = "MODEL")]
    init: Option<PathBuf>,
    /// Show curves of the training on the whole terminal, instead of a progress bar.
    #[arg(long)]
    dashboard: bool,
    /// Write one JSON object per iteration to standard output, with the names of metrics.csv, and nothing else.
    #[arg(long, conflicts_with = "dashboard")]
    jsonl: bool,
}

#[derive(Args)]
struct WatchArgs {
    /// Folder of a run, finished or not.
    #[arg(long)]
    run: PathBuf,
}

#[derive(Args)]
struct BacktestArgs {
    /// Folder of a trained run. Repeated, the runs decide together, by the mean of their logits: seeds of one training, for instance.
    #[arg(long = "run", value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Candle files (CSV, also gzipped, or Parquet) or folders of them.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Folder for the results; the run's folder by default. Several runs need one.
    #[arg(long)]
    out: Option<PathBuf>,
    /// First bar to trade; the first held-out bar by default.
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Last bar to trade, a day counting whole; by default the last bar of the candles or, without --from,
    /// data.test_to of the run's settings.
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
    /// Trade candles of another kind than the model was trained on: bars of another length, or without volume.
    #[arg(long)]
    force: bool,
    /// A limit on candle files, for instance data.limits.bars=500000000; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Bars per year, for annualised metrics; by default data.periods_per_year of the run's settings, or else inferred from
    /// the timestamps.
    #[arg(long, value_name = "N")]
    periods_per_year: Option<f64>,
}

#[derive(Args)]
struct IndicatorsArgs {
    /// Candle files (CSV, also gzipped, or Parquet) or folders of them.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// CSV file to write.
    #[arg(long)]
    out: PathBuf,
    /// An indicator, for instance rsi, sma:period=10 or fast=sma:period=10, where fast is the name of its column; can be
    /// repeated. By default all indicators with their usual parameters.
    #[arg(long = "indicator", value_name = "[NAME=]INDICATOR[:PARAMETER=VALUE,..]")]
    indicators: Vec<String>,
    /// Policy for bars that some instruments lack: reject (the default), drop or forward-fill.
    #[arg(long, value_name = "POLICY")]
    gaps: Option<GapPolicy>,
    /// Column of adjusted closes: auto (adjust all prices by it; the default) or none (ignore it).
    #[arg(long)]
    adjust: Option<Adjust>,
    /// A setting of candle files, for instance data.limits.bars=50000000; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

fn main() -> ExitCode {
    quiet_mesa();
    #[cfg(feature = "parquet")]
    quiet_parquet();
    let filter = std::env::var("RUST_LOG").ok().and_then(|text| match text.parse() {
        Ok(filter) => Some(filter),
        Err(error) => {
            note!("warning: RUST_LOG is ignored ({error}); expected levels by target: warn,phalanx=debug");
            None
        }
    });
    let filter = filter.unwrap_or_else(|| {
        let quiet = [("wgpu_hal", LevelFilter::OFF), ("wgpu_core", LevelFilter::ERROR)];
        Targets::new().with_default(LevelFilter::WARN).with_targets(quiet)
    });
    let log = tracing_subscriber::fmt::layer()
        .with_writer(|| console::Stderr)
        .with_ansi(console::coloured())
        .without_time();
    tracing_subscriber::registry().with(log.with_filter(filter)).init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => return usage(&message),
    };
    let open = || {
        console::busy("opening the GPU");
        let options = GpuOptions { adapter: cli.adapter.clone(), ..GpuOptions::default() };
        // A probe verifies the matrix units' products before training uses them.
        let experimental = Gpu::lists_cooperative_matrices(&options)?;
        let cache_dir = dirs::cache_dir().map(|folder| folder.join("phalanx"));
        Gpu::open(&GpuOptions { experimental, cache_dir, ..options })
    };
    let done = |()| ExitCode::SUCCESS;
    let result = match &cli.command {
        Command::Train(args) => train::train(args, cli.adapter.as_deref(), open),
        Command::Watch(args) => watch::watch(args),
        Command::Backtest(args) => backtest::backtest(args, open).map(done),
        Command::WalkForward(args) => walk_forward::walk_forward(args, open),
        Command::Sweep(args) => sweep::sweep(args, open),
        Command::Audit(args) => audit::audit(args, open),
        Command::Compare(args) => compare::compare(args).map(done),
        Command::Live(args) => live::live(args, open),
        Command::Validate(args) => validate::validate(args, open),
        Command::Serve(args) => serve::serve(args, open),
        Command::Readiness(args) => readiness::readiness(args, open),
        Command::Export(args) => export::export(args, open).map(done),
        Command::Indicators(args) => indicators::indicators(args, open).map(done),
        Command::Doctor { verbose } => doctor::doctor(open, *verbose).map(done),
    };
    console::ended(result.unwrap_or_else(|error| {
        console::report(&error);
        ExitCode::FAILURE
    }))
}

/// Prints help, the version, or what is wrong with the command line.
fn usage(message: &clap::Error) -> ExitCode {
    match message.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            note!("error: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(1)),
    }
}

/// Disables Mesa's device-selection layer if there is no desktop session: it is useless then, and prints a warning about Wayland to
/// standard error for every device.
fn quiet_mesa() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() && std::env::var_os("NODEVICE_SELECT").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// Says nothing of panics in the reader of Parquet files: the library makes them errors.
#[cfg(feature = "parquet")]
fn quiet_parquet() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|location| location.file().contains("/parquet-")) {
            usual(panic);
        }
    }));
}
