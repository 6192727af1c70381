//! Checks of everything that the program reads from files: their size before they are read, the ranges of their numbers after.
//!
//! | file | checked by |
//! |---|---|
//! | settings (`--config`, `config.toml`) | [`crate::run::Settings`], with the library's `Config` and `TradingSettings` |
//! | `training.json` | [`crate::summary::Summary`] |
//! | `metrics.csv` | [`crate::metrics`], [`crate::follow`]; curves leave out what no plot can show |
//! | `equity.csv` of runs to compare | [`crate::compare`] |
//! | journals of live policies | [`crate::live::journal`] |
//! | `trial.json`, the ledger of trials | [`crate::assess`], and the library |
//! | `--space`, `sweep.jsonl` | [`crate::sweep`] |
//! | TensorBoard's events | [`crate::tensorboard`] |
//! | models, checkpoints, `--tune` | the library, when it loads them |

use std::fs::File;
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use phalanx::bounded;
use serde::de::DeserializeOwned;

/// A value out of range.
#[derive(Debug)]
pub struct Fault {
    /// Its key, with sections: `data.periods_per_year`.
    pub key: String,
    /// The fault, and what would be right.
    pub reason: String,
}

impl Fault {
    pub fn new(key: impl Into<String>, reason: impl ToString) -> Self {
        Self { key: key.into(), reason: reason.to_string() }
    }

    /// An error of the library about a setting of `section`.
    pub fn of(section: &str, error: phalanx::Error) -> Self {
        match error {
            phalanx::Error::Config { key, reason } => Self::new(format!("{section}.{key}"), reason),
            other => Self::new(section, other),
        }
    }
}

/// Checks that `value` is in `range`; NaN never is.
pub fn range(key: &str, value: f64, range: RangeInclusive<f64>) -> Result<(), Fault> {
    phalanx::ranges::check(key, value, *range.start(), *range.end()).map_err(|error| match error {
        phalanx::Error::Config { key, reason } => Fault::new(key, reason),
        other => Fault::new(key, other),
    })
}

/// Opens a regular file of at most `most` bytes: devices and pipes have no end, or keep a reader waiting.
pub fn open(path: &Path, most: u64) -> Result<File> {
    let about = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    ensure!(about.is_file(), "{} is not a regular file", path.display());
    let bytes = about.len();
    ensure!(
        bytes <= most,
        "{}: {bytes} bytes, expected at most {most}: is this the right file?",
        path.display()
    );
    File::open(path).with_context(|| path.display().to_string())
}

/// Reads text of at most `most` bytes.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    let unreadable = || format!("{}: cannot be read", path.display());
    let bytes = bounded::read(path, most).map_err(|error| match error {
        phalanx::Error::Io { source, .. } => anyhow::Error::new(source).context(unreadable()),
        other => other.into(),
    })?;
    String::from_utf8(bytes).with_context(unreadable)
}

/// Parses JSON; errors name the field.
pub fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    match serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)) {
        Ok(value) => Ok(value),
        Err(error) if error.path().iter().next().is_none() => bail!("{}", error.inner()),
        Err(error) => bail!("`{}`: {}", error.path(), error.inner()),
    }
}
