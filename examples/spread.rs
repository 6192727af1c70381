//! Trains on the MAPPO paper's benchmark, MPE's simple_spread, with the settings of the paper's code.
//!
//! `cargo run --release --example spread -- --recurrent --out curve.csv --checkpoints spread/`

#[path = "common/mod.rs"]
mod common;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use phalanx::env::Spread;
use phalanx::env::spread::Definition;
use phalanx::mappo::{Config, Precision};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rules {
    /// The paper's code, marlbenchmark/on-policy.
    OnPolicy,
    /// MPE2's simple_spread_v3; returns are the sum over the agents.
    Mpe2,
}

/// Trains agents to cover landmarks, and prints the mean episode return.
#[derive(Debug, Parser)]
struct Options {
    /// Implementation whose rules to follow.
    #[arg(long, value_enum, default_value_t = Rules::OnPolicy)]
    rules: Rules,
    /// Add a GRU to actors and critics, as in the paper's rmappo.
    #[arg(long)]
    recurrent: bool,
    /// Train in half precision (f16).
    #[arg(long)]
    half: bool,
    /// Train with the default settings of phalanx instead of those of the paper's code.
    #[arg(long, conflicts_with_all = ["recurrent", "half"])]
    defaults: bool,
    /// A setting that differs from the defaults, such as `hidden=[32, 32]`; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "defaults")]
    sets: Vec<String>,
    #[command(flatten)]
    run: common::Run,
}

/// Settings that are given, such as `hidden=[32, 32]`; all others have their defaults.
fn settings(sets: &[String]) -> Result<Config> {
    let key = |set: &&String| set.split('=').next().unwrap_or_default().trim().to_string();
    if let Some(set) = sets.iter().find(|set| ["seed", "num_envs", "iterations"].contains(&key(set).as_str()))
    {
        anyhow::bail!("--set {set}: use --seed, --envs or --steps");
    }
    Ok(toml::from_str(&sets.join("\n"))?)
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (definition, agents) = match options.rules {
        Rules::OnPolicy => (Definition::OnPolicy, 1.0),
        Rules::Mpe2 => (Definition::Mpe2, 3.0),
    };
    let mut config = match options.defaults {
        true => settings(&options.sets)?,
        false => Config::on_policy_mpe(),
    };
    if options.recurrent {
        config.network.recurrent = true;
    }
    if options.half {
        config.device.precision = Precision::F16;
    }
    options.run.train(&Spread::new(definition), config, agents, 20_000_000)
}
