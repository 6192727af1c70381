//! Settings of a run.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, Result};
use phalanx::env::TradingSettings;
use phalanx::mappo::Config;
use phalanx::market::{Adjust, Candles, GapPolicy, LoadLimits, LoadOptions, Splits, parse_timestamp};
use serde::{Deserialize, Serialize};

use crate::console::note;

/// All settings of a run, in the structure of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Candles and their split.
    pub data: DataSettings,
    /// Market environment.
    pub market: TradingSettings,
    /// Training algorithm.
    pub mappo: Config,
    /// Checkpoints.
    pub checkpoints: CheckpointSettings,
    /// Evaluations during training.
    pub evaluation: EvaluationSettings,
}

/// Evaluations during training, on the last part of the training bars, which is then not trained on. The held-out bars never
/// influence training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationSettings {
    /// Iterations between two evaluations; 0 disables evaluation and trains on all training bars.
    pub every: u32,
    /// Fraction of the training bars that is set aside for evaluation.
    pub fraction: f64,
    /// The policy that becomes the model of the run.
    pub model: ChosenModel,
}

/// The policy that becomes the model of a run with evaluations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChosenModel {
    /// The one with the highest return of greedy actions over the evaluation bars; of equal ones the first.
    #[default]
    Best,
    /// That of the last iteration.
    Last,
}

impl EvaluationSettings {
    /// Splits the training bars into bars to train on and, if evaluation is enabled, bars to evaluate on.
    pub fn cut(&self, bars: Range<usize>) -> Result<(Range<usize>, Option<Range<usize>>)> {
        if self.every == 0 {
            return Ok((bars, None));
        }
        if !(0.01..=0.9).contains(&self.fraction) {
            anyhow::bail!(
                "setting `evaluation.fraction`: {} is out of range: from 0.01 to 0.9",
                self.fraction
            );
        }
        let count = ((bars.len() as f64 * self.fraction).round() as usize).max(2);
        let middle = bars.end.saturating_sub(count).max(bars.start);
        Ok((bars.start..middle, Some(middle..bars.end)))
    }
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self { every: 0, fraction: 0.2, model: ChosenModel::default() }
    }
}

/// Checkpoint settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Iterations between two checkpoints; 0 disables them, but for one of the best policy so far and one when training is
    /// interrupted, which are removed at its end.
    pub every: u32,
    /// Number of latest checkpoints to keep.
    pub keep: usize,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { every: 50, keep: 3 }
    }
}

/// Candles and their split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// Policy for bars that some instruments lack: reject, drop or forward-fill.
    pub gaps: GapPolicy,
    /// Column of adjusted closes: auto (adjust all prices by it) or none (ignore it).
    pub adjust: Adjust,
    /// Limits on the memory that candle files can claim.
    pub limits: LoadLimits,
    /// Fraction of the bars, from the first on, that is used for training; the rest is held out.
    pub train_fraction: f64,
    /// Date of the first held-out bar; replaces `train_fraction`.
    pub test_from: Option<String>,
    /// Bars per year, for annualised metrics; inferred from the timestamps by default.
    pub periods_per_year: Option<f64>,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            gaps: GapPolicy::default(),
            adjust: Adjust::default(),
            limits: LoadLimits::default(),
            train_fraction: 0.75,
            test_from: None,
            periods_per_year: None,
        }
    }
}

impl DataSettings {
    /// Reads the candles and prints what was found.
    pub fn load(&self, paths: &[PathBuf]) -> Result<Candles> {
        load(paths, &LoadOptions { gaps: self.gaps, adjust: self.adjust, limits: self.limits.clone() })
    }

    /// Splits the candles into training and held-out bars.
    pub fn split(&self, candles: &Candles) -> Result<Splits> {
        let splits = match &self.test_from {
            Some(date) => {
                Splits::by_date(candles, parse_timestamp(date).context("setting `data.test_from`")?)
            }
            None => Splits::by_fraction(candles.bars(), self.train_fraction),
        };
        Ok(splits?)
    }
}

/// Reads candles and prints to standard error what was recognised, corrected and suspected.
pub fn load(paths: &[PathBuf], options: &LoadOptions) -> Result<Candles> {
    crate::console::busy("reading the candles");
    let loaded = Candles::load_with(paths, options)?;
    loaded.report.findings().iter().for_each(|line| note!("Data      {line}"));
    loaded.report.warnings().iter().for_each(|line| note!("warning: {line}"));
    Ok(loaded.candles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_round_trip_and_unknown_keys_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let settings: Settings = crate::settings::resolve(
            None,
            &[
                "mappo.gamma=0.9".into(),
                "data.test_from=\"2011-01-03\"".into(),
                "market.shorting=false".into(),
            ],
        )
        .unwrap();
        assert_eq!((settings.mappo.ppo.gamma, settings.market.shorting), (0.9, false));
        crate::settings::write_resolved(&path, &settings).unwrap();
        assert_eq!(crate::settings::resolve::<Settings>(Some(&path), &[]).unwrap(), settings);
        let error = crate::settings::resolve::<Settings>(None, &["mappo.gama=0.9".into()]).unwrap_err();
        assert!(format!("{error:#}").contains("did you mean `mappo.gamma`"), "{error:#}");
    }
}
