//! `live`: decisions of a trained policy on bars from standard input.

pub mod bars;
pub mod desk;
pub mod journal;
pub mod latency;
mod model;
mod shadow;

use std::io::{BufRead, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use phalanx::gpu::Gpu;

use crate::console::{note, say};
use bars::{Assembly, Format};
use desk::{Desk, Fatal};

/// Longest line of input in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// Interval in which signals are looked for.
const POLL: Duration = Duration::from_millis(50);

/// The run, its history and its state: of `live` and of `serve`.
#[derive(Args)]
pub struct DeskArgs {
    /// Folder of a trained run.
    #[arg(long)]
    pub run: PathBuf,
    /// Candle files or folders with the bars before the first live one.
    #[arg(long, num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// Journal of the bars, from which --resume goes on.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Go on with the journal, with the same model and history.
    #[arg(long, requires = "state")]
    pub resume: bool,
    /// Bars between two moments at which the journal is forced to disk. Every bar is written at once; a crash of the machine, not of
    /// the program, may lose those in between.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: u64,
    /// Folder of another trained run, which decides on the same bars for a simulated account of its own, and acts on nothing. Its
    /// journal is shadow-NAME, beside that of --state.
    #[arg(long, value_name = "RUN", requires = "state")]
    pub shadow: Option<PathBuf>,
    /// A limit on latency or on candle files: live.latency_limit_ms=20 or data.limits.bars=500000000; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

#[derive(Args)]
pub struct LiveArgs {
    #[command(flatten)]
    pub desk: DeskArgs,
}

/// A line of input, or why it cannot be used.
struct Line {
    number: u64,
    text: Result<Vec<u8>, &'static str>,
    arrived: Instant,
}

pub fn live(args: &LiveArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<ExitCode> {
    let (mut desk, resumed) = Desk::open(&args.desk, open)?;
    let mut assembly = Assembly::new(desk.symbols(), desk.needs_volume());
    if let Some(reply) = resumed {
        say!("{}", reply.json(true));
    }
    note!("Ready     for bars on standard input: {}", desk.ready());
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_usize(number, signal.clone(), number as usize)
            .context("catching Ctrl-C")?;
    }
    let lines = read_lines()?;
    let (mut format, mut bad) = (None, 0u64);
    let status = loop {
        let number = signal.load(Ordering::Relaxed);
        if number != 0 {
            break ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX));
        }
        let line = match lines.recv_timeout(POLL) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break ExitCode::SUCCESS,
            Err(RecvTimeoutError::Timeout) => continue,
        };
        let mut answer = |error: &anyhow::Error| {
            bad += 1;
            say!("{}", serde_json::json!({ "error": format!("{error:#}"), "line": line.number }));
        };
        let parsed = line.text.map_err(anyhow::Error::msg).and_then(|text| Format::parse(&mut format, &text));
        let closed = match parsed {
            Ok(None) => continue,
            Ok(Some(message)) => assembly.add(message, desk.last()),
            Err(error) => Err(error),
        };
        match closed {
            Err(error) => answer(&error),
            Ok(closed) => {
                for bar in closed {
                    match desk.decide(bar, line.arrived) {
                        Ok(reply) => say!("{}", reply.json(false)),
                        Err(error) if error.is::<Fatal>() => return Err(error),
                        Err(error) => answer(&error),
                    }
                }
                desk.pass_on();
            }
        }
    };
    if let Some(pending) = assembly.pending() {
        note!(
            "warning: the input ended before the bar of {pending} was complete: there was no decision on it"
        );
    }
    if bad > 0 {
        note!("warning: {bad} lines could not be used; each was answered with an error");
    }
    desk.finish()?;
    note!("{}", desk.summary());
    Ok(status)
}

/// Reads lines in a thread of its own, so that signals are noticed while none comes.
fn read_lines() -> Result<Receiver<Line>> {
    let (sender, receiver) = sync_channel(1024);
    let read = move || {
        let mut input = std::io::stdin().lock();
        for number in 1.. {
            let mut text = Vec::new();
            match input.by_ref().take(MOST_BYTES).read_until(b'\n', &mut text) {
                Ok(0) => return,
                Err(_) => {
                    let text = Err("standard input cannot be read any more");
                    let _ = sender.send(Line { number, text, arrived: Instant::now() });
                    return;
                }
                Ok(_) => {}
            }
            let arrived = Instant::now();
            let whole = text.ends_with(b"\n") || (text.len() as u64) < MOST_BYTES;
            if !whole && input.skip_until(b'\n').is_err() {
                return;
            }
            let text = if whole { Ok(text) } else { Err("the line has more than 1 MiB") };
            if sender.send(Line { number, text, arrived }).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().spawn(read).context("reading standard input")?;
    Ok(receiver)
}
