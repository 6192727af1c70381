//! The policy that becomes the model of a run.

use std::ffi::OsString;

use anyhow::{Result, bail};
use phalanx::mappo::snapshot::read_metadata;
use phalanx::mappo::{Snapshots, Trainer};
use phalanx::market::{Candles, FEATURES, FILLED, ScalingStatistics};
use phalanx::policy::{Policy, TrainingBars};

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
pub struct LatestSnapshot {
    /// The name of its file.
    name: OsString,
    /// The statistics with which the run scales the features of the candles at hand. `None` if its files have none: they are of an older
    /// version, or of other instruments or features.
    pub scaling: Option<ScalingStatistics>,
}

impl LatestSnapshot {
    /// `None` if no snapshot was saved yet.
    pub fn of(run: &Folder, candles: &Candles) -> Result<Option<Self>> {
        if !run.checkpoints().exists() {
            return Ok(None);
        }
        let Some(latest) = Snapshots::open(&run.checkpoints(), 1)?.latest()? else { return Ok(None) };
        let scaling = match read_metadata(&latest)?.scaling() {
            Some(scaling) => Some(scaling.clone()),
            None => scaling_of_model(run, candles)?,
        };
        let name = latest.file_name().unwrap_or_default().to_os_string();
        Ok(Some(Self { name, scaling: scaling.filter(|scaling| fits(scaling, candles)) }))
    }
}

/// Whether statistics are those of the instruments of `candles` and of this version's features.
fn fits(scaling: &ScalingStatistics, candles: &Candles) -> bool {
    let marked = || FEATURES.iter().chain([&FILLED]);
    scaling.symbols == candles.symbols
        && (scaling.features.iter().eq(FEATURES.iter()) || scaling.features.iter().eq(marked()))
}

/// The statistics of a run's model, for snapshots of older versions. `None` without a model, or with a damaged one.
///
/// # Errors
/// If the model is of bars of another kind than `candles`.
fn scaling_of_model(run: &Folder, candles: &Candles) -> Result<Option<ScalingStatistics>> {
    let path = run.model();
    if !path.exists() {
        return Ok(None);
    }
    let read = || Ok::<_, phalanx::Error>(Policy::load(&path)?.market()?.clone());
    let market = match read() {
        Ok(market) => market,
        Err(error) => {
            note!("warning: the features are scaled by new statistics, not by those of the model: {error}");
            return Ok(None);
        }
    };
    let here = TrainingBars::of(candles);
    if let Some(difference) = market.bars.and_then(|bars| bars.difference(&here)) {
        bail!("{}: the run was trained on other candles: these are {difference}", path.display());
    }
    Ok(Some(market.scaling))
}

/// Resumes from the latest snapshot of an interrupted run; without one, from the weights that it was started with, if any. Returns the best
/// policy so far, if the best is to be chosen.
pub fn resume(
    trainer: &mut Trainer,
    run: &Folder,
    latest: Option<&LatestSnapshot>,
    choose: bool,
) -> Result<Option<Candidate>> {
    let Some(latest) = latest else {
        if run.initial().exists() {
            trainer.load_weights(&run.initial())?;
        }
        return Ok(None);
    };
    let mut best: Option<Candidate> = None;
    let snapshots = choose.then(|| Snapshots::open(&run.checkpoints(), 1)).transpose()?;
    if let Some(path) = snapshots.and_then(|snapshots| snapshots.best()) {
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
    let metadata = trainer.resume(&run.checkpoints().join(&latest.name))?;
    if choose && metadata.score > best.as_ref().and_then(|best| best.score) {
        best = Some(Candidate::of(trainer, metadata.score)?);
    }
    Ok(best)
}
