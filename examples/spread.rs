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
    #[command(flatten)]
    run: common::Run,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (definition, agents) = match options.rules {
        Rules::OnPolicy => (Definition::OnPolicy, 1.0),
        Rules::Mpe2 => (Definition::Mpe2, 3.0),
    };
    let mut config = Config::on_policy_mpe();
    config.network.recurrent = options.recurrent;
    if options.half {
        config.device.precision = Precision::F16;
    }
    options.run.train(&Spread::new(definition), config, agents, 20_000_000)
}
