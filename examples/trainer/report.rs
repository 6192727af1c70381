//! The report of a run: one self-contained HTML file without scripts or network access.

mod audits;
mod axis;
mod charts;
mod comparison;
mod definitions;
mod format;
mod luck;
mod page;
mod plot;
mod tearsheet;
mod words;

pub use comparison::comparison_page;

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::civil::DateTime;
use phalanx::backtest::{Backtest, Metrics};
use phalanx::research::Assessment;

use crate::audit::Record;

/// Metrics recorded during training.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainingCurves {
    /// Environment steps at each record.
    pub env_steps: Vec<f64>,
    /// Name, caption of one sentence, and one value per record. A non-finite value is a gap.
    pub curves: Vec<(String, String, Vec<f64>)>,
}

/// One test part of a walk.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldRow {
    /// First and last training bar, if its agents have them in common.
    pub train: Option<(DateTime, DateTime)>,
    /// First and last test bar.
    pub test: (DateTime, DateTime),
    /// Metrics of the agents on the test bars.
    pub agents: Metrics,
    /// Metrics of buy-and-hold on the test bars.
    pub buy_and_hold: Metrics,
    /// Time at which the agents' account was closed for good, if it was.
    pub bankrupt_at: Option<DateTime>,
}

/// Facts needed to judge or reproduce the run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunInfo {
    /// Name of the run, shown above the headline.
    pub title: String,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The GPU and its backend.
    pub adapter: String,
    /// Storage type of the networks.
    pub precision: String,
    /// Trainable parameters of all networks.
    pub parameters: u64,
    /// Environment steps trained on.
    pub env_steps: u64,
    /// Wall-clock time of the training.
    pub wall_time: Duration,
    /// First and last bar of the training data, those that chose the model included.
    pub training_period: Option<(DateTime, DateTime)>,
    /// Whether some of the traded bars trained or chose a model.
    pub known: bool,
    /// Version of the crate.
    pub version: String,
    /// Folds of a walk-forward test; empty without one.
    pub folds: Vec<FoldRow>,
    /// The latest audit of the run.
    pub audit: Option<Record>,
    /// Further facts: name, value.
    pub more: Vec<(String, String)>,
}

/// Renders the report as one self-contained HTML document. `in_sample` is the same policy on the bars that it was trained on.
/// `assessment` says whether the result is more than luck, or why that is not known.
///
/// # Errors
/// If the length of a training curve differs from that of `env_steps`, or a plot cannot be drawn.
pub fn render(
    backtest: &Backtest,
    in_sample: Option<&Backtest>,
    assessment: Result<&Assessment, &str>,
    training: &TrainingCurves,
    run: &RunInfo,
) -> Result<String> {
    for (name, _, values) in &training.curves {
        let (got, wanted) = (values.len(), training.env_steps.len());
        ensure!(got == wanted, "training curve `{name}` has {got} values for {wanted} records of env_steps");
    }
    Ok(page::page(backtest, in_sample, assessment, training, run)?.into_string())
}

#[cfg(test)]
pub mod tests;
