//! The ledger of trials: every account that was traded on held-out bars, so that a good one can be judged by the number of tries.
//!
//! The ledger is a file of JSON lines beside the runs, one line per trial. Every line has a checksum of itself and of all lines before
//! it, and whoever records a trial gets a [`Receipt`] to keep elsewhere: a line that was changed or removed is found.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::{DeflatedSharpe, ReturnStatistics, SharpeEstimate};
use crate::backtest::{Backtest, returns};
use crate::files::write_atomically;
use crate::market::Candles;
use crate::{Error, Result};

/// Most bytes of a ledger.
const MOST_BYTES: u64 = 1 << 30;

/// Most returns of a trial that are kept; longer accounts are kept in steps of several bars.
const MOST_RETURNS: usize = 20_000;

/// An account traded on held-out bars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Trial {
    /// The command that traded it, such as `backtest`.
    pub command: String,
    /// Name of the run.
    pub run: String,
    /// Checksum of the settings that the agents were trained with.
    pub settings: String,
    /// Symbols of the instruments.
    pub symbols: Vec<String>,
    /// Checksum of the candles that were traded.
    pub candles: String,
    /// First bar.
    pub from: DateTime,
    /// Last bar.
    pub to: DateTime,
    /// Moments of the returns of all bars.
    pub statistics: ReturnStatistics,
    /// Total return.
    pub total_return: f64,
    /// Bars of one of the `returns`.
    pub bars_per_return: usize,
    /// Simple returns, at most 20,000.
    pub returns: Vec<f64>,
}

impl Trial {
    /// The trial of `backtest`, which traded `bars` of `candles`; `settings` are all that the agents were trained with, as text.
    ///
    /// # Errors
    /// [`Error::Shape`] if `bars` are not those of the backtest, [`Error::Data`] if the account has fewer than two returns.
    pub fn new(
        command: &str,
        run: &str,
        settings: &str,
        candles: &Candles,
        bars: Range<usize>,
        backtest: &Backtest,
    ) -> Result<Self> {
        if candles.timestamps.get(bars.clone()) != Some(&backtest.timestamps[..]) {
            return Err(Error::shape("bars of the trial", "those of the backtest", format!("{bars:?}")));
        }
        let (Some(from), Some(to)) = (backtest.timestamps.first(), backtest.timestamps.last()) else {
            return Err(Error::Data("a trial has at least two bars".into()));
        };
        let statistics = ReturnStatistics::new(&backtest.returns())?;
        let bars_per_return = (backtest.equity.len() - 1).div_ceil(MOST_RETURNS).max(1);
        let kept: Vec<f64> = backtest.equity.iter().copied().step_by(bars_per_return).collect();
        Ok(Self {
            command: command.into(),
            run: run.into(),
            settings: format!("{:08x}", crc32fast::hash(settings.as_bytes())),
            symbols: backtest.symbols.clone(),
            candles: candles.checksum(bars),
            from: *from,
            to: *to,
            statistics,
            total_return: backtest.metrics.total_return,
            bars_per_return,
            returns: returns(&kept),
        })
    }

    /// Whether this is another trade of the same account: the same bars with the same result.
    fn repeats(&self, other: &Self) -> bool {
        self.candles == other.candles && self.statistics == other.statistics && self.returns == other.returns
    }

    /// Whether both were chosen among with the same bars in view: the same instruments in overlapping periods, in bars of one length.
    fn competes(&self, other: &Self) -> bool {
        let ratio = self.spacing() / other.spacing();
        self.symbols == other.symbols
            && self.from < other.to
            && other.from < self.to
            && (0.8..=1.25).contains(&ratio)
    }

    /// Mean seconds from a bar to the next; Sharpe ratios of bars of other lengths cannot be compared.
    fn spacing(&self) -> f64 {
        self.to.duration_since(self.from).as_secs_f64() / self.statistics.bars as f64
    }
}

/// The place of a trial in the ledger, kept beside its results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Number of the trial, from 1.
    pub trial: usize,
    /// Checksum of the ledger up to this trial.
    pub checksum: String,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<T> {
    checksum: String,
    trial: T,
}

/// The ledger of trials.
#[derive(Debug)]
pub struct Trials {
    path: PathBuf,
    text: String,
    trials: Vec<Trial>,
    checksums: Vec<String>,
    _lock: File,
}

impl Trials {
    /// Opens the ledger in `path`, which may not exist yet. Until it is dropped, other processes wait.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] with the line if the file is no ledger, or a trial in it was changed or removed.
    pub fn open(path: &Path) -> Result<Self> {
        let beside = path.with_extension("lock");
        let mut options = File::options();
        let lock =
            options.create(true).truncate(false).write(true).open(&beside).map_err(Error::io(&beside))?;
        lock.lock().map_err(Error::io(&beside))?;
        let text = match path.try_exists().map_err(Error::io(path))? {
            true => crate::bounded::read(path, MOST_BYTES)?,
            false => Vec::new(),
        };
        let fault = |line: usize, reason: String| {
            Error::Data(format!(
                "{}:{line}: {reason}; restore the file from a backup",
                crate::text::path(path)
            ))
        };
        let text = String::from_utf8(text).map_err(|_| fault(1, "not a text file".into()))?;
        let (mut trials, mut checksums): (Vec<Trial>, Vec<String>) = Default::default();
        for (index, line) in text.lines().enumerate() {
            let Line { checksum, trial } = serde_json::from_str::<Line<Trial>>(line)
                .map_err(|error| fault(index + 1, format!("not a trial ({error})")))?;
            if chained(checksums.last(), &trial)? != checksum {
                return Err(fault(index + 1, "checksum mismatch: a trial was changed or removed".into()));
            }
            trials.push(trial);
            checksums.push(checksum);
        }
        Ok(Self { path: path.into(), text, trials, checksums, _lock: lock })
    }

    /// All trials, oldest first.
    #[must_use]
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// Records a trial. One that repeats another, the same account on the same bars, is not counted twice.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] if the trial holds a number that is not finite. The file is unchanged then.
    pub fn record(&mut self, trial: Trial) -> Result<Receipt> {
        if let Some(known) = self.trials.iter().position(|other| trial.repeats(other)) {
            return Ok(Receipt { trial: known + 1, checksum: self.checksums[known].clone() });
        }
        let checksum = chained(self.checksums.last(), &trial)?;
        let line = json(&Line { checksum: checksum.clone(), trial: &trial })?;
        if serde_json::from_str::<Line<Trial>>(&line).map_or(true, |back| back.trial != trial) {
            return Err(Error::Data("a trial with numbers that are not finite cannot be recorded".into()));
        }
        let text = format!("{}{line}\n", self.text);
        write_atomically(&self.path, text.as_bytes())?;
        self.text = text;
        self.trials.push(trial);
        self.checksums.push(checksum.clone());
        Ok(Receipt { trial: self.trials.len(), checksum })
    }

    /// Whether the ledger still has the trial of a receipt.
    #[must_use]
    pub fn holds(&self, receipt: &Receipt) -> bool {
        let index = receipt.trial.checked_sub(1);
        index.and_then(|index| self.checksums.get(index)) == Some(&receipt.checksum)
    }

    /// The trials that compete with `trial`, itself included: those of the same instruments in overlapping periods, in bars of one
    /// length.
    pub fn competing<'a>(&'a self, trial: &'a Trial) -> impl Iterator<Item = &'a Trial> {
        self.trials.iter().filter(|other| trial.competes(other))
    }

    /// The Sharpe ratio of `trial`, deflated by the number of competing trials and the deviation of their ratios. With a single trial it
    /// is the probabilistic Sharpe ratio against 0. `None` if the ratio is undefined, because the account never moved.
    ///
    /// # Errors
    /// [`Error::Data`] if the numbers are too large.
    pub fn deflated(&self, trial: &Trial) -> Result<Option<DeflatedSharpe>> {
        let ReturnStatistics { bars, sharpe, skewness, kurtosis, .. } = trial.statistics;
        let (Some(sharpe), Some(skewness), Some(kurtosis)) = (sharpe, skewness, kurtosis) else {
            return Ok(None);
        };
        let estimate = SharpeEstimate::new(sharpe, bars, skewness, kurtosis)?;
        let ratio = |other: &Trial| other.statistics.sharpe.unwrap_or(0.0);
        let mut sharpes: Vec<f64> = self.competing(trial).map(ratio).collect();
        // It may not be recorded, where the ledger cannot be written.
        if !self.trials.iter().any(|other| other.repeats(trial)) {
            sharpes.push(sharpe);
        }
        estimate.deflated_among(&sharpes).map(Some)
    }
}

fn chained(previous: Option<&String>, trial: &Trial) -> Result<String> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(previous.map_or("", String::as_str).as_bytes());
    crc.update(json(trial)?.as_bytes());
    Ok(format!("{:08x}", crc.finalize()))
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Data(format!("the trial as JSON: {error}")))
}

#[cfg(test)]
#[path = "trials_tests.rs"]
mod tests;
