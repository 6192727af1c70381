//! `sweep.jsonl`: the journal of a sweep, which several processes and machines share.
//!
//! The first line says which sweep it is, every other one is an event. A process reads and appends under a lock on `sweep.lock`, and
//! holds a lock of its own on the trial that it trains. The system releases both when the process ends, however it ends. A line that
//! a dead process has not completed is removed by the next one.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context as _, Result, bail, ensure};
use phalanx::files::{AppendFile, create_folders, is_temporary};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::history::{Event, History, State};
use super::sampler::{Known, sample};
use super::space::{Parameters, Space};
use crate::checked::from_json;
use crate::console::note;
use crate::folder::{SWEEP_JOURNAL, SWEEP_TRIALS};
use crate::run::Settings;

const LOCK: &str = "sweep.lock";
const LOCKS: &str = "locks";
pub const TABLE: &str = "trials.csv";
pub const BEST: &str = "best.toml";

/// Most bytes of a journal.
const MOST_BYTES: u64 = 1 << 30;

const FORMAT: u32 = 1;

/// The first line: everything that trials have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    sweep: u32,
    seed: u64,
    startup_trials: usize,
    /// Iterations before which nothing is pruned; none without pruning.
    prune_after: Option<u32>,
    space: Space,
    settings: Json,
    /// Checksum of the candles up to the last held-out bar.
    candles: String,
}

impl Header {
    pub fn new(
        settings: &Settings,
        space: &Space,
        candles: String,
        startup_trials: usize,
        prune_after: Option<u32>,
    ) -> Result<Self> {
        let seed = settings.mappo.ppo.seed;
        // Through text, as it will be read back.
        let text = serde_json::to_string(settings).context("the settings as JSON")?;
        let settings = serde_json::from_str(&text).context("the settings as JSON")?;
        Ok(Self { sweep: FORMAT, seed, startup_trials, prune_after, space: space.clone(), settings, candles })
    }

    /// The difference from the header of the journal, in words.
    fn difference(&self, found: &Self) -> Option<String> {
        Some(match () {
            () if found.space != self.space => "another space".into(),
            () if found.candles != self.candles => "other candles".into(),
            () if found.settings != self.settings => {
                let name = differing(&found.settings, &self.settings).unwrap_or_default();
                format!("other settings (`{name}`)")
            }
            () if found != self => "another --startup-trials, --prune-after or --no-pruning".into(),
            () => return None,
        })
    }
}

/// The first setting that differs.
fn differing(one: &Json, other: &Json) -> Option<String> {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return None };
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let name = names.into_iter().find(|name| one.get(*name) != other.get(*name))?;
    let inner = one.get(name).zip(other.get(name)).and_then(|(one, other)| differing(one, other));
    Some(inner.map_or_else(|| name.clone(), |inner| format!("{name}.{inner}")))
}

/// A trial that this process has taken.
#[derive(Debug)]
pub struct Claim {
    pub number: usize,
    pub parameters: Parameters,
    /// Whether another process had begun it.
    pub resumed: bool,
    _lock: Option<File>,
}

/// The work that is left for a process.
#[derive(Debug)]
pub enum Next {
    Train(Claim),
    /// Nothing: all trials have ended, but for this many in other processes.
    Over {
        elsewhere: usize,
    },
}

pub struct Journal {
    out: PathBuf,
    header: Header,
}

impl Journal {
    /// Opens the journal of the sweep in `out`, or starts one.
    ///
    /// # Errors
    /// If the folder holds something else, or another sweep.
    pub fn open(out: &Path, header: Header) -> Result<Self> {
        if out.exists() && !out.join(SWEEP_JOURNAL).exists() {
            only_ours(out)?;
        }
        create_folders(&out.join(LOCKS))?;
        let journal = Self { out: out.into(), header };
        journal.locked()?;
        Ok(journal)
    }

    /// The journal, for this process alone until it is dropped.
    pub fn locked(&self) -> Result<Locked<'_>> {
        let path = self.out.join(LOCK);
        let lock = open_lock(&path)?;
        if let Err(error) = lock.lock() {
            without_locks(&path, &error);
        }
        let path = self.out.join(SWEEP_JOURNAL);
        let text = whole_lines(&path)?;
        let mut locked = Locked {
            journal: self,
            file: AppendFile::open(&path)?,
            history: History::default(),
            _lock: lock,
        };
        let mut lines = text.lines().enumerate();
        let Some((_, first)) = lines.next() else {
            locked.write(&self.header)?;
            return Ok(locked);
        };
        let place = path.display();
        let found: Header =
            from_json(first).with_context(|| format!("{place}:1: not a journal of `trainer sweep`"))?;
        ensure!(
            found.sweep == FORMAT,
            "{place}: format {}, expected {FORMAT}: use the version that wrote it",
            found.sweep
        );
        if let Some(difference) = self.header.difference(&found) {
            bail!("{} holds a sweep with {difference}: choose another folder with --out", self.out.display());
        }
        for (index, line) in lines {
            let event = from_json::<Event>(line).and_then(|event| locked.history.add(event));
            event.with_context(|| format!("{place}:{}: not an event of a sweep", index + 1))?;
        }
        Ok(locked)
    }

    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The folder of a trial.
    pub fn folder_of(&self, trial: usize) -> PathBuf {
        self.out.join(SWEEP_TRIALS).join(trial.to_string())
    }

    /// The lock of a trial, unless a process holds it. `Some(None)`: it is free, on a file system without locks.
    fn claim(&self, trial: usize) -> Result<Option<Option<File>>> {
        let path = self.out.join(LOCKS).join(trial.to_string());
        let lock = open_lock(&path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Some(lock))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                without_locks(&path, &error);
                Ok(Some(None))
            }
        }
    }
}

/// The journal while no other process reads or writes it.
pub struct Locked<'a> {
    journal: &'a Journal,
    file: AppendFile,
    history: History,
    _lock: File,
}

impl Locked<'_> {
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Appends an event.
    pub fn append(&mut self, event: Event) -> Result<()> {
        self.write(&event)?;
        self.history.add(event)
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(line).context("an event of the sweep as JSON")? + "\n";
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync());
        written.with_context(|| self.journal.out.join(SWEEP_JOURNAL).display().to_string())
    }

    /// Takes a trial whose process has ended or, if fewer than `trials` were started, a new one.
    pub fn take(&mut self, trials: usize) -> Result<Next> {
        let process = process();
        let started = |(number, trial): (usize, &super::history::Trial)| {
            (trial.state == State::Started).then_some((number, trial.ends_processes()))
        };
        let open: Vec<_> = self.history.numbered().filter_map(started).collect();
        let mut elsewhere = 0;
        for (number, hopeless) in open {
            let Some(lock) = self.journal.claim(number)? else {
                elsewhere += 1;
                continue;
            };
            if hopeless {
                let reason = "its process ended three times without an evaluation in between";
                note!("warning: trial {number} failed: {reason}");
                self.append(Event::Failed { trial: number, reason: reason.into() })?;
                continue;
            }
            self.append(Event::Resumed { trial: number, process })?;
            return self.claimed(number, true, lock);
        }
        let number = self.history.trials().len() + 1;
        if number > trials {
            return Ok(Next::Over { elsewhere });
        }
        let lock = self.journal.claim(number)?;
        let lock = lock.with_context(|| format!("trial {number} is locked by another process"))?;
        let Header { space, seed, startup_trials, .. } = &self.journal.header;
        let parameters = {
            let known = Known { ended: self.history.told(), running: self.history.running() };
            sample(space, (*seed, number as u64), *startup_trials, &known)?
        };
        self.append(Event::Started { trial: number, parameters, process })?;
        self.claimed(number, false, lock)
    }

    fn claimed(&self, number: usize, resumed: bool, lock: Option<File>) -> Result<Next> {
        let trial = self.history.get(number).context("the trial that was taken")?;
        Ok(Next::Train(Claim { number, parameters: trial.parameters.clone(), resumed, _lock: lock }))
    }
}

/// Checks that a folder without a journal holds nothing but what a sweep makes before it.
fn only_ours(out: &Path) -> Result<()> {
    let named = || out.display().to_string();
    ensure!(out.is_dir(), "{} is not a folder: choose another one with --out", out.display());
    for entry in std::fs::read_dir(out).with_context(named)? {
        let name = entry.with_context(named)?.file_name();
        ensure!(
            name == LOCK || name == LOCKS || name == SWEEP_JOURNAL || is_temporary(&name),
            "{} is not empty and holds no sweep (there is `{}`, but no {SWEEP_JOURNAL}): nothing was written; choose another folder \
             with --out",
            out.display(),
            name.to_string_lossy()
        );
    }
    Ok(())
}

fn open_lock(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    options.open(path).with_context(|| path.display().to_string())
}

/// Some network file systems have no locks.
fn without_locks(path: &Path, error: &std::io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        note!(
            "warning: {} could not be locked ({error}): let no other process work on this sweep",
            path.display()
        );
    });
}

/// The complete lines of the journal. A process that was killed, or a full disk, may have left a part of one, which is removed.
fn whole_lines(path: &Path) -> Result<String> {
    let named = || path.display().to_string();
    if !path.try_exists().with_context(named)? {
        return Ok(String::new());
    }
    let mut bytes = phalanx::bounded::read(path, MOST_BYTES)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < bytes.len() {
        let file = File::options().write(true).open(path).with_context(named)?;
        file.set_len(whole as u64).and_then(|()| file.sync_data()).with_context(named)?;
        bytes.truncate(whole);
    }
    String::from_utf8(bytes).with_context(|| format!("{}: not a text file", path.display()))
}

/// Machine and number of this process.
fn process() -> String {
    let named = ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok());
    let host = named.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    format!("{}:{}", host.unwrap_or_default().trim(), std::process::id())
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
