//! The folder of a run: its files, and who may change them.
//!
//! Training writes to a folder `unfinished` inside it. A finished run is published by one rename of that folder, from which on
//! the old run is gone and the new one is complete ([`publish`]). A marker file lists the files that are ours ([`marker`]): no
//! others are replaced or removed. A lock keeps other processes out ([`lock`]).

mod lock;
mod marker;
mod publish;
mod staging;
#[cfg(test)]
pub mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use phalanx::files::{copy_file, create_folders, is_temporary, remove_file, remove_folder, remove_stale};

use lock::Lock;
use marker::{MARKER, Marker};

/// Files of a finished run, beside its checkpoints.
const RUN: [&str; 4] = ["config.toml", "metrics.csv", "training.json", "model.safetensors"];
/// Events for TensorBoard, in a finished run if `logging.tensorboard` was set. TensorBoard knows them by a part of the name.
const EVENTS: &str = "events.out.tfevents.phalanx";
/// Files of a backtest.
const RESULTS: [&str; 5] = ["metrics.json", "equity.csv", "trades.csv", "report.html", RECEIPT];
/// The place of a backtest in the ledger of trials.
const RECEIPT: &str = "trial.json";
/// Files of a walk-forward test: the account over all test parts, its folds, and the settings that all trainings have in common.
const WALK: [&str; 7] =
    ["metrics.json", "equity.csv", "trades.csv", "report.html", RECEIPT, FOLDS, "config.toml"];
const FOLDS: &str = "folds.csv";
/// Folder with the runs of a walk-forward test, in the folder of the test.
pub const WALK_RUNS: &str = "folds";
/// The file of an audit.
const AUDIT: [&str; 1] = ["audit.json"];
/// Journal of a sweep, and the folder with the runs of its trials, in the folder of the sweep.
pub const SWEEP_JOURNAL: &str = "sweep.jsonl";
pub const SWEEP_TRIALS: &str = "trials";
/// The model that an unfinished run started from.
const INITIAL: &str = "initial.safetensors";
const CHECKPOINTS: &str = "checkpoints";

/// The paths of the files of a run.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    /// The folder of a finished run, with its publication settled.
    pub fn trained(path: &Path) -> Result<Self> {
        let run = Self::new(path);
        run.settle()?;
        ensure!(
            run.model().exists(),
            "{} holds no trained model; train one with `trainer train`",
            path.display()
        );
        Ok(run)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The name of the run: that of its folder.
    pub fn name(&self) -> String {
        let whole = self.0.canonicalize().unwrap_or_else(|_| self.0.clone());
        whole.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub fn settings(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.csv")
    }

    pub fn events(&self) -> PathBuf {
        self.0.join(EVENTS)
    }

    pub fn summary(&self) -> PathBuf {
        self.0.join("training.json")
    }

    pub fn report(&self) -> PathBuf {
        self.0.join("report.html")
    }

    pub fn receipt(&self) -> PathBuf {
        self.0.join(RECEIPT)
    }

    pub fn folds(&self) -> PathBuf {
        self.0.join(FOLDS)
    }

    pub fn audit(&self) -> PathBuf {
        self.0.join(AUDIT[0])
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.0.join(CHECKPOINTS)
    }

    /// The model that training started from, until the run is finished.
    pub fn initial(&self) -> PathBuf {
        self.0.join(INITIAL)
    }

    /// Keeps the model that training starts from, for a resume before the first checkpoint.
    pub fn keep_initial(&self, model: &Path) -> Result<()> {
        Ok(copy_file(model, &self.initial())?)
    }

    /// Names of the checkpoints, relative to this folder.
    fn checkpoint_names(&self) -> Result<Vec<String>> {
        let folder = self.checkpoints();
        if !folder.try_exists().with_context(|| folder.display().to_string())? {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry.with_context(|| folder.display().to_string())?;
            let name = format!("{CHECKPOINTS}/{}", entry.file_name().to_string_lossy());
            if marker::is_ours(&name) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Removes the checkpoints.
    pub fn remove_checkpoints(&self) -> Result<()> {
        for name in self.checkpoint_names()? {
            remove_file(&self.0.join(name))?;
        }
        remove_stale(&self.checkpoints())?;
        remove_if_empty(&self.checkpoints())
    }

    /// Removes the files of an unfinished run, and the folder unless it holds others.
    fn remove_run(&self) -> Result<()> {
        for name in RUN.iter().chain(&WALK).chain(&AUDIT).chain([&EVENTS, &INITIAL]) {
            remove_file(&self.0.join(name))?;
        }
        self.remove_checkpoints()?;
        remove_stale(&self.0)?;
        remove_file(&self.0.join(MARKER))?;
        remove_if_empty(&self.0)
    }

    /// Checks that no publication of a run in this folder was interrupted, and completes it if so.
    pub fn settle(&self) -> Result<()> {
        if publish::is_pending(self) {
            Owned::open(&self.0, "backtest")?;
        }
        Ok(())
    }

    /// The folder with the files of the latest run, for a reader that takes no lock: the staging folder of an unfinished run, one that is
    /// being published, or this folder. `None` if there is no run, for a moment also while one is published.
    pub fn latest(&self) -> Option<(Self, Stage)> {
        let kind = &publish::FINISHED_RUN;
        let inner = |name: &str| Some(Self(self.0.join(name))).filter(|inner| inner.0.join(MARKER).exists());
        if let Some(staging) = inner(kind.unfinished).or_else(|| {
            // Of an earlier version, which wrote no marker.
            Some(Self(self.0.join(kind.unfinished))).filter(|inner| inner.settings().exists())
        }) {
            let held = lock::seems_held(&self.0);
            return Some((staging, if held { Stage::Training } else { Stage::Interrupted }));
        }
        let done = inner(kind.done).filter(|done| done.metrics().exists());
        let finished = || Some(self.clone()).filter(|folder| folder.metrics().exists());
        Some((done.or_else(finished)?, Stage::Finished))
    }

    /// The number of the run that is here now, to tell whether it was replaced while it was read.
    pub fn run_number(&self) -> Option<u64> {
        Marker::read(self).ok().flatten()?.run
    }
}

/// The stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A process trains, as far as its lock tells.
    Training,
    /// Unfinished, and no process holds it.
    Interrupted,
    Finished,
}

/// A folder of ours that no other process may change while this lives.
#[derive(Debug)]
pub struct Owned {
    folder: Folder,
    marker: Marker,
    _lock: Lock,
}

impl Owned {
    /// Takes hold of the folder at `path` for `command`; `None` if there is none, or an empty one.
    ///
    /// # Errors
    /// If it is not empty and not ours, or another process holds it.
    pub fn open(path: &Path, command: &str) -> Result<Option<Self>> {
        let folder = Folder::new(path);
        if !is_ours(&folder)? {
            return Ok(None);
        }
        let lock = Lock::take(path, command)?;
        // Once more, for the process that held it may have changed it.
        if !is_ours(&folder)? {
            return Ok(None);
        }
        let marker = match Marker::read(&folder)? {
            Some(marker) => marker,
            None => Marker::adopt(&folder)?,
        };
        let mut owned = Self { folder, marker, _lock: lock };
        owned.complete_all()?;
        for folder in [owned.folder.clone(), owned.unfinished_folder()] {
            remove_stale(folder.path())?;
            remove_stale(&folder.checkpoints())?;
        }
        Ok(Some(owned))
    }

    /// Takes hold of the folder at `path`, creating it if needed.
    ///
    /// # Errors
    /// As [`Owned::open`].
    pub fn create(path: &Path, command: &str) -> Result<Self> {
        if let Some(owned) = Self::open(path, command)? {
            return Ok(owned);
        }
        create_folders(path)?;
        let lock = Lock::take(path, command)?;
        let folder = Folder::new(path);
        ensure!(!is_ours(&folder)?, "{} is being written by another process", path.display());
        remove_stale(path)?;
        let marker = Marker::default();
        marker.write(&folder)?;
        Ok(Self { folder, marker, _lock: lock })
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    fn unfinished_folder(&self) -> Folder {
        Folder(self.folder.0.join(publish::FINISHED_RUN.unfinished))
    }

    /// The interrupted run in this folder.
    ///
    /// # Errors
    /// If there is none.
    pub fn unfinished(&self) -> Result<Folder> {
        let staging = self.unfinished_folder();
        let ours = Marker::read(&staging)?.is_some();
        ensure!(
            ours && staging.settings().exists(),
            "{} holds no unfinished run to resume",
            self.folder.0.display()
        );
        Ok(staging)
    }

    /// The run to resume: the interrupted one or, if it is to be trained `further`, the finished one.
    ///
    /// # Errors
    /// If there is none, or the finished one has no checkpoints.
    pub fn resumable(&self, further: bool) -> Result<Folder> {
        let folder = &self.folder;
        let unfinished = match self.unfinished() {
            Err(error) if folder.model().exists() && folder.settings().exists() => error,
            other => return other,
        };
        if !further {
            bail!(
                "{unfinished}, only a finished one: --iterations N trains it further, to N iterations in all"
            );
        }
        if !folder.checkpoints().exists() {
            bail!(
                "{} was trained without checkpoints (`checkpoints.every = 0`) and cannot be trained further; start another run from its \
                 weights with --init {}",
                folder.0.display(),
                folder.model().display()
            );
        }
        Ok(folder.clone())
    }

    /// Checks that the folder holds no run, finished or not, unless `force` is set, and no files of others where a run has its own.
    pub fn vacant(&self, force: bool) -> Result<()> {
        let here = self.folder.0.display();
        let exists = |name: &&&str| self.marker.holds(name) && self.folder.0.join(name).exists();
        self.no_walk_begun()?;
        // A walk-forward test has settings too.
        let walk = self.marker.holds(FOLDS) && !self.folder.model().exists();
        if let (Some(file), false) = (RUN.iter().find(exists), force || walk) {
            bail!(
                "{here} holds a run already ({file}); choose another folder with --out, or replace the run with --force"
            );
        }
        if let (Some(file), false) = (RESULTS.iter().find(exists), force) {
            let test = if self.marker.holds(FOLDS) { "walk-forward test" } else { "backtest" };
            bail!(
                "{here} holds the results of a {test} ({file}); choose another folder with --out, or replace them with --force"
            );
        }
        let unfinished = |staging: Folder| staging.checkpoints().exists() || staging.model().exists();
        if self.unfinished().is_ok_and(unfinished) && !force {
            bail!("{here} holds an unfinished run; resume it with --resume, or replace it with --force");
        }
        for name in [publish::FINISHED_RUN.unfinished, CHECKPOINTS] {
            let path = self.folder.0.join(name);
            let kind = path.symlink_metadata();
            ensure!(
                kind.is_err() || kind.is_ok_and(|kind| kind.is_dir()),
                "{} has to be a folder, and not a link to one, since it is renamed: move it elsewhere",
                path.display()
            );
        }
        self.without_strangers(RUN.iter().copied().chain([EVENTS]))
    }

    /// Checks that no walk-forward test in this folder has trainings, but no results yet.
    fn no_walk_begun(&self) -> Result<()> {
        let runs = self.folder.0.join(WALK_RUNS);
        let ours =
            |entry: std::io::Result<std::fs::DirEntry>| entry.is_ok_and(|it| it.path().join(MARKER).exists());
        let begun = std::fs::read_dir(&runs).is_ok_and(|mut entries| entries.any(ours));
        let other = self.marker.holds(FOLDS) || self.folder.model().exists() || self.unfinished().is_ok();
        ensure!(
            !begun || other,
            "{} holds a walk-forward test that is not finished: the same `trainer walk-forward` goes on with its trainings, which are in \
             {}; choose another folder with --out, or remove this one",
            self.folder.0.display(),
            runs.display()
        );
        Ok(())
    }

    /// Checks that a file under one of these names is ours, if there is one.
    fn without_strangers<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<()> {
        for name in names {
            let path = self.folder.0.join(name);
            ensure!(
                self.marker.holds(name) || path.symlink_metadata().is_err(),
                "{} was not written by phalanx and would be replaced: move it elsewhere, or choose another folder with --out",
                path.display()
            );
        }
        Ok(())
    }
}

/// Removes a folder, unless it holds files of the user's.
fn remove_if_empty(path: &Path) -> Result<()> {
    match remove_folder(path) {
        Err(phalanx::Error::Io { source, .. }) if source.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
        other => Ok(other?),
    }
}

/// Whether there is a folder, and it is ours; false if there is none, or nothing in it.
///
/// # Errors
/// If something of others is in it.
fn is_ours(folder: &Folder) -> Result<bool> {
    let path = &folder.0;
    if path.symlink_metadata().is_err() {
        return Ok(false);
    }
    ensure!(path.is_dir(), "{} is not a folder: choose another one with --out", path.display());
    if path.join(MARKER).exists() || marker::is_older_run(folder) {
        return Ok(true);
    }
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let name = entry.with_context(|| path.display().to_string())?.file_name();
        ensure!(
            (lock::is_lock(&name) || is_temporary(&name)) && !path.join(&name).is_symlink(),
            "{} is not empty and holds no run of phalanx (there is `{}`, but no {MARKER}): nothing was written; choose another \
             folder with --out",
            path.display(),
            name.to_string_lossy()
        );
    }
    Ok(false)
}
