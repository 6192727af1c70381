//! Staging folders: a run and results are written there, and published when they are complete.

use anyhow::{Result, bail, ensure};
use phalanx::files::{copy_file, create_folders, remove_file, remove_stale, rename, sync_folder};

use super::marker::{MARKER, Marker};
use super::publish::{self, Publication};
use super::{EVENTS, FOLDS, Folder, Owned, RESULTS, remove_if_empty};

impl Owned {
    /// Copies the finished run to a staging folder, to train it further. The finished run stays intact until the longer one is
    /// complete. Its model goes along: checkpoints of older versions lack the statistics that it holds.
    pub fn reopen(&self) -> Result<Folder> {
        let copy = Folder(self.folder.0.join("unfinished.new"));
        remove_staging(&copy)?;
        let staging = self.unfinished_folder();
        remove_staging(&staging)?;
        create_folders(&copy.0)?;
        Marker::default().write(&copy)?;
        create_folders(&copy.checkpoints())?;
        let names = ["config.toml", "metrics.csv", "model.safetensors"].map(String::from).into_iter();
        let events = self.folder.events().exists().then(|| EVENTS.to_string());
        for name in names.chain(events).chain(self.folder.checkpoint_names()?) {
            copy_file(&self.folder.0.join(&name), &copy.0.join(&name))?;
        }
        // An interrupted copy is not a run.
        rename(&copy.0, &staging.0)?;
        sync_folder(&self.folder.0)?;
        Ok(staging)
    }

    /// Removes a copy that [`Self::reopen`] made; the finished run stays.
    pub fn discard(&self, copy: &Folder) {
        if let Err(error) = copy.remove_run() {
            crate::console::note!("warning: {} could not be removed: {error}", copy.0.display());
        }
    }

    /// Creates a staging folder inside this one to train in, so that an existing run stays intact until the new one is complete.
    ///
    /// # Errors
    /// If there is a run and `force` is not set.
    pub fn stage(&self, force: bool) -> Result<Folder> {
        self.vacant(force)?;
        let staging = self.unfinished_folder();
        remove_staging(&staging)?;
        create_folders(&staging.0)?;
        Marker::default().write(&staging)?;
        Ok(staging)
    }

    /// Creates a staging folder for the files of a backtest of the run in `run`, or of several runs, which have no folder of their own.
    ///
    /// # Errors
    /// If this is the folder of another run.
    pub fn stage_results(&self, run: Option<&Folder>) -> Result<Folder> {
        let differs = |run: &Folder| same_file::is_same_file(&run.0, &self.folder.0).is_ok_and(|same| !same);
        let other = run.is_none_or(differs);
        ensure!(
            !(other && self.folder.model().exists()),
            "{} holds another run, whose backtest would be replaced: choose another folder with --out",
            self.folder.0.display()
        );
        ensure!(
            !self.marker.holds(FOLDS),
            "{} holds a walk-forward test, whose results would be replaced: choose another folder with --out",
            self.folder.0.display()
        );
        self.no_walk_begun()?;
        self.stage_files(&publish::BACKTEST)
    }

    /// Removes the run in this folder, finished or not.
    pub fn clear(&mut self) -> Result<()> {
        remove_staging(&self.unfinished_folder())?;
        for name in std::mem::take(&mut self.marker.files) {
            remove_file(&self.folder.0.join(name))?;
        }
        remove_if_empty(&self.folder.checkpoints())?;
        self.marker = Marker::default();
        self.marker.write(&self.folder)
    }

    /// Checks that the folder holds nothing but a walk-forward test, if anything.
    pub fn only_a_walk(&self) -> Result<()> {
        let backtest = self.marker.holds(RESULTS[0]) && !self.marker.holds(FOLDS);
        let held = match () {
            () if self.folder.model().exists() => "a run",
            () if self.unfinished().is_ok() => "an unfinished run",
            () if backtest => "the results of a backtest",
            () => return Ok(()),
        };
        bail!("{} holds {held}: choose another folder with --out", self.folder.0.display())
    }

    /// Creates a staging folder for the files of a walk-forward test.
    pub fn stage_walk(&self) -> Result<Folder> {
        self.stage_files(&publish::WALK_FORWARD)
    }

    /// Creates a staging folder for the file of an audit.
    pub fn stage_audit(&self) -> Result<Folder> {
        self.stage_files(&publish::AUDIT)
    }

    fn stage_files(&self, kind: &Publication) -> Result<Folder> {
        self.without_strangers(kind.required.iter().copied())?;
        let staging = Folder(self.folder.0.join(kind.unfinished));
        remove_staging(&staging)?;
        create_folders(&staging.0)?;
        Marker::default().write(&staging)?;
        Ok(staging)
    }
}

/// Removes what is left of a staging folder of ours.
fn remove_staging(staging: &Folder) -> Result<()> {
    let path = &staging.0;
    let Ok(kind) = path.symlink_metadata() else { return Ok(()) };
    if kind.is_dir() {
        remove_stale(path)?;
    }
    ensure!(
        kind.is_dir()
            && (path.join(MARKER).exists()
                || std::fs::read_dir(path).is_ok_and(|mut all| all.next().is_none())),
        "{} holds files that phalanx did not write: move them elsewhere",
        path.display()
    );
    staging.remove_run()
}
