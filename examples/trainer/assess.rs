//! The verdict on an account that was traded on held-out bars, and its entry in the ledger of trials.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ndarray::ArrayView2;
use phalanx::backtest::{Backtest, ReplayOptions};
use phalanx::files::write_atomically;
use phalanx::market::Candles;
use phalanx::research::{Assessment, AssessmentOptions, DeflatedSharpe, Receipt, Trial, Trials, Verdict};

use crate::checked::{from_json, read_text};
use crate::console::{self, note, say};
use crate::folder::Folder;
use crate::run::Settings;

/// The ledger, in the folder that holds the runs.
const LEDGER: &str = "phalanx-trials.jsonl";

/// Fewest bars that are judged: fewer have too few returns for automatic blocks.
pub const LEAST_BARS: usize = 20;

const UNDEFINED: &str = "the returns are too large for its statistics";

/// Most bytes of a receipt.
const MOST_BYTES: u64 = 1 << 16;

/// An account and how it was traded.
pub struct Traded<'a> {
    /// The command, for the ledger.
    pub command: &'a str,
    /// The name of the run, or those of all that decided together, for the ledger.
    pub name: String,
    /// The settings of these runs.
    pub settings: Vec<&'a Settings>,
    pub candles: &'a Candles,
    /// Whether some of the bars trained or chose a model.
    pub known: bool,
    pub bars: Range<usize>,
    pub targets: ArrayView2<'a, f64>,
    pub options: &'a ReplayOptions,
    pub backtest: &'a Backtest,
}

/// A verdict, with the place of the trial in the ledger if it could be recorded.
pub struct Assessed {
    pub assessment: Option<Assessment>,
    /// The reason where there is no assessment.
    reason: &'static str,
    receipt: Option<Receipt>,
}

/// Records the account in the ledger beside `run`, and judges it. Bars that the model knows, and few bars, are neither recorded nor
/// judged.
pub fn assess(run: &Folder, traded: &Traded<'_>) -> Result<Assessed> {
    console::busy("comparing with baselines and chance");
    let Traded { candles, bars, backtest, options, .. } = traded;
    let none = |reason| Ok(Assessed { assessment: None, reason, receipt: None });
    if traded.known {
        return none("some of the bars trained or chose the model");
    }
    if bars.len() < LEAST_BARS {
        return none("fewer than 20 bars");
    }
    let settings = traded.settings.iter().map(toml::to_string);
    let settings = settings.collect::<Result<String, _>>().context("the settings as TOML")?;
    let trial = Trial::new(traded.command, &traded.name, &settings, candles, bars.clone(), backtest);
    let Some(trial) = unless_undefined(trial)? else {
        return none(UNDEFINED);
    };
    let (receipt, deflated) = recorded(&ledger_of(run.path()), &trial)?;
    let shorting = traded.settings.iter().all(|settings| settings.market.shorting);
    let options_of = AssessmentOptions { shorting, ..Default::default() };
    let assessment = Assessment::new(backtest, candles, bars, traded.targets, options, deflated, &options_of);
    Ok(Assessed { assessment: unless_undefined(assessment)?, reason: UNDEFINED, receipt })
}

/// Nothing, where the account has no statistics.
fn unless_undefined<T>(result: phalanx::Result<T>) -> Result<Option<T>> {
    match result {
        Err(phalanx::Error::Data(_)) => Ok(None),
        other => Ok(Some(other?)),
    }
}

/// Records a trial, and deflates its Sharpe ratio by those that compete with it.
fn recorded(path: &Path, trial: &Trial) -> Result<(Option<Receipt>, Option<DeflatedSharpe>)> {
    // Judged alone where the folder of the runs cannot be written.
    let elsewhere = tempfile::tempdir().context("a folder for a ledger of trials")?;
    let mut ledger = match Trials::open(path) {
        Err(error @ phalanx::Error::Io { .. }) => {
            note!("warning: this trial is not recorded, and judged without earlier ones ({error})");
            Trials::open(&elsewhere.path().join(LEDGER))?
        }
        opened => opened?,
    };
    for lost in lost(path, &ledger) {
        note!(
            "warning: {} names a trial that {} does not have: trials were removed",
            lost.display(),
            path.display()
        );
    }
    let receipt = match ledger.record(trial.clone()) {
        Ok(receipt) => Some(receipt),
        Err(error) => {
            note!("warning: the trial was not recorded ({error}); later results are not judged by it");
            None
        }
    };
    Ok((receipt, unless_undefined(ledger.deflated(trial))?.flatten()))
}

/// The ledger beside a run.
fn ledger_of(run: &Path) -> PathBuf {
    match run.canonicalize().ok().as_deref().and_then(Path::parent) {
        Some(parent) => parent.join(LEDGER),
        None => run.join("..").join(LEDGER),
    }
}

/// The receipts beside the ledger whose trials it does not have.
fn lost(path: &Path, ledger: &Trials) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let receipts = entries.map(|entry| Folder::new(&entry.path()).receipt()).filter(|path| path.is_file());
    let missing = |path: &PathBuf| {
        let receipt = read_text(path, MOST_BYTES).and_then(|text| from_json::<Receipt>(&text));
        receipt.is_ok_and(|receipt| !ledger.holds(&receipt))
    };
    receipts.filter(missing).collect()
}

impl Assessed {
    /// Writes the receipt to a staging folder.
    pub fn keep_receipt(&self, staging: &Folder) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.receipt).context("the receipt of the trial")?;
        Ok(write_atomically(&staging.receipt(), &text)?)
    }

    pub fn print_verdict(&self) {
        match &self.assessment {
            Some(assessment) => say!("Verdict   {}", sentence(&assessment.verdict)),
            None => say!("Verdict   none: {}", self.reason),
        }
    }

    /// Baselines, timing and the number of trials.
    pub fn print_evidence(&self) {
        let Some(Assessment { deflated, timing, baselines, .. }) = &self.assessment else { return };
        let percent = |value: f64| format!("{:.2} %", value * 100.0);
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
        say!("Baselines on the same bars with the same costs, return and Sharpe:");
        for comparison in baselines {
            let difference = comparison.difference.as_ref();
            let p = difference.map(|it| format!("p of the difference of Sharpe ratios {:.3}", it.p_value));
            say!(
                "{:<34}{:>12}{:>8}  {}",
                comparison.baseline.name(),
                percent(comparison.metrics.total_return),
                number(comparison.metrics.sharpe),
                p.unwrap_or_default()
            );
        }
        say!("The same positions at {} other times: p = {:.3}", timing.sharpe.len(), timing.p_value);
        if let Some(deflated) = deflated {
            say!(
                "Deflated Sharpe ratio {:.3} over {} on these bars (probabilistic {:.3})",
                deflated.deflated,
                trials(deflated.trials),
                deflated.probabilistic
            );
        }
    }
}

/// "1 trial", "2 trials".
pub fn trials(count: f64) -> String {
    if count == 1.0 { "1 trial".into() } else { format!("{count} trials") }
}

/// The verdict in a few words.
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Learnt => "learnt".into(),
        Verdict::BeatenBy(baseline) => format!("beaten by {}", baseline.name()),
        Verdict::NeverTraded => "the agents never traded".into(),
        _ => "not proven".into(),
    }
}

/// The verdict with its reason.
pub fn sentence(of: &Verdict) -> String {
    let reason = match of {
        Verdict::Learnt => {
            ": better than all baselines, and neither chance nor the number of trials explains it"
        }
        Verdict::NotProven => {
            ": no baseline is better, but chance or the number of trials may explain the result"
        }
        _ => "",
    };
    verdict(of) + reason
}
