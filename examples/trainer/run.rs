//! Settings of a run.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::ToSpan;
use jiff::civil::DateTime;
use phalanx::backtest::PeriodsPerYear;
use phalanx::env::TradingSettings;
use phalanx::mappo::Config;
use phalanx::market::{Adjust, Candles, GapPolicy, LoadLimits, LoadOptions, parse_timestamp};
use serde::{Deserialize, Serialize};

use crate::checked::{Fault, range};
use crate::settings::{Given, resolve};

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
    /// Decisions on live bars.
    pub live: LiveSettings,
    /// The quick check of a model.
    pub validate: ValidateSettings,
    /// Records of training beside `metrics.csv`.
    pub logging: LoggingSettings,
}

impl Settings {
    /// The defaults, overridden by a file and by `key=value` of `sets`. All ranges are checked, before anything else is done.
    pub fn read(file: Option<&Path>, sets: &[String]) -> Result<Self> {
        Self::read_with(file, sets, &[])
    }

    /// The same, overridden by `more`.
    pub fn read_with(file: Option<&Path>, sets: &[String], more: &[Given]) -> Result<Self> {
        resolve(file, sets, more, Self::check)
    }

    /// The settings that a run was trained with, of which backtests use those of the data: only these are checked.
    pub fn of_run(path: &Path, limits: &[String]) -> Result<Self> {
        only_limits(limits)?;
        resolve(Some(path), limits, &[], |settings: &Self| settings.data.check())
    }

    /// The settings of a run that decisions on live bars use.
    pub fn of_live(path: &Path, sets: &[String]) -> Result<Self> {
        resolve(Some(path), sets, &[], |settings: &Self| {
            settings.data.check()?;
            settings.live.check()?;
            settings.validate.check()
        })
    }

    fn check(&self) -> Result<(), Fault> {
        self.data.check()?;
        self.live.check()?;
        self.validate.check()?;
        self.market.validate().map_err(|error| Fault::of("market", error))?;
        self.mappo.validate().map_err(|error| Fault::of("mappo", error))?;
        range("checkpoints.keep", self.checkpoints.keep as f64, 1.0..=1e6)?;
        range("evaluation.fraction", self.evaluation.fraction, 0.01..=0.9)
    }
}

/// Prefixes of limits on candle files.
const LIMITS: &str = "data.limits.";

/// Checks that `sets` hold nothing but limits on candle files, with which a run may be used again.
pub fn only_limits(sets: &[String]) -> Result<()> {
    only(sets, &[LIMITS], "a run keeps its settings, apart from limits on candle files")
}

/// Checks that `sets` hold nothing but settings of decisions on live bars, and limits on candle files.
pub fn only_live(sets: &[String]) -> Result<()> {
    only(sets, &["live.", LIMITS], "a run keeps its settings, apart from some")
}

/// The same with the thresholds of the quick check of a model.
pub fn only_validate(sets: &[String]) -> Result<()> {
    only(sets, &["validate.", "live.", LIMITS], "a run keeps its settings, apart from some")
}

/// Checks that the names of all settings begin with one of `prefixes`, for a reason.
pub fn only(sets: &[String], prefixes: &[&str], reason: &str) -> Result<()> {
    let known = |set: &str| prefixes.iter().any(|prefix| set.trim_start().starts_with(prefix));
    match sets.iter().find(|set| !known(set)) {
        None => Ok(()),
        Some(other) => {
            anyhow::bail!("--set {other}: {reason}, whose names begin with `{}`", prefixes.join("` or `"))
        }
    }
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

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self { every: 0, fraction: 0.2, model: ChosenModel::default() }
    }
}

/// Decisions on live bars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LiveSettings {
    /// Longest time that a decision may take, in milliseconds; longer ones are counted as violations.
    pub latency_limit_ms: f64,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self { latency_limit_ms: 100.0 }
    }
}

impl LiveSettings {
    fn check(&self) -> Result<(), Fault> {
        range("live.latency_limit_ms", self.latency_limit_ms, 0.001..=3.6e6)
    }
}

/// Thresholds of the quick check of a model (`trainer validate`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidateSettings {
    /// Longest time of the whole check, in seconds.
    pub seconds: f64,
    /// Least mean return of the episodes.
    pub min_return: f64,
    /// Largest drawdown of an episode, as a fraction.
    pub max_drawdown: f64,
    /// Largest fraction of decisions that take longer than `live.latency_limit_ms`.
    pub max_violations: f64,
    /// Least fraction of actions that are the same on the CPU and on the device.
    pub min_device_agreement: f64,
    /// Least fraction of actions that are the same in f16 and in f32.
    pub min_f16_agreement: f64,
}

impl Default for ValidateSettings {
    /// Of the account only ruin fails: fifty steps say little of a return.
    fn default() -> Self {
        Self {
            seconds: 5.0,
            min_return: -0.2,
            max_drawdown: 0.5,
            max_violations: 0.01,
            min_device_agreement: 0.999,
            min_f16_agreement: 0.95,
        }
    }
}

impl ValidateSettings {
    fn check(&self) -> Result<(), Fault> {
        range("validate.seconds", self.seconds, 0.001..=3600.0)?;
        range("validate.min_return", self.min_return, -1.0..=1e6)?;
        for (key, value) in [
            ("validate.max_drawdown", self.max_drawdown),
            ("validate.max_violations", self.max_violations),
            ("validate.min_device_agreement", self.min_device_agreement),
            ("validate.min_f16_agreement", self.min_f16_agreement),
        ] {
            range(key, value, 0.0..=1.0)?;
        }
        Ok(())
    }
}

/// Checkpoint settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Iterations between two checkpoints; 0 disables them, but for one of the best policy so far and one when training is
    /// interrupted, which are removed at its end.
    pub every: u32,
    /// Number of latest checkpoints to keep, at least 1.
    pub keep: usize,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { every: 50, keep: 3 }
    }
}

/// Records of training beside `metrics.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingSettings {
    /// Whether events for TensorBoard are written to the run's folder.
    pub tensorboard: bool,
    /// Iterations from one whose phases are timed to the next; 0: never.
    pub phase_times_every: u32,
}

impl Default for LoggingSettings {
    fn default() -> Self {
        Self { tensorboard: true, phase_times_every: 50 }
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
    /// Date of the last held-out bar, a day counting whole; by default the last bar.
    pub test_to: Option<String>,
    /// Date of the first training bar; by default the first bar.
    pub train_from: Option<String>,
    /// Date of the last training bar, a day counting whole; by default the last one before the held-out bars.
    pub train_to: Option<String>,
    /// Periods that are held out instead of the last bars, in ascending order: the dates of the first and the last bar of each, a day
    /// counting whole. Training goes on before, between and after them.
    pub held_out: Vec<[String; 2]>,
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
            test_to: None,
            train_from: None,
            train_to: None,
            held_out: Vec::new(),
            periods_per_year: None,
        }
    }
}

impl DataSettings {
    fn check(&self) -> Result<(), Fault> {
        range("data.train_fraction", self.train_fraction, 0.0001..=0.9999)?;
        for (key, date) in [
            ("data.test_from", &self.test_from),
            ("data.test_to", &self.test_to),
            ("data.train_from", &self.train_from),
            ("data.train_to", &self.train_to),
        ] {
            if let Some(date) = date {
                parse_timestamp(date).map_err(|error| Fault::new(key, error))?;
            }
        }
        for date in self.held_out.iter().flatten() {
            parse_timestamp(date).map_err(|error| Fault::new("data.held_out", error))?;
        }
        if !self.held_out.is_empty() && (self.test_from.is_some() || self.train_to.is_some()) {
            let reason =
                "the periods say which bars are held out; leave out `data.test_from` and `data.train_to`";
            return Err(Fault::new("data.held_out", reason));
        }
        if let Some(value) = self.periods_per_year {
            PeriodsPerYear::given(value).map_err(|error| Fault::of("data", error))?;
        }
        Ok(())
    }

    /// The options of reading candle files.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions { gaps: self.gaps, adjust: self.adjust, limits: self.limits.clone() }
    }

    /// The bars from `train_from` to `test_to`.
    pub fn bars(&self, candles: &Candles) -> Result<Range<usize>> {
        let start = match &self.train_from {
            Some(date) => {
                candles.index_at_or_after(parse_timestamp(date).context("setting `data.train_from`")?)
            }
            None => 0,
        };
        let end = match &self.test_to {
            Some(date) => candles.index_at_or_after(end_of(date).context("setting `data.test_to`")?),
            None => candles.bars(),
        };
        Ok(start..end)
    }
}

/// The first moment after `text`; a day counts whole.
pub fn end_of(text: &str) -> Result<DateTime> {
    let moment = parse_timestamp(text)?;
    let digits = text.trim().chars().all(|character| character.is_ascii_digit());
    // 20240229, or ten characters with separators; ten digits are seconds.
    let day = matches!((text.trim().len(), digits), (8, true) | (10, false));
    let step = if day { 1.day() } else { 1.nanosecond() };
    Ok(moment.checked_add(step)?)
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
