//! A second policy that decides on the same bars for an account of its own, and acts on nothing.
//!
//! It has a thread and a journal of its own: bars are handed to it after the acting policy's decision is out, and nobody waits for it. An error ends it, and the acting policy goes on. Bars that its journal lacks after a restart, it decides on then.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use phalanx::gpu::Gpu;

use super::DeskArgs;
use super::bars::ClosedBar;
use super::desk::Desk;
use super::journal;
use super::model::Model;
use crate::console::note;

/// The thread of a shadow.
pub struct Shadow {
    bars: Sender<ClosedBar>,
    thread: JoinHandle<Option<f64>>,
    name: String,
    /// Journal of the acting policy, and of the shadow.
    journals: [PathBuf; 2],
}

/// The journal of a shadow, beside that of the acting policy.
pub fn journal_beside(state: &Path) -> PathBuf {
    let name = state.file_name().unwrap_or_default().to_string_lossy();
    state.with_file_name(format!("shadow-{name}"))
}

impl Shadow {
    /// Starts the shadow after the bars `before`, which the acting policy has decided on in earlier processes.
    pub fn start(gpu: &Gpu, model: &Model, args: &DeskArgs, before: &[ClosedBar]) -> Result<Self> {
        let state = args.state.as_deref().context("a shadow needs a journal (--state)")?;
        let path = journal_beside(state);
        let resume = args.resume && path.exists();
        let place = || format!("--shadow {}", model.path.display());
        if resume {
            // A crash of the machine may have kept more of this journal than of the other.
            journal::cut(&path, before).with_context(place)?;
        }
        let (desk, replayed) =
            Desk::start(gpu, model, Some(&path), resume, args.save_every).with_context(place)?;
        let name = model.path.display().to_string();
        let (bars, queue) = channel();
        let missing = &before[replayed.bars.len().min(before.len())..];
        if !missing.is_empty() {
            note!("Shadow    {name} decides afterwards on {} bars that its journal lacks", missing.len());
        }
        let names = name.clone();
        let thread = std::thread::Builder::new()
            .spawn(move || decide_all(desk, &queue, &names))
            .context("starting the shadow")?;
        let own = Self { bars, thread, name, journals: [state.to_path_buf(), path] };
        missing.iter().for_each(|bar| own.pass(bar.clone()));
        Ok(own)
    }

    /// Hands on a bar, whose holdings are those of the acting account.
    pub fn pass(&self, bar: ClosedBar) {
        // A shadow that failed has said so.
        let _ = self.bars.send(ClosedBar { holdings: None, ..bar });
    }

    /// Waits for the decisions on all bars, and says how to compare the accounts.
    pub fn finish(self) {
        let Self { bars, thread, name, journals } = self;
        drop(bars);
        let [acting, own] = journals.map(|path| path.display().to_string());
        match thread.join() {
            Ok(Some(equity)) => {
                note!(
                    "Shadow    {name}: equity {equity:.2}; `trainer compare {acting} {own}` judges the difference"
                );
            }
            Ok(None) => {}
            Err(_) => note!("warning: the shadow {name} failed"),
        }
    }
}

/// Decides on all bars; returns the equity at the last, unless an error ended it.
fn decide_all(mut desk: Desk, bars: &Receiver<ClosedBar>, name: &str) -> Option<f64> {
    let decided = bars.iter().try_for_each(|bar| desk.decide(bar, Instant::now()).map(|_| ()));
    match decided.and_then(|()| desk.finish()) {
        Ok(()) => Some(desk.equity()),
        Err(error) => {
            note!("warning: the shadow {name} ends, and the acting policy goes on: {error:#}");
            None
        }
    }
}
