//! The policy that becomes the model of a run.

use std::ffi::OsString;

use anyhow::Result;
use phalanx::mappo::snapshot::read_metadata;
use phalanx::mappo::{Snapshots, Trainer};
use phalanx::market::{Candles, MarketData, ScalingStatistics};
use phalanx::policy::Policy;

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

/// The latest intact snapshot of a run to resume.
pub struct Latest {
    /// The name of its file.
    name: OsString,
    /// The statistics with which the run scales the features of the candles at hand. `None` if its files have none: they are of an older
    /// version, or the candles are of other instruments.
    pub scaling: Option<ScalingStatistics>,
}

impl Latest {
    /// `None` if no snapshot was saved yet.
    pub fn of(run: &Folder, candles: &Candles) -> Result<Option<Self>> {
        if !run.checkpoints().exists() {
            return Ok(None);
        }
        let Some(latest) = Snapshots::open(&run.checkpoints(), 1)?.latest()? else { return Ok(None) };
        let of_model = || Some(Policy::load(&run.model()).ok()?.market().ok()?.scaling.clone());
        let scaling = read_metadata(&latest)?.scaling.or_else(of_model);
        let name = latest.file_name().unwrap_or_default().to_os_string();
        Ok(Some(Self { name, scaling: scaling.filter(|scaling| scaling.symbols == candles.symbols) }))
    }
}

/// Resumes from the latest snapshot of an interrupted run on `data`; without one, from the weights that it was started with, if any. Returns
/// the best policy so far, if the best is to be chosen.
pub fn resume(
    trainer: &mut Trainer,
    run: &Folder,
    latest: Option<&Latest>,
    data: &MarketData,
    choose: bool,
) -> Result<Option<Candidate>> {
    let Some(latest) = latest else {
        if run.initial().exists() {
            trainer.load_weights(&run.initial())?;
        }
        return Ok(None);
    };
    let mut best: Option<Candidate> = None;
    if let Some(path) =
        choose.then(|| Snapshots::open(&run.checkpoints(), 1)).transpose()?.and_then(|it| it.best())
    {
        match trainer.resume_market(&path, data) {
            Ok(metadata) => {
                best = metadata.score.map(|score| Candidate::of(trainer, Some(score))).transpose()?
            }
            Err(error @ phalanx::Error::Checkpoint { .. }) => {
                note!("warning: the best policy so far is lost: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let metadata = trainer.resume_market(&run.checkpoints().join(&latest.name), data)?;
    if choose && metadata.score > best.as_ref().and_then(|best| best.score) {
        best = Some(Candidate::of(trainer, metadata.score)?);
    }
    Ok(best)
}
