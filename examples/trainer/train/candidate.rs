//! The policy that becomes the model of a run.

use anyhow::Result;
use phalanx::mappo::{Snapshots, Trainer};

use crate::console::note;
use crate::folder::Folder;

/// A policy that may become the model.
pub struct Candidate {
    pub iteration: u32,
    /// Return over the evaluation bars, if it is chosen by it.
    pub score: Option<f64>,
    pub weights: Vec<f32>,
    pub observation_moments: Vec<[f32; 4]>,
}

impl Candidate {
    pub fn of(trainer: &Trainer, score: Option<f64>) -> Result<Self> {
        let (weights, observation_moments) = (trainer.weights()?, trainer.observation_moments()?);
        Ok(Self { iteration: trainer.iteration(), score, weights, observation_moments })
    }
}

/// Resumes from the latest snapshot of an interrupted run; without one, from the weights that it was started with, if any. Returns the
/// best policy so far, if the best is to be chosen.
pub fn resume(trainer: &mut Trainer, run: &Folder, choose: bool) -> Result<Option<Candidate>> {
    let snapshots = match run.checkpoints().exists() {
        true => Some(Snapshots::open(&run.checkpoints(), 1)?),
        false => None,
    };
    let latest = snapshots.as_ref().map(Snapshots::latest).transpose()?.flatten();
    let Some(latest) = latest else {
        if run.initial().exists() {
            trainer.load_weights(&run.initial())?;
        }
        return Ok(None);
    };
    let mut best: Option<Candidate> = None;
    if let Some(path) = snapshots.as_ref().filter(|_| choose).and_then(Snapshots::best) {
        match trainer.resume(&path) {
            Ok(metadata) => {
                best = metadata.score.map(|score| Candidate::of(trainer, Some(score))).transpose()?
            }
            Err(error @ phalanx::Error::Checkpoint { .. }) => {
                note!("warning: the best policy so far is lost: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let metadata = trainer.resume(&latest)?;
    if choose && metadata.score > best.as_ref().and_then(|best| best.score) {
        best = Some(Candidate::of(trainer, metadata.score)?);
    }
    Ok(best)
}
