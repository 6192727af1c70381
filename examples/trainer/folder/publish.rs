//! Publishes what was written to a staging folder.
//!
//! 1. The staging folder is complete and on the disk, with a marker that lists its files.
//! 2. It is renamed. This is the moment of publication: what was published before is now obsolete, whatever happens next.
//! 3. Obsolete files are removed, the new ones are renamed to their places, and the folder's marker lists them.
//!
//! If the process or the machine ends after step 2, whoever opens the folder next does step 3 again, which skips what is done.
//! The folder itself is not exchanged for another one: it may be a mount point or the working folder of a shell, it has the
//! lock, and it may hold files of the user's.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use phalanx::files::{create_folders, remove_file, remove_folder, rename, sync_folder};

use super::marker::{MARKER, Marker};
use super::{CHECKPOINTS, EVENTS, Folder, Owned, remove_if_empty};

/// A kind of publication.
#[derive(Debug)]
pub struct Publication {
    /// Staging folder while it is written.
    pub unfinished: &'static str,
    /// The same from the moment of publication until its files are in their places.
    pub done: &'static str,
    /// Files that have to be in it.
    pub required: &'static [&'static str],
    /// Whether everything that was published before is obsolete, or only files of the same names.
    replaces_all: bool,
}

pub const FINISHED_RUN: Publication = Publication {
    unfinished: "unfinished",
    done: "unfinished.done",
    required: &super::RUN,
    replaces_all: true,
};

pub const BACKTEST: Publication = Publication {
    unfinished: "backtest.unfinished",
    done: "backtest.done",
    required: &super::RESULTS,
    replaces_all: false,
};

pub const WALK_FORWARD: Publication = Publication {
    unfinished: "walk-forward.unfinished",
    done: "walk-forward.done",
    required: &super::WALK,
    replaces_all: false,
};

pub const AUDIT: Publication = Publication {
    unfinished: "audit.unfinished",
    done: "audit.done",
    required: &super::AUDIT,
    replaces_all: false,
};

const ALL: [&Publication; 4] = [&FINISHED_RUN, &BACKTEST, &WALK_FORWARD, &AUDIT];

/// Whether a publication in this folder was interrupted, or is going on.
pub fn is_pending(folder: &Folder) -> bool {
    ALL.iter().any(|kind| folder.path().join(kind.done).exists())
}

impl Owned {
    /// Publishes a finished run; the backtest of the run before goes with it.
    pub fn publish(&mut self, staging: &Folder) -> Result<()> {
        self.publish_as(&FINISHED_RUN, staging)
    }

    /// Publishes the files of a backtest.
    pub fn publish_results(&mut self, staging: &Folder) -> Result<()> {
        self.publish_as(&BACKTEST, staging)
    }

    /// Publishes the files of a walk-forward test.
    pub fn publish_walk(&mut self, staging: &Folder) -> Result<()> {
        self.publish_as(&WALK_FORWARD, staging)
    }

    /// Publishes the file of an audit.
    pub fn publish_audit(&mut self, staging: &Folder) -> Result<()> {
        self.publish_as(&AUDIT, staging)
    }

    fn publish_as(&mut self, kind: &Publication, staging: &Folder) -> Result<()> {
        for name in kind.required {
            let path = staging.path().join(name);
            ensure!(path.is_file(), "{} is missing: nothing was published", path.display());
        }
        let checkpoints = staging.checkpoint_names()?;
        let events = kind.replaces_all && staging.events().is_file();
        let names = kind.required.iter().copied().chain(events.then_some(EVENTS));
        let files: Vec<_> = names.map(String::from).chain(checkpoints).collect();
        self.without_strangers(files.iter().map(String::as_str))?;
        if staging.checkpoints().exists() {
            sync_folder(&staging.checkpoints())?;
        }
        let marker = Marker::of(files);
        let marker = if kind.replaces_all { marker.of_a_new_run() } else { marker };
        marker.write(staging)?;
        let done = self.folder.path().join(kind.done);
        // Of an earlier publication: empty.
        remove_folder(&done)?;
        rename(staging.path(), &done)?;
        sync_folder(self.folder.path())?;
        self.complete(kind).with_context(|| {
            format!(
                "it is published in {}; the next command that writes to the run moves it into place",
                done.display()
            )
        })
    }

    /// Completes interrupted publications.
    pub(super) fn complete_all(&mut self) -> Result<()> {
        ALL.iter().try_for_each(|kind| self.complete(kind))
    }

    fn complete(&mut self, kind: &Publication) -> Result<()> {
        let folder = self.folder.path().to_path_buf();
        let done = Folder(folder.join(kind.done));
        let Some(new) = Marker::read(&done)? else {
            return self.remove_done(kind, &done);
        };
        let obsolete: Vec<_> = match kind.replaces_all {
            true => self.marker.files.difference(&new.files).cloned().collect(),
            false => Vec::new(),
        };
        // Until all is done, the files of both are ours.
        self.marker.files.extend(new.files.iter().cloned());
        self.marker.write(&self.folder)?;
        for name in &obsolete {
            remove_file(&folder.join(name))?;
        }
        let mut folders = vec![folder.clone()];
        if new.files.iter().any(|name| name.starts_with(CHECKPOINTS)) {
            create_folders(&self.folder.checkpoints())?;
            folders.push(self.folder.checkpoints());
        } else if kind.replaces_all {
            remove_if_empty(&self.folder.checkpoints())?;
        }
        for name in &new.files {
            let (from, to) = (done.path().join(name), folder.join(name));
            // Moved already, if the process ended in between.
            if exists(&from)? {
                rename(&from, &to)?;
            }
            ensure!(exists(&to)?, "{} is missing", to.display());
        }
        for folder in &folders {
            sync_folder(folder)?;
        }
        for name in &obsolete {
            self.marker.files.remove(name);
        }
        if kind.replaces_all {
            self.marker.run = new.run;
        }
        self.marker.write(&self.folder)?;
        remove_file(&done.initial())?;
        remove_if_empty(&done.checkpoints())?;
        remove_file(&done.path().join(MARKER))?;
        self.remove_done(kind, &done)
    }

    /// Removes what is left of a staging folder. Files of the user's in it stay, under the name that it had.
    fn remove_done(&self, kind: &Publication, done: &Folder) -> Result<()> {
        remove_if_empty(done.path())?;
        if done.path().exists() {
            rename(done.path(), &self.folder.path().join(kind.unfinished))?;
        }
        Ok(())
    }
}

/// Whether a file exists; an error is not taken for an answer.
fn exists(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| path.display().to_string())
}
