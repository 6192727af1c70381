//! Reads candles, and says what was found.

use std::path::PathBuf;

use anyhow::Result;
use phalanx::market::Candles;

use crate::console::{busy, note};
use crate::run::DataSettings;

/// Reads candles and prints to standard error what was recognised, corrected and suspected.
pub fn load(paths: &[PathBuf], settings: &DataSettings) -> Result<Candles> {
    busy("reading the candles");
    let loaded = Candles::load_with(paths, &settings.load_options())?;
    loaded.report.findings().iter().for_each(|line| note!("Data      {line}"));
    loaded.report.warnings().iter().for_each(|line| note!("warning: {line}"));
    Ok(loaded.candles)
}
