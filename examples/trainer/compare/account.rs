//! The account of a backtest, or of a live policy.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use jiff::civil::DateTime;
use phalanx::market::parse_timestamp;

use crate::checked;
use crate::live::journal;

/// Most bytes of `equity.csv`.
const MOST_BYTES: u64 = 4 << 30;

/// The equity of an account at the closes of bars.
pub struct Account {
    pub name: String,
    pub timestamps: Vec<DateTime>,
    pub equity: Vec<f64>,
}

impl Account {
    /// Reads `equity.csv` of a folder, or a journal.
    pub fn read(run: &Path) -> Result<Self> {
        if run.is_file() { Self::of_journal(run) } else { Self::of_folder(run) }
    }

    fn of_journal(path: &Path) -> Result<Self> {
        let decided = journal::account(path)?;
        ensure!(
            !decided.is_empty(),
            "{} holds no decisions: an earlier version wrote it, or the features still lack history",
            path.display()
        );
        let (timestamps, equity): (Vec<_>, Vec<_>) = decided.into_iter().unzip();
        if let Some(place) = equity.iter().position(|equity| !equity.is_finite()) {
            bail!("{}: the equity at {} is {}, not finite", path.display(), timestamps[place], equity[place]);
        }
        if let Some(place) = timestamps.windows(2).position(|pair| pair[0] >= pair[1]) {
            bail!(
                "{}: the bar of {} is not later than the one before",
                path.display(),
                timestamps[place + 1]
            );
        }
        Ok(Self { name: path.display().to_string(), timestamps, equity })
    }

    fn of_folder(run: &Path) -> Result<Self> {
        let path = run.join("equity.csv");
        ensure!(
            path.exists(),
            "{} holds no account: run `trainer backtest` or `trainer walk-forward` first",
            run.display()
        );
        let mut reader = csv::Reader::from_reader(checked::open(&path, MOST_BYTES)?);
        let header = reader.headers().with_context(|| path.display().to_string())?.clone();
        let column = |name: &str| {
            let place = header.iter().position(|field| field == name);
            place.with_context(|| format!("{}: there is no column `{name}`", path.display()))
        };
        let [time, value] = [column("timestamp")?, column("equity")?];
        let (mut timestamps, mut equity) = (Vec::new(), Vec::new());
        for row in reader.records() {
            let row = row.with_context(|| path.display().to_string())?;
            let line = row.position().map_or(0, csv::Position::line);
            let place = || format!("{}:{line}", path.display());
            let number: f64 =
                row[value].parse().with_context(|| format!("{}: `equity` is not a number", place()))?;
            ensure!(number.is_finite(), "{}: `equity` is {number}, not finite", place());
            let moment = parse_timestamp(&row[time]).with_context(place)?;
            ensure!(
                timestamps.last().is_none_or(|last| *last < moment),
                "{}: not later than the line before",
                place()
            );
            timestamps.push(moment);
            equity.push(number);
        }
        Ok(Self { name: run.display().to_string(), timestamps, equity })
    }
}
