//! Agents that have to talk: MPE's simple_speaker_listener and simple_reference, with the settings of the MAPPO paper's code for
//! the former, a network for each agent among them (for simple_reference that code shares one: `--shared`).
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
    /// One speaks and one moves.
    SpeakerListener,
    /// Both speak and both move.
    Reference,
}

/// Trains two agents to tell each other where to go, and shows the mean return of their episodes (mean over agents).
#[derive(Debug, Parser)]
struct Options {
    /// Who speaks and who moves.
    #[arg(long, value_enum, default_value_t = Name::SpeakerListener)]
    task: Name,
    /// One network for both agents.
    #[arg(long)]
    shared: bool,
    /// Actors and critics with a GRU.
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
    let config = Config {
        epochs: 15,
        activation: Activation::Relu,
        networks: if options.shared { Sharing::Shared } else { Sharing::Separate },
        recurrent: options.recurrent,
        ..Config::on_policy_mpe()
    };
    options.run.train(&Communication::new(task), config, 1.0, published)
}
