//! Retention of a run's snapshots: the latest few, and the best.

use std::path::{Path, PathBuf};

use super::format::read_metadata;
use crate::files::{create_folders, remove_file, remove_stale};
use crate::mappo::Trainer;
use crate::{Error, Result};

/// A folder of snapshots: the latest few, and the best.
#[derive(Clone, Debug)]
pub struct Snapshots {
    folder: PathBuf,
    keep: usize,
}

const BEST: &str = "best.safetensors";

impl Snapshots {
    /// Opens `folder`, creating it if needed, in which the latest `keep` (at least one) snapshots are kept. Removes temporary files
    /// that a crash left behind.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(folder: &Path, keep: usize) -> Result<Self> {
        create_folders(folder)?;
        remove_stale(folder)?;
        Ok(Self { folder: folder.into(), keep: keep.max(1) })
    }

    /// Saves a snapshot of the trainer, also as the best one if `score` exceeds all earlier scores.
    ///
    /// # Errors
    /// As [`Trainer::save`].
    pub fn save(&self, trainer: &Trainer, score: Option<f64>) -> Result<()> {
        // The best first: if the process ends in between, the iteration is repeated, and with it the evaluation.
        if let Some(score) = score {
            let best = self.folder.join(BEST);
            let before = match best.exists().then(|| read_metadata(&best)) {
                Some(Ok(metadata)) => metadata.score,
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot read the best snapshot so far; replacing it");
                    None
                }
                None => None,
            };
            if before.is_none_or(|before| score > before) {
                trainer.save(&best, Some(score))?;
            }
        }
        trainer
            .save(&self.folder.join(format!("iteration-{:09}.safetensors", trainer.iteration())), score)?;
        let mut all = self.all()?;
        all.truncate(all.len().saturating_sub(self.keep));
        all.iter().try_for_each(|path| remove_file(path))
    }

    /// The latest intact snapshot. Logs a warning for every later one that is not.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] if there are snapshots but none is intact.
    pub fn latest(&self) -> Result<Option<PathBuf>> {
        let mut fault = None;
        for path in self.all()?.into_iter().rev() {
            match read_metadata(&path) {
                Ok(_) => return Ok(Some(path)),
                Err(error) => {
                    tracing::warn!(%error, "skipping a damaged snapshot");
                    fault.get_or_insert(error);
                }
            }
        }
        fault.map_or(Ok(None), Err)
    }

    /// The snapshot with the highest score.
    #[must_use]
    pub fn best(&self) -> Option<PathBuf> {
        Some(self.folder.join(BEST)).filter(|path| path.exists())
    }

    /// All snapshots, oldest first.
    fn all(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.folder).map_err(Error::io(&self.folder))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut paths = paths.collect::<std::io::Result<Vec<_>>>().map_err(Error::io(&self.folder))?;
        paths.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("iteration-") && name.ends_with(".safetensors")
        });
        paths.sort();
        Ok(paths)
    }
}
