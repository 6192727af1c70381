//! `export`: writes a trained model for other programs.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use phalanx::files::{remove_stale_beside, write_atomically};
use phalanx::gpu::Gpu;
use phalanx::market::{ExtraFeatures, MarketData, Scaling, TimestampFormat};
use phalanx::policy::{Calibration, ExportWeights, OnnxOptions, Policy};

use crate::console::{busy, note, say};
use crate::folder::Folder;
use crate::known::Known;
use crate::run::Settings;

/// Stands for all agents.
const ALL: &str = "all";

#[derive(Args)]
pub struct ExportArgs {
    /// Folder of a trained run.
    #[arg(long)]
    run: PathBuf,
    /// Format of the file: onnx is the whole way from raw features to actions, safetensors the plain tensors.
    #[arg(long, value_enum)]
    format: Format,
    /// File to write.
    #[arg(long)]
    out: PathBuf,
    /// Smaller weights than f32; int8 is for ONNX and needs --data.
    #[arg(long, value_enum)]
    quantize: Option<Quantize>,
    /// The agent of an ONNX graph, by its symbol; all agents by default.
    #[arg(long, value_name = "NAME", default_value = ALL)]
    agent: String,
    /// Leave the critic out of an ONNX graph, and with it the inputs that only it reads.
    #[arg(long)]
    no_value: bool,
    /// The candles of the training, for the ranges of activations in int8: CSV files, also gzipped, or Parquet, or folders of them.
    #[arg(long, num_args = 1..)]
    data: Vec<PathBuf>,
    /// A limit on candle files, for instance data.limits.bars=500000000; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Onnx,
    Safetensors,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Quantize {
    F16,
    Int8,
}

pub fn export(args: &ExportArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<()> {
    let run = Folder::trained(&args.run)?;
    check(args, &run)?;
    let policy = Policy::load(&run.model())?;
    let agent = agent(&policy, &args.agent)?;
    let calibration = match args.quantize {
        Some(Quantize::Int8) => calibration(args, &run, &policy, open)?,
        _ => vec![],
    };
    busy("writing the model");
    let weights = match args.quantize {
        None => ExportWeights::F32,
        Some(Quantize::F16) => ExportWeights::F16,
        Some(Quantize::Int8) => {
            ExportWeights::Int8(Calibration { observations: &calibration, ..Calibration::default() })
        }
    };
    let mut options = OnnxOptions::default().weights(weights);
    if let Some(agent) = agent {
        options = options.agent(agent);
    }
    if args.no_value {
        options = options.without_value();
    }
    let bytes = match args.format {
        Format::Onnx => policy.export_onnx(&options)?,
        Format::Safetensors => policy.export_safetensors(args.quantize == Some(Quantize::F16))?,
    };
    // Of an earlier process that was killed.
    remove_stale_beside(&args.out)?;
    write_atomically(&args.out, &bytes)?;
    say!("wrote {} bytes to {}", bytes.len(), args.out.display());
    Ok(())
}

/// Refuses what cannot be done before anything is read.
fn check(args: &ExportArgs, run: &Folder) -> Result<()> {
    ensure!(!args.out.is_dir(), "--out {} is a folder: name a file", args.out.display());
    let own = [run.model(), run.settings(), run.metrics(), run.summary(), run.report()];
    crate::inputs::keep(&[&own[..], &args.data].concat(), &args.out)?;
    let int8 = args.quantize == Some(Quantize::Int8);
    if args.format == Format::Safetensors {
        ensure!(
            !int8,
            "--quantize int8 is for --format onnx; a safetensors file holds f32, or f16 with --quantize f16"
        );
        ensure!(
            args.agent == ALL,
            "--agent is for --format onnx; a safetensors file holds the tensors of all agents"
        );
        ensure!(!args.no_value, "--no-value is for --format onnx; a safetensors file holds all tensors");
    }
    ensure!(
        !int8 || !args.data.is_empty(),
        "--quantize int8 needs the candles of the training, which show the ranges of the activations: add --data PATH"
    );
    ensure!(int8 || args.data.is_empty(), "--data is for --quantize int8 only: leave it out");
    Ok(())
}

/// The place of the agent with this name; `None` for all.
fn agent(policy: &Policy, name: &str) -> Result<Option<usize>> {
    if name == ALL {
        return Ok(None);
    }
    let metadata = policy.metadata();
    let names: Vec<_> = (0..metadata.network.agents as usize).map(|agent| metadata.agent(agent)).collect();
    match names.iter().position(|own| own == name) {
        Some(agent) => Ok(Some(agent)),
        None => bail!("the model has no agent `{name}`: choose {}, or {ALL}", names.join(", ")),
    }
}

/// The observations of the training bars.
fn calibration(
    args: &ExportArgs,
    run: &Folder,
    policy: &Policy,
    open: impl Fn() -> phalanx::Result<Gpu>,
) -> Result<Vec<f32>> {
    let metadata = policy.market()?;
    let settings = Settings::of_run(&run.settings(), &args.sets)?;
    let candles = crate::candles::load(&args.data, &settings.data)?;
    if let Some(difference) = metadata.bars.and_then(|bars| bars.difference_of_candles(&candles)) {
        bail!("{difference}: give the candles of the training");
    }
    let trained = Known::new(&settings, metadata).trained(&candles)?;
    let gpu = open()?;
    busy("computing the features");
    let scaling = Scaling::Given(metadata.scaling.clone());
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &scaling)?;
    busy("measuring the ranges of the activations");
    let bars = trained.start.max(data.first_bar())..trained.end;
    let observations = policy.market_observations(&gpu, &candles, &data, bars.clone())?;
    let from = TimestampFormat::of(&candles.timestamps).format(candles.timestamps[bars.start]);
    note!("Calibrated on the {} training bars from {from} on", bars.len());
    Ok(observations)
}
