//! `training.json`: the summary of a finished training.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use phalanx::files::write_atomically;
use serde::{Deserialize, Serialize};

use crate::checked::{Fault, from_json, range, read_text};

/// Most bytes of the file.
const MOST_BYTES: u64 = 1 << 20;

/// Longest training in seconds: three thousand years.
const LONGEST: f64 = 1e11;

/// Summary of a finished training, `training.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// GPU and backend.
    pub adapter: String,
    /// Environment steps trained on.
    pub env_steps: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Planned GPU memory in bytes.
    pub gpu_bytes: u64,
    /// Iteration whose policy became the model; missing in older files.
    #[serde(default)]
    pub model_iteration: Option<u32>,
    /// Return of that policy over the evaluation bars, with greedy actions, if it was chosen by it.
    #[serde(default)]
    pub model_score: Option<f64>,
    /// Checksum of the candles up to the last held-out bar; missing in older files.
    #[serde(default)]
    pub candles: Option<String>,
    /// Whether it began from the weights of a model (`--init`); missing in older files.
    #[serde(default)]
    pub from_weights: bool,
}

impl Summary {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&read_text(path, MOST_BYTES)?).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let summary: Self = from_json(text)?;
        match summary.check() {
            Ok(()) => Ok(summary),
            Err(Fault { key, reason }) => anyhow::bail!("`{key}`: {reason}"),
        }
    }

    fn check(&self) -> Result<(), Fault> {
        range("seconds", self.seconds, 0.0..=LONGEST)
    }

    /// Writes the file once it was read back.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context("writing training.json")?;
        let back = Self::parse(&json).context("training.json could not be read back")?;
        ensure!(back == *self, "training.json could not be read back: a number in it is not finite");
        Ok(write_atomically(path, json.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_when_read_and_before_writing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("training.json");
        let summary = Summary {
            adapter: "llvmpipe".into(),
            env_steps: 64,
            seconds: 9.1,
            gpu_bytes: 1 << 20,
            model_iteration: None,
            model_score: Some(1.5),
            candles: Some("0123abcd".into()),
            from_weights: true,
        };
        summary.write(&path).unwrap();
        assert_eq!(Summary::read(&path).unwrap(), summary);
        let good = std::fs::read_to_string(&path).unwrap();
        for (key, old, new, wanted) in [
            ("seconds", "9.1", "1e300", "`seconds`: 1e300 is out of range: from 0 to 100000000000"),
            ("seconds", "9.1", "-1", "`seconds`: -1 is out of range"),
            ("seconds", "9.1", "1e400", "`seconds`: "),
            ("seconds", "9.1", "null", "`seconds`: "),
            ("env_steps", "64", "-64", "`env_steps`: "),
            ("env_steps", "64", "1e30", "`env_steps`: "),
            ("model_iteration", "null", "4294967296", "`model_iteration`: "),
        ] {
            let forged = good.replace(&format!("\"{key}\": {old}"), &format!("\"{key}\": {new}"));
            assert_ne!(forged, good);
            std::fs::write(&path, forged).unwrap();
            let error = format!("{:#}", Summary::read(&path).unwrap_err());
            assert!(error.contains("training.json: ") && error.contains(wanted), "{error}");
        }
        std::fs::write(&path, &good).unwrap();
        for broken in [
            Summary { seconds: f64::NAN, ..summary.clone() },
            Summary { model_score: Some(f64::NAN), ..summary.clone() },
        ] {
            let error = format!("{:#}", broken.write(&path).unwrap_err());
            assert!(error.contains("could not be read back"), "{error}");
        }
        assert_eq!(Summary::read(&path).unwrap(), summary, "the file is as it was");
        #[cfg(unix)]
        Summary::read(Path::new("/dev/zero")).unwrap_err();
    }
}
