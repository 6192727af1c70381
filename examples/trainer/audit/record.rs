//! The rows of an audit, and the file that keeps them beside the run.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use jiff::civil::DateTime;
use phalanx::files::write_atomically;
use serde::{Deserialize, Serialize};

use crate::checked::{from_json, read_text};
use crate::folder::{Folder, Owned};

/// Most bytes of the file.
const MOST_BYTES: u64 = 1 << 20;

/// A check with its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub check: String,
    pub figure: String,
    pub verdict: String,
    /// Whether the check was passed; `None` where it only informs, or could not tell.
    pub passed: Option<bool>,
}

impl Row {
    pub fn new(
        check: impl Into<String>,
        figure: impl Into<String>,
        verdict: &str,
        passed: Option<bool>,
    ) -> Self {
        Self { check: check.into(), figure: figure.into(), verdict: verdict.into(), passed }
    }
}

/// The rows of an audit, and the run that they are about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Number of the run.
    pub run: Option<u64>,
    /// First and last bar that was traded.
    pub period: [DateTime; 2],
    pub rows: Vec<Row>,
}

impl Record {
    /// Writes `audit.json` to the run's folder.
    pub fn publish(&self, run: &Path) -> Result<()> {
        let mut owned = Owned::create(run, "audit")?;
        ensure!(
            owned.folder().run_number() == self.run,
            "{} was replaced by another run meanwhile: audit it again",
            run.display()
        );
        let staging = owned.stage_audit()?;
        let text = serde_json::to_vec_pretty(self).context("the audit")?;
        write_atomically(&staging.audit(), &text)?;
        owned.publish_audit(&staging)
    }

    /// The audit of the run in a folder, if it was audited.
    pub fn of(run: &Folder) -> Result<Option<Self>> {
        let path = run.audit();
        if !path.try_exists().with_context(|| path.display().to_string())? {
            return Ok(None);
        }
        let record: Self =
            from_json(&read_text(&path, MOST_BYTES)?).with_context(|| path.display().to_string())?;
        Ok(Some(record).filter(|record| record.run == run.run_number()))
    }
}
