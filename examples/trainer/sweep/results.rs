//! The result of a sweep: `trials.csv`, `best.toml`, and a table for a person.

use anyhow::{Context as _, Result};
use phalanx::files::write_atomically;

use super::history::{History, State, Tested};
use super::journal::{BEST, Journal, TABLE};
use super::space::{Base, Parameters, Space};
use crate::assess;
use crate::console::{note, say};
use crate::folder::Folder;
use crate::settings::write_resolved;

/// Trials in the printed table.
const SHOWN: usize = 10;

/// Writes the files of the trials so far.
pub fn write(journal: &Journal, space: &Space, base: &Base<'_>) -> Result<History> {
    // Not two processes at a time, of which the later might write the earlier state.
    let locked = journal.locked()?;
    let history = locked.history().clone();
    write_atomically(&journal.out().join(TABLE), &table(&history, space)?)?;
    if let Some((_, _, best)) = history.ranking().first() {
        write_resolved(&journal.out().join(BEST), &base.with(&best.parameters)?)?;
    }
    Ok(history)
}

/// `trials.csv`: a line per trial.
fn table(history: &History, space: &Space) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let fixed = ["trial", "state", "score", "evaluations", "iteration", "test_return", "test_sharpe"];
    let header = fixed.into_iter().map(String::from).chain(space.keys().cloned());
    writer.write_record(header).context(TABLE)?;
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for (at, trial) in history.numbered() {
        let score = match &trial.state {
            State::Finished { score, .. } => Some(*score),
            _ => trial.best(),
        };
        let test = trial.test();
        let test = (test.map(|it| it.test_return), test.and_then(|it| it.test_sharpe));
        let last = trial.scores.keys().last().map_or(String::new(), u32::to_string);
        let mut row = vec![at.to_string(), trial.state.name().into(), number(score)];
        row.extend([trial.scores.len().to_string(), last, number(test.0), number(test.1)]);
        row.extend(
            space.keys().map(|name| trial.parameters.get(name).map_or(String::new(), ToString::to_string)),
        );
        writer.write_record(row).context(TABLE)?;
    }
    writer.into_inner().map_err(|error| error.into_error()).context(TABLE)
}

/// The values of a trial on one line.
pub fn listed(parameters: &Parameters) -> String {
    let one = |(name, value): (&String, &toml::Value)| format!("{name} = {value}");
    parameters.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Prints the best trials, the counts, and the deflated Sharpe ratio of the best.
pub fn print(history: &History, journal: &Journal) -> Result<()> {
    let ranking = history.ranking();
    say!("{:>6}{:>12}{:>14}{:>10}  parameters", "trial", "evaluation", "out of sample", "Sharpe");
    for (number, score, trial) in ranking.iter().take(SHOWN) {
        let Some(Tested { test_return, test_sharpe, .. }) = trial.test() else { continue };
        let test = format!("{:.2} %", test_return * 100.0);
        let sharpe = test_sharpe.map_or("-".into(), |sharpe| format!("{sharpe:.2}"));
        let score = format!("{:.2} %", score.exp_m1() * 100.0);
        say!("{number:>6}{score:>12}{test:>14}{sharpe:>10}  {}", listed(&trial.parameters));
    }
    let counts = ["finished", "pruned", "failed", "started"].map(|name| (name, history.count(name)));
    let counts = counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}"));
    say!("{}: {}", trials(history.trials().len()), counts.collect::<Vec<_>>().join(", "));
    let Some((number, _, best)) = ranking.first() else {
        note!("warning: no trial was finished: there is no {BEST}");
        return Ok(());
    };
    let folder = Folder::new(&journal.folder_of(*number));
    match best.test().and_then(|test| test.receipt.as_ref()) {
        None => say!(
            "No deflated Sharpe ratio: fewer than {} held-out bars, or an account that cannot be recorded",
            assess::LEAST_BARS
        ),
        Some(receipt) => match assess::deflated(&folder, receipt)? {
            Some(deflated) => say!(
                "Deflated Sharpe ratio of trial {number}: {:.3} over {} on these bars (probabilistic {:.3})",
                deflated.deflated,
                assess::trials(deflated.trials),
                deflated.probabilistic
            ),
            None => say!("No deflated Sharpe ratio: the returns of trial {number} do not vary"),
        },
    }
    say!(
        "Settings of trial {number}, the best on the evaluation bars: {}",
        journal.out().join(BEST).display()
    );
    Ok(())
}

fn trials(count: usize) -> String {
    if count == 1 { "1 trial".into() } else { format!("{count} trials") }
}
