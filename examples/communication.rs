//! Agents that have to communicate: MPE's simple_speaker_listener and simple_reference, with the MAPPO paper's settings for the
//! former, which include separate networks per agent (for simple_reference the paper's code shares them: `--shared`).
//!
//! `cargo run --release --example communication -- --task reference --shared --steps 3000000 --out curve.csv`

#[path = "common/mod.rs"]
mod common;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use phalanx::env::Communication;
use phalanx::env::communication::Task;
use phalanx::mappo::Config;
use phalanx::mappo::{Activation, Sharing};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// One agent speaks, the other moves.
    SpeakerListener,
    /// Both agents speak and move.
    Reference,
}

/// Trains two agents to communicate their goals, and prints the mean episode return (mean over agents).
#[derive(Debug, Parser)]
struct Options {
    /// Environment to train in.
    #[arg(long, value_enum, default_value_t = Name::SpeakerListener)]
    task: Name,
    /// Share one network between the agents.
    #[arg(long)]
    shared: bool,
    /// Add a GRU to actors and critics.
    #[arg(long)]
    recurrent: bool,
    #[command(flatten)]
    run: common::Run,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (task, published) = match options.task {
        Name::SpeakerListener => (Task::SpeakerListener, 2_000_000),
        Name::Reference => (Task::Reference, 3_000_000),
    };
    let mut config = Config::on_policy_mpe();
    config.ppo.epochs = 15;
    config.network.activation = Activation::Relu;
    config.network.networks = if options.shared { Sharing::Shared } else { Sharing::Separate };
    config.network.recurrent = options.recurrent;
    options.run.train(&Communication::new(task), config, 1.0, published)
}
