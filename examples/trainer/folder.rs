//! The folder of a run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use phalanx::files::write_atomically;

pub use crate::summary::Summary;

/// The folder of a run, with the paths of its files.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    pub fn path(&self) -> &Path {
        &self.0
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

    pub fn summary(&self) -> PathBuf {
        self.0.join("training.json")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// The model that training started from, until the run is finished.
    pub fn initial(&self) -> PathBuf {
        self.0.join("initial.safetensors")
    }

    /// Keeps the model that training starts from, for a resume before the first checkpoint.
    pub fn keep_initial(&self, model: &Path) -> Result<()> {
        let bytes = std::fs::read(model).with_context(|| model.display().to_string())?;
        Ok(write_atomically(&self.initial(), &bytes)?)
    }

    /// Folder of the run while it is in training.
    fn staging(&self) -> Self {
        Self(self.0.join("unfinished"))
    }

    /// The interrupted run in this folder.
    ///
    /// # Errors
    /// If there is none.
    pub fn unfinished(&self) -> Result<Self> {
        self.tidy()?;
        let staging = self.staging();
        if !staging.settings().exists() {
            anyhow::bail!("{} holds no unfinished run to resume", self.0.display());
        }
        Ok(staging)
    }

    /// The run to resume: the interrupted one or, if it is to be trained `further`, the finished one.
    ///
    /// # Errors
    /// If there is none, or the finished one has no checkpoints.
    pub fn resumable(&self, further: bool) -> Result<Self> {
        let unfinished = match self.unfinished() {
            Err(error) if self.model().exists() && self.settings().exists() => error,
            other => return other,
        };
        if !further {
            anyhow::bail!(
                "{unfinished}, only a finished one: --iterations N trains it further, to N iterations in all"
            );
        }
        if !self.checkpoints().exists() {
            anyhow::bail!(
                "{} was trained without checkpoints (`checkpoints.every = 0`) and cannot be trained further; start another run from its \
                 weights with --init {}",
                self.0.display(),
                self.model().display()
            );
        }
        Ok(self.clone())
    }

    /// Copies the finished run to a staging folder, to train it further. The finished run stays intact until the longer one is
    /// complete.
    pub fn reopen(&self) -> Result<Self> {
        let copy = Self(self.0.join("unfinished.new"));
        if copy.0.exists() {
            std::fs::remove_dir_all(&copy.0).with_context(|| copy.0.display().to_string())?;
        }
        std::fs::create_dir_all(copy.checkpoints()).with_context(|| copy.0.display().to_string())?;
        let mut files = vec![(self.settings(), copy.settings()), (self.metrics(), copy.metrics())];
        let folder = self.checkpoints();
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry.with_context(|| folder.display().to_string())?;
            files.push((entry.path(), copy.checkpoints().join(entry.file_name())));
        }
        for (from, to) in files {
            std::fs::copy(&from, to).with_context(|| from.display().to_string())?;
        }
        // An interrupted copy is not a run.
        std::fs::rename(&copy.0, self.staging().0).with_context(|| copy.0.display().to_string())?;
        Ok(self.staging())
    }

    /// Removes a copy that [`Self::reopen`] made; the finished run stays.
    pub fn discard(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} could not be removed: {error}", self.0.display());
        }
    }

    pub fn report(&self) -> PathBuf {
        self.0.join("report.html")
    }

    /// Checks that the folder holds no run, finished or not, unless `force` is set. Leaves all results in place.
    pub fn vacant(&self, force: bool) -> Result<()> {
        let taken = [self.settings(), self.model(), self.metrics()].into_iter().find(|file| file.exists());
        if let (Some(file), false) = (taken, force) {
            anyhow::bail!(
                "{} holds a run already ({}); choose another folder with --out, or replace the run with --force",
                self.0.display(),
                file.file_name().unwrap_or_default().to_string_lossy()
            );
        }
        self.tidy()?;
        if self.staging().checkpoints().exists() && !force {
            anyhow::bail!(
                "{} holds an unfinished run; resume it with --resume, or replace it with --force",
                self.0.display()
            );
        }
        Ok(())
    }

    /// Creates a staging folder inside this one to train in, so that an existing run stays intact until the new one is complete.
    ///
    /// # Errors
    /// If there is a run and `force` is not set.
    pub fn stage(&self, force: bool) -> Result<Self> {
        self.vacant(force)?;
        let staging = self.staging();
        if staging.checkpoints().exists() {
            std::fs::remove_dir_all(&staging.0).with_context(|| staging.0.display().to_string())?;
        }
        std::fs::create_dir_all(&staging.0).with_context(|| staging.0.display().to_string())?;
        // Of an earlier run without checkpoints.
        match std::fs::remove_file(staging.initial()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| staging.initial().display().to_string())
            }
            _ => Ok(staging),
        }
    }

    /// Copies a finished run from its staging folder to this one, the model last. Removes the results of a previous run, but no other
    /// files. The staging folder is removed last: until then a killed run can be resumed.
    pub fn publish(&self, staging: &Self) -> Result<()> {
        let stale = ["metrics.json", "equity.csv", "trades.csv", "report.html"].map(|name| self.0.join(name));
        for file in stale.into_iter().chain([self.model()]).filter(|file| file.exists()) {
            std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
        }
        let files = [
            (staging.settings(), self.settings()),
            (staging.metrics(), self.metrics()),
            (staging.summary(), self.summary()),
            (staging.model(), self.model()),
        ];
        for (from, to) in files {
            let bytes = std::fs::read(&from).with_context(|| from.display().to_string())?;
            write_atomically(&to, &bytes)?;
        }
        // The rename is the commit point: from here on there is no unfinished run.
        std::fs::rename(&staging.0, self.done()).with_context(|| staging.0.display().to_string())?;
        self.tidy()
    }

    /// The staging folder of a published run, before it is removed.
    fn done(&self) -> PathBuf {
        self.0.join("unfinished.done")
    }

    /// Completes an interrupted `publish`: moves the checkpoints to their place and removes the old staging folder.
    fn tidy(&self) -> Result<()> {
        let done = Self(self.done());
        if !done.0.exists() {
            return Ok(());
        }
        if done.checkpoints().exists() {
            let to = self.checkpoints();
            if to.exists() {
                std::fs::remove_dir_all(&to).with_context(|| to.display().to_string())?;
            }
            std::fs::rename(done.checkpoints(), &to).with_context(|| to.display().to_string())?;
        }
        std::fs::remove_dir_all(&done.0).with_context(|| done.0.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_stays_intact_until_the_next_one_is_complete() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(&parent.path().join("run"));
        let fill = |folder: &Folder, text: &str| {
            for file in [folder.settings(), folder.metrics(), folder.summary(), folder.model()] {
                std::fs::write(file, text).unwrap();
            }
        };
        let staging = folder.stage(false).unwrap();
        fill(&staging, "first");
        folder.publish(&staging).unwrap();
        std::fs::write(folder.report(), "report").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        let error = folder.stage(false).unwrap_err().to_string();
        assert!(error.contains("config.toml") && error.contains("--force"), "{error}");
        let staging = folder.stage(true).unwrap();
        fill(&staging, "second");
        assert_eq!(std::fs::read_to_string(folder.model()).unwrap(), "first");
        assert!(folder.report().exists());
        folder.publish(&staging).unwrap();
        assert_eq!(std::fs::read_to_string(folder.model()).unwrap(), "second");
        assert!(!folder.report().exists() && !staging.path().exists());
        assert!(folder.path().join("notes.txt").exists());
    }

    #[test]
    fn a_finished_run_is_reopened_only_to_train_it_further() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(&parent.path().join("run"));
        let staging = folder.stage(false).unwrap();
        for file in [staging.settings(), staging.metrics(), staging.summary(), staging.model()] {
            std::fs::write(file, "finished").unwrap();
        }
        let write_checkpoint = |folder: &Folder| {
            std::fs::create_dir_all(folder.checkpoints()).unwrap();
            std::fs::write(folder.checkpoints().join("last"), "state").unwrap();
        };
        write_checkpoint(&staging);
        assert_eq!(folder.resumable(true).unwrap().path(), staging.path(), "the interrupted run goes first");
        folder.publish(&staging).unwrap();
        let error = folder.resumable(false).unwrap_err().to_string();
        assert!(error.contains("no unfinished run") && error.contains("--iterations"), "{error}");
        assert_eq!(folder.resumable(true).unwrap().path(), folder.path());
        let reopened = folder.reopen().unwrap();
        assert_eq!(std::fs::read_to_string(reopened.checkpoints().join("last")).unwrap(), "state");
        assert_eq!(std::fs::read_to_string(reopened.metrics()).unwrap(), "finished");
        assert!(folder.model().exists() && folder.checkpoints().join("last").exists());
        std::fs::remove_dir_all(reopened.path()).unwrap();
        std::fs::remove_dir_all(folder.checkpoints()).unwrap();
        let error = folder.resumable(true).unwrap_err().to_string();
        assert!(error.contains("without checkpoints") && error.contains("--init"), "{error}");
    }

    #[test]
    fn an_unfinished_run_is_not_lost_by_accident() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(&parent.path().join("run"));
        let error = folder.unfinished().unwrap_err().to_string();
        assert!(error.contains("no unfinished run"), "{error}");
        let staging = folder.stage(false).unwrap();
        std::fs::write(staging.settings(), "settings").unwrap();
        std::fs::create_dir(staging.checkpoints()).unwrap();
        let error = folder.stage(false).unwrap_err().to_string();
        assert!(error.contains("--resume") && error.contains("--force"), "{error}");
        assert_eq!(folder.unfinished().unwrap().settings(), staging.settings());
        assert!(!folder.stage(true).unwrap().checkpoints().exists());
    }

    #[test]
    fn a_run_killed_during_publish_is_complete_or_can_be_resumed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(&parent.path().join("run"));
        let staging = folder.stage(false).unwrap();
        for file in [staging.settings(), staging.metrics(), staging.summary(), staging.model()] {
            std::fs::write(file, "finished").unwrap();
        }
        std::fs::create_dir(staging.checkpoints()).unwrap();
        std::fs::write(staging.checkpoints().join("last"), "state").unwrap();
        // Before the rename, the unfinished run is intact.
        std::fs::copy(staging.settings(), folder.settings()).unwrap();
        assert!(folder.unfinished().unwrap().checkpoints().join("last").exists());
        // After the rename, the run is finished, and the next command tidies up.
        std::fs::rename(&staging.0, folder.done()).unwrap();
        assert!(folder.unfinished().unwrap_err().to_string().contains("no unfinished run"));
        assert_eq!(std::fs::read_to_string(folder.checkpoints().join("last")).unwrap(), "state");
        assert!(!folder.done().exists());
    }
}
