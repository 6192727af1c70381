//! The verdict on an account that was traded on held-out bars, and its entry in the ledger of trials.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ndarray::ArrayView2;
use phalanx::backtest::{Backtest, ReplayOptions};
use phalanx::files::write_atomically;
use phalanx::gpu::Gpu;
use phalanx::market::Candles;
use phalanx::research::{
    Assessment, AssessmentOptions, Comparison, DeflatedSharpe, Receipt, Trial, Trials, Verdict,
};

use crate::checked::{from_json, read_text};
use crate::console::{self, note, say};
use crate::folder::{Folder, SWEEP_JOURNAL, SWEEP_TRIALS};
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
    pub gpu: &'a Gpu,
}

/// A verdict, with the place of the trial in the ledger if it could be recorded.
pub struct Assessed {
    /// The judgement, or the reason why there is none.
    assessment: Result<Assessment, &'static str>,
    receipt: Option<Receipt>,
}

/// Records the account in the ledger beside `run`, and judges it. Bars that the model knows, and few bars, are neither recorded nor
/// judged.
pub fn assess(run: &Folder, traded: &Traded<'_>) -> Result<Assessed> {
    console::busy("comparing with baselines and chance");
    let Traded { candles, bars, backtest, options, gpu, .. } = traded;
    let none = |reason| Ok(Assessed { assessment: Err(reason), receipt: None });
    if traded.known {
        return none("some of the bars trained or chose the model");
    }
    if bars.len() < LEAST_BARS {
        return none("fewer than 20 bars");
    }
    let Some(trial) = trial(run, traded)? else {
        return none(UNDEFINED);
    };
    let (receipt, deflated) = recorded(&ledger_of(run.path()), &trial)?;
    let shorting = traded.settings.iter().all(|settings| settings.market.shorting);
    let options_of = AssessmentOptions { shorting, gpu: Some(gpu), ..Default::default() };
    let assessment = Assessment::new(backtest, candles, bars, traded.targets, options, deflated, &options_of);
    Ok(Assessed { assessment: unless_undefined(assessment)?.ok_or(UNDEFINED), receipt })
}

/// Records an account in the ledger without judging it, unless it has too few bars or no statistics.
pub fn record(run: &Folder, traded: &Traded<'_>) -> Result<Option<Receipt>> {
    if traded.bars.len() < LEAST_BARS {
        return Ok(None);
    }
    let Some(trial) = trial(run, traded)? else { return Ok(None) };
    Ok(recorded(&ledger_of(run.path()), &trial)?.0)
}

/// The Sharpe ratio of a recorded trial, deflated by all that compete with it.
pub fn deflated(run: &Folder, receipt: &Receipt) -> Result<Option<DeflatedSharpe>> {
    let path = ledger_of(run.path());
    let ledger = Trials::open(&path)?;
    if !ledger.holds(receipt) {
        note!("warning: {} does not have the trial of {}: trials were removed", path.display(), run.name());
        return Ok(None);
    }
    Ok(unless_undefined(ledger.deflated(&ledger.trials()[receipt.trial - 1]))?.flatten())
}

/// The entry of the ledger; nothing, if the account has no statistics.
fn trial(run: &Folder, traded: &Traded<'_>) -> Result<Option<Trial>> {
    let settings = traded.settings.iter().copied().map(toml::to_string);
    let settings = settings.collect::<Result<String, _>>().context("the settings as TOML")?;
    let name = match sweep_of(run.path()) {
        Some(sweep) => format!("{}/{SWEEP_TRIALS}/{}", Folder::new(&sweep).name(), run.name()),
        None => traded.name.clone(),
    };
    let Traded { command, candles, bars, backtest, .. } = traded;
    unless_undefined(Trial::new(command, &name, &settings, candles, bars.clone(), backtest))
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

/// The ledger beside a run; that of a trial of a sweep is beside the sweep.
fn ledger_of(run: &Path) -> PathBuf {
    let whole = sweep_of(run).or_else(|| run.canonicalize().ok());
    match whole.as_deref().and_then(Path::parent) {
        Some(parent) => parent.join(LEDGER),
        None => run.join("..").join(LEDGER),
    }
}

/// The folder of the sweep whose trial the run in this folder is.
fn sweep_of(run: &Path) -> Option<PathBuf> {
    let whole = run.canonicalize().ok()?;
    let trials =
        whole.parent().filter(|parent| parent.file_name().is_some_and(|name| name == SWEEP_TRIALS))?;
    let sweep = trials.parent()?;
    sweep.join(SWEEP_JOURNAL).is_file().then(|| sweep.to_path_buf())
}

/// The receipts beside the ledger whose trials it does not have.
fn lost(path: &Path, ledger: &Trials) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // Results alone may be those of a run elsewhere, with a ledger there.
    let owners = entries.map(|entry| Folder::new(&entry.path()));
    let owners = owners.filter(|folder| folder.model().exists() || folder.folds().exists());
    let receipts = owners.map(|folder| folder.receipt()).filter(|path| path.is_file());
    let missing = |path: &PathBuf| {
        let receipt = read_text(path, MOST_BYTES).and_then(|text| from_json::<Receipt>(&text));
        receipt.is_ok_and(|receipt| !ledger.holds(&receipt))
    };
    receipts.filter(missing).collect()
}

impl Assessed {
    pub fn judgement(&self) -> Result<&Assessment, &'static str> {
        self.assessment.as_ref().map_err(|reason| *reason)
    }

    /// Writes the receipt to a staging folder.
    pub fn keep_receipt(&self, staging: &Folder) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.receipt).context("the receipt of the trial")?;
        Ok(write_atomically(&staging.receipt(), &text)?)
    }

    pub fn print_verdict(&self) {
        match &self.assessment {
            Ok(assessment) => say!("Verdict   {}", sentence(&assessment.verdict)),
            Err(reason) => say!("Verdict   none: {reason}"),
        }
    }

    /// Baselines, timing and the number of trials.
    pub fn print_evidence(&self) {
        let Ok(Assessment { deflated, timing, baselines, .. }) = &self.assessment else { return };
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
        if let Some(sentence) = without_p(baselines) {
            say!("{sentence}");
        }
        say!("The same positions at {} other times: p = {:.3}", timing.sharpe.len(), timing.p_value);
        match deflated {
            Some(deflated) => say!(
                "Deflated Sharpe ratio {:.3} over {} on these bars (probabilistic {:.3})",
                deflated.deflated,
                trials(deflated.trials),
                deflated.probabilistic
            ),
            None => say!("No deflated Sharpe ratio: the returns of the agents do not vary"),
        }
    }
}

/// The reason why baselines that moved have no p-value, if some have none.
pub fn without_p(baselines: &[Comparison]) -> Option<&'static str> {
    let lacks = |it: &Comparison| it.metrics.sharpe.is_some() && it.difference.is_none();
    baselines.iter().any(lacks).then_some(
        "No p: in too many resamples the returns of the agents do not vary, because they were flat, or the account was closed.",
    )
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
