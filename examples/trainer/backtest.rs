//! `backtest`: trades held-out candles with a trained model, with costs, next to buy-and-hold.

mod info;

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use ndarray::Array2;
use phalanx::backtest::Backtest;
use phalanx::files::write_atomically;
use phalanx::gpu::Gpu;
use phalanx::market::{FILLED, TimestampFormat};

use crate::BacktestArgs;
use crate::assess::{Traded, assess};
use crate::console::{self, note, say};
use crate::evidence::Evidence;
use crate::folder::Owned;
use crate::held_out::{HeldOut, Period};
use crate::report::{TrainingCurves, render};

pub fn backtest(args: &BacktestArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<()> {
    let out = folder_of_results(args)?;
    let period = Period {
        from: args.from.as_deref(),
        to: args.to.as_deref(),
        periods_per_year: args.periods_per_year,
        force: args.force,
    };
    let held_out = HeldOut::open(&args.runs, &args.data, &args.sets, &period, open)?;
    let HeldOut { agents, candles, gpu, data, bars, known, options } = &held_out;
    let metadata = held_out.market()?;
    console::busy("trading the bars");
    let replay = |bars: Range<usize>| -> Result<(Backtest, Array2<f64>)> {
        let targets = agents.ensemble.targets(gpu, data, &bars)?;
        Ok((Backtest::replay(candles, bars, targets.view(), options)?, targets))
    };
    let trained = agents.trained_before(bars.start, candles)?;
    let in_sample = trained.filter(|trained| !known && trained.start >= data.first_bar());
    let in_sample = in_sample.map(&replay).transpose()?;
    let in_sample = in_sample.map(|(backtest, _)| backtest);
    let (backtest, targets) = replay(bars.clone())?;
    let run = &agents.first().folder;
    // Before the account counts as a trial.
    let curves = match agents.several() {
        true => TrainingCurves::default(),
        false => crate::metrics::curves(&run.metrics())?,
    };
    let gaps = crate::gaps::lines(candles);
    let info = info::info(agents, candles, *known, &gaps)?;
    let assessed = assess(
        run,
        &Traded {
            command: "backtest",
            name: agents.names(" + "),
            settings: agents.runs().iter().map(|run| &run.settings).collect(),
            candles,
            known: *known,
            bars: bars.clone(),
            targets: targets.view(),
            options,
            backtest: &backtest,
            gpu,
        },
    )?;

    let page = render(&backtest, in_sample.as_ref(), assessed.judgement(), &curves, &info)?;
    let mut out = Owned::create(out, "backtest")?;
    agents.unchanged()?;
    let staging = out.stage_results((!agents.several()).then_some(run))?;
    let mut evidence = Evidence::new(&backtest, assessed.judgement(), in_sample.as_ref(), &[]);
    evidence.audit = info.audit;
    phalanx::backtest::write_with(&backtest, staging.path(), &evidence)?;
    write_atomically(&staging.report(), page.as_bytes())?;
    assessed.keep_receipt(&staging)?;
    out.publish_results(&staging)?;
    for (name, text) in &gaps {
        note!("{name:<10}{text}");
    }
    if candles.filled.is_some() && metadata.scaling.features.last().is_none_or(|name| name != FILLED) {
        note!(
            "warning: the model was trained on candles without filled bars and cannot tell which bars are filled"
        );
    }
    assessed.print_verdict();
    print(&backtest, in_sample.as_ref());
    assessed.print_evidence();
    say!("Report: {}", out.folder().report().display());
    Ok(())
}

/// The folder for the results: that of a single run, if no other is given.
fn folder_of_results(args: &BacktestArgs) -> Result<&Path> {
    let own = match &args.runs[..] {
        [run] => Some(run),
        _ => None,
    };
    let out = args.out.as_ref().or(own);
    out.map(|out| out.as_path())
        .context("several runs that decide together have no folder for results: give one with --out")
}

fn print(backtest: &Backtest, in_sample: Option<&Backtest>) {
    let percent = |value: Option<f64>| value.map_or("-".into(), |v| format!("{:.2} %", v * 100.0));
    let number = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.2}"));
    let (own, hold) = (&backtest.metrics, &backtest.benchmark);
    let rows = [
        ("Total return", percent(Some(own.total_return)), percent(Some(hold.total_return))),
        ("CAGR", percent(own.cagr), percent(hold.cagr)),
        ("Sharpe", number(own.sharpe), number(hold.sharpe)),
        ("Max drawdown", percent(Some(own.max_drawdown)), percent(Some(hold.max_drawdown))),
        ("Trades", own.trades.to_string(), hold.trades.to_string()),
    ];
    let financing = [backtest.financing, backtest.benchmark_financing].map(|it| it.total());
    let [own, hold] = financing.map(|amount| format!("{amount:.2}"));
    let financed = (financing != [0.0; 2]).then_some(("Financing", own, hold));
    say!("{:<14}{:>14}{:>16}", "", "agents", "buy and hold");
    for (name, own, hold) in rows.into_iter().chain(financed) {
        say!("{name:<14}{own:>14}{hold:>16}");
    }
    say!("Annualised with {}", backtest.periods_per_year);
    if let Some(moment) = backtest.bankrupt_at {
        let moment = TimestampFormat::of(&backtest.timestamps).format(moment);
        say!("The account went bankrupt at {moment} and stayed closed.");
    }
    if let Some(trained) = in_sample {
        let (own, hold) = (&trained.metrics, &trained.benchmark);
        say!(
            "In sample, on the bars it was trained on: return {} (buy and hold {}), Sharpe {} ({})",
            percent(Some(own.total_return)),
            percent(Some(hold.total_return)),
            number(own.sharpe),
            number(hold.sharpe)
        );
    }
}
