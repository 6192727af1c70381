//! `compare`: the accounts of several runs, or of journals of live policies, on the bars that all of them traded.

mod account;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use phalanx::backtest::returns;
use phalanx::files::write_atomically;
use phalanx::market::TimestampFormat;
use phalanx::research::{
    PairedDifference, Resampling, max_drawdown, paired_difference, sharpe_ratio, total_return,
};

use crate::assess::LEAST_BARS;
use crate::console::{busy, say};
use crate::report::comparison_page;
use account::Account;

/// Level of confidence intervals.
const LEVEL: f64 = 0.95;

#[derive(Args)]
pub struct CompareArgs {
    /// Folders with the results of `backtest` or `walk-forward`, or journals of `live` or `serve`, at least two. The others are compared
    /// with the first.
    #[arg(required = true, num_args = 2..)]
    runs: Vec<PathBuf>,
    /// HTML page to write.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Resamples of the bootstrap.
    #[arg(long, default_value_t = 2000)]
    resamples: u32,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// A statistic of returns.
type Statistic = fn(&[f64]) -> Option<f64>;

/// The statistics that are compared: names, and whether they are fractions. The first decides.
pub const STATISTICS: [(&str, bool, Statistic); 3] = [
    ("Sharpe ratio of a bar", false, sharpe_ratio),
    ("total return", true, total_return),
    ("max drawdown", true, max_drawdown),
];

/// A run on the common bars.
pub struct Compared {
    pub name: String,
    /// In the order of [`STATISTICS`].
    pub values: [Option<f64>; 3],
    /// Less the first run; `None` for the first run and where a value is undefined.
    pub differences: [Option<PairedDifference>; 3],
    /// p-value of the difference of Sharpe ratios, adjusted for the number of runs.
    pub adjusted: Option<f64>,
}

pub fn compare(args: &CompareArgs) -> Result<()> {
    busy("reading the accounts");
    let mut accounts = args.runs.iter().map(|run| Account::read(run)).collect::<Result<Vec<_>>>()?;
    let names: BTreeSet<_> = accounts.iter().map(|account| &account.name).collect();
    ensure!(names.len() == accounts.len(), "a run is named twice");
    common(&mut accounts)?;
    let resampling = Resampling { resamples: args.resamples, seed: args.seed, ..Default::default() };
    busy("comparing");
    let compared = differences(&accounts, &resampling)?;
    let timestamps = &accounts[0].timestamps;
    let dates = TimestampFormat::of(timestamps);
    let [first, last] =
        [timestamps.first(), timestamps.last()].map(|it| it.map_or(String::new(), |it| dates.format(*it)));
    print(&compared, &format!("{} bars, {first} to {last}", timestamps.len()));
    if let Some(out) = &args.out {
        let page = comparison_page(&compared, timestamps);
        write_atomically(out, page.as_bytes())?;
        say!("Page: {}", out.display());
    }
    Ok(())
}

/// Cuts all accounts to the bars that they share.
fn common(accounts: &mut [Account]) -> Result<()> {
    let first = accounts.iter().filter_map(|it| it.timestamps.first()).max().copied().unwrap_or_default();
    let last = accounts.iter().filter_map(|it| it.timestamps.last()).min().copied().unwrap_or_default();
    for account in &mut *accounts {
        let start = account.timestamps.partition_point(|it| *it < first);
        let end = account.timestamps.partition_point(|it| *it <= last).max(start);
        account.timestamps = account.timestamps[start..end].to_vec();
        account.equity = account.equity[start..end].to_vec();
    }
    let (reference, others) = accounts.split_first().context("there are no runs")?;
    for other in others {
        ensure!(
            reference.timestamps.len() >= LEAST_BARS,
            "all runs together share {} bars, and at least {LEAST_BARS} are compared: trade the same period with `backtest --from` and `--to`",
            reference.timestamps.len().min(other.timestamps.len())
        );
        ensure!(
            reference.timestamps == other.timestamps,
            "{} and {} have different bars between {first} and {last}: compare runs on the same candles",
            reference.name,
            other.name
        );
    }
    Ok(())
}

fn differences(accounts: &[Account], resampling: &Resampling) -> Result<Vec<Compared>> {
    let reference = returns(&accounts.first().context("there are no runs")?.equity);
    let mut all = Vec::new();
    for (index, account) in accounts.iter().enumerate() {
        let returns = returns(&account.equity);
        let mut differences = [None, None, None];
        for (place, (.., statistic)) in differences.iter_mut().zip(STATISTICS) {
            if index > 0 {
                *place = match paired_difference(&returns, &reference, statistic, LEVEL, resampling) {
                    // Undefined, of an account that never moved.
                    Err(phalanx::Error::Data(_)) => None,
                    other => Some(other?),
                };
            }
        }
        let values = STATISTICS.map(|(.., statistic)| statistic(&returns));
        all.push(Compared { name: account.name.clone(), values, differences, adjusted: None });
    }
    let p_values: Vec<_> =
        all.iter().map(|it| it.differences[0].as_ref().map(|difference| difference.p_value)).collect();
    for (compared, adjusted) in all.iter_mut().zip(step_down(&p_values)) {
        compared.adjusted = adjusted;
    }
    Ok(all)
}

/// p-values adjusted for their number by Holm's step-down procedure (1979): the k-th smallest of m times m - k + 1, at least as large as
/// the one before, at most 1.
fn step_down(p_values: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<_> = p_values.iter().enumerate().filter_map(|(i, p)| p.map(|p| (p, i))).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut adjusted = vec![None; p_values.len()];
    let mut largest = 0f64;
    for (rank, (p, index)) in order.iter().enumerate() {
        largest = largest.max(p * (order.len() - rank) as f64).min(1.0);
        adjusted[*index] = Some(largest);
    }
    adjusted
}

fn print(compared: &[Compared], period: &str) {
    say!("{period}; differences from {}", compared.first().map_or("", |first| &first.name));
    let show = |value: f64, fraction: bool| match fraction {
        true => format!("{:.2} %", value * 100.0),
        false => format!("{value:.4}"),
    };
    for (index, run) in compared.iter().enumerate() {
        say!("{}", run.name);
        for (((name, fraction, _), value), difference) in
            STATISTICS.iter().zip(run.values).zip(&run.differences)
        {
            let value = value.map_or("-".into(), |value| show(value, *fraction));
            let missing = if index == 0 { String::new() } else { format!("  {:>10}", "-") };
            let difference = difference.as_ref().map_or(missing, |it| {
                let [low, high] = it.difference.bca.unwrap_or(it.difference.percentile);
                let [low, high] = [low, high].map(|value| show(value, *fraction));
                let difference = show(it.difference.value, *fraction);
                format!("  {difference:>10}, 95 % interval {low} to {high}, p = {:.3}", it.p_value)
            });
            say!("  {name:<22}{value:>12}{difference}");
        }
        if let Some(adjusted) = run.adjusted {
            say!("  p of the Sharpe ratio, adjusted for the number of runs: {adjusted:.3}");
        }
        if let Some(sentence) = missing(index, run) {
            say!("  {sentence}");
        }
    }
}

/// The reason why a run other than the first lacks a difference, if it does.
pub fn missing(index: usize, run: &Compared) -> Option<&'static str> {
    (index > 0 && run.differences.iter().any(Option::is_none)).then_some(
        "A dash: one of the two accounts was flat or closed for so long that in too many resamples its returns do not vary.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjusted_p_values_by_hand() {
        // 4 x 0.01, 3 x 0.02 = 0.06, then 2 x 0.03 = 0.06, then 0.9.
        let given = [Some(0.9), None, Some(0.02), Some(0.01), Some(0.03)];
        let wanted = [Some(0.9), None, Some(0.06), Some(0.04), Some(0.06)];
        for (got, want) in step_down(&given).into_iter().zip(wanted) {
            assert!(got.zip(want).is_none_or(|(got, want): (f64, f64)| (got - want).abs() < 1e-15));
            assert_eq!(got.is_some(), want.is_some());
        }
        assert_eq!(step_down(&[Some(0.7), Some(0.8)]), [Some(1.0), Some(1.0)]);
    }

    fn account(name: &str, days: std::ops::Range<i64>, growth: f64) -> Account {
        let start = jiff::civil::date(2020, 1, 1).at(0, 0, 0, 0);
        let timestamps = days.clone().map(|day| start + jiff::ToSpan::days(day)).collect();
        let wave = |day: i64| 0.01 * ((day * 7 % 13) as f64 - 6.0) / 6.0;
        let equity = days.map(|day| 100.0 * (growth * day as f64 + wave(day)).exp()).collect();
        Account { name: name.into(), timestamps, equity }
    }

    #[test]
    fn runs_are_cut_to_the_bars_that_they_share() {
        let mut accounts = [account("a", 0..100, 0.0), account("b", 20..130, 0.01)];
        common(&mut accounts).unwrap();
        assert_eq!(accounts.each_ref().map(|it| it.equity.len()), [80, 80]);
        let resampling = Resampling { resamples: 200, ..Default::default() };
        let compared = differences(&accounts, &resampling).unwrap();
        assert!(compared[0].adjusted.is_none());
        let better = compared[1].differences[0].as_ref().unwrap();
        assert!(better.difference.value > 0.0 && better.p_value < 0.05, "{better:?}");
        // A run and its copy.
        let mut same = [account("a", 0..100, 0.01), account("copy", 0..100, 0.01)];
        common(&mut same).unwrap();
        assert_eq!(differences(&same, &resampling).unwrap()[1].adjusted, Some(1.0));
        assert_eq!(missing(1, &differences(&same, &resampling).unwrap()[1]), None);
        // An account that never moved has no Sharpe ratio, and says so.
        let mut idle = [account("a", 0..100, 0.01), account("idle", 0..100, 0.0)];
        idle[1].equity.fill(100.0);
        let compared = differences(&idle, &resampling).unwrap();
        assert!(compared[1].differences[0].is_none() && compared[1].differences[1].is_some());
        assert!(
            missing(1, &compared[1]).unwrap().contains("do not vary") && missing(0, &compared[0]).is_none()
        );
        let page = crate::report::comparison_page(&compared, &idle[0].timestamps);
        assert!(page.contains("do not vary") && !page.contains("NaN"), "{page}");

        let error = |accounts: &mut [Account]| common(accounts).unwrap_err().to_string();
        assert!(error(&mut [account("a", 0..50, 0.0), account("b", 45..90, 0.0)]).contains("share 5 bars"));
        assert!(error(&mut [account("a", 0..50, 0.0), account("b", 60..90, 0.0)]).contains("share 0 bars"));
        let mut gap = [account("a", 0..50, 0.0), account("b", 0..50, 0.0)];
        gap[1].timestamps.remove(30);
        gap[1].equity.remove(30);
        assert!(error(&mut gap).contains("a and b have different bars"));
    }
}
