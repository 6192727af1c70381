//! The trainer program: trains agents on candles, backtests them on candles they never saw, and reports.

mod backtest;
mod doctor;
mod indicators;
mod metrics;
mod progress;
mod report;
mod run;
mod settings;
mod train;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::market::GapPolicy;

/// Trains multi-agent PPO trading agents on any GPU.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// GPU to use: part of its name, or a backend (vulkan, metal, dx12). Also PHALANX_ADAPTER.
    #[arg(long, global = true)]
    adapter: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train agents on candles.
    Train(TrainArgs),
    /// Trade the held-out candles with trained agents and write a report.
    Backtest(BacktestArgs),
    /// Write the technical indicators of candles.
    Indicators(IndicatorsArgs),
    /// Say what the GPU is and can do, and how much memory training takes.
    Doctor {
        /// List every feature, limit, kernel variant and large buffer too.
        #[arg(long)]
        verbose: bool,
    },
}

#[derive(Args)]
struct TrainArgs {
    /// Candle files (CSV, also gzipped) or folders of them.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Folder of the run, which is created.
    #[arg(long)]
    out: PathBuf,
    /// Settings in TOML.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Seed of everything random; short for --set mappo.seed=N.
    #[arg(long)]
    seed: Option<u64>,
    /// Rollouts with their updates; short for --set mappo.iterations=N.
    #[arg(long)]
    iterations: Option<u32>,
    /// File of measured kernels: the fastest forms are taken from it, or measured first and written there.
    #[arg(long)]
    tune: Option<PathBuf>,
    /// A single setting, for instance mappo.gamma=0.995; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Replace the run that the folder already holds.
    #[arg(long)]
    force: bool,
    /// Go on with the run in the folder that was stopped before it was done, with its own settings.
    #[arg(long, conflicts_with_all = ["config", "seed", "iterations", "sets", "force"])]
    resume: bool,
}

#[derive(Args)]
struct BacktestArgs {
    /// Folder of a trained run.
    #[arg(long)]
    run: PathBuf,
    /// Candle files (CSV, also gzipped) or folders of them.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Folder for the results; the run's own by default.
    #[arg(long)]
    out: Option<PathBuf>,
    /// First bar to trade; the first held-out one by default.
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Last bar to trade; the last one by default.
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
}

#[derive(Args)]
struct IndicatorsArgs {
    /// Candle files (CSV, also gzipped) or folders of them.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// CSV file to write.
    #[arg(long)]
    out: PathBuf,
    /// An indicator, for instance rsi, sma:period=10 or fast=sma:period=10, where fast is the name of its column; may be
    /// given several times. Without any: all of them, with their usual parameters.
    #[arg(long = "indicator", value_name = "[NAME=]INDICATOR[:PARAMETER=VALUE,..]")]
    indicators: Vec<String>,
    /// What to do when instruments lack bars that others have: reject, drop or forward-fill.
    #[arg(long, value_name = "POLICY", default_value_t)]
    gaps: GapPolicy,
}

fn main() -> ExitCode {
    quiet_mesa();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,wgpu_hal=off,wgpu_core=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let cli = Cli::parse();
    let open = || {
        let options = GpuOptions { adapter: cli.adapter.clone(), ..GpuOptions::default() };
        // The probe of the matrix units decides before training whether they multiply rightly.
        let experimental = Gpu::lists_cooperative_matrices(&options)?;
        let cache_dir = dirs::cache_dir().map(|folder| folder.join("phalanx"));
        Gpu::open(&GpuOptions { experimental, cache_dir, ..options })
    };
    let result = match &cli.command {
        Command::Train(args) => train::train(args, open),
        Command::Backtest(args) => backtest::backtest(args, open),
        Command::Indicators(args) => indicators::indicators(args, open),
        Command::Doctor { verbose } => doctor::doctor(open, *verbose),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Without a desktop session Mesa's device-selection layer complains on standard error, once for every device, that it
/// found no Wayland; the layer is of no use then.
fn quiet_mesa() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() && std::env::var_os("NODEVICE_SELECT").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
