//! `backtest`: trades held-out candles with a trained model, with costs, next to buy-and-hold.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::civil::DateTime;
use ndarray::Array2;
use phalanx::backtest::Backtest;
use phalanx::files::write_atomically;
use phalanx::gpu::Gpu;
use phalanx::market::{Candles, FILLED, TimestampFormat};
use phalanx::policy::{MarketMetadata, Policy};

use crate::BacktestArgs;
use crate::assess::{Traded, assess};
use crate::console::{self, note, say};
use crate::evidence::Evidence;
use crate::folder::{Folder, Owned};
use crate::held_out::{HeldOut, Period};
use crate::report::{RunInfo, render};
use crate::run::Settings;
use crate::summary::Summary;

pub fn backtest(args: &BacktestArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<()> {
    let period = Period {
        from: args.from.as_deref(),
        to: args.to.as_deref(),
        periods_per_year: args.periods_per_year,
        force: args.force,
    };
    let held_out = HeldOut::open(&args.run, &args.data, &args.sets, &period, open)?;
    let HeldOut { run, number, settings, policy, candles, gpu, data, bars, known, options, .. } = &held_out;
    let metadata = held_out.market()?;
    console::busy("trading the bars");
    let replay = |bars: Range<usize>| -> Result<(Backtest, Array2<f64>)> {
        let targets = policy.targets(gpu, data, &bars)?;
        Ok((Backtest::replay(candles, bars, targets.view(), options)?, targets))
    };
    let in_sample = in_sample(metadata, candles, bars, data.first_bar()).map(&replay).transpose()?;
    let in_sample = in_sample.map(|(backtest, _)| backtest);
    let (backtest, targets) = replay(bars.clone())?;
    let assessed = assess(
        run,
        &Traded {
            command: "backtest",
            settings,
            candles,
            known: *known,
            bars: bars.clone(),
            targets: targets.view(),
            options,
            backtest: &backtest,
        },
    )?;

    let summary = Summary::read(&run.summary())?;
    let curves = crate::metrics::curves(&run.metrics())?;
    let gaps = crate::gaps::lines(candles);
    let page = render(
        &backtest,
        in_sample.as_ref(),
        assessed.judgement(),
        &curves,
        &info(run, policy, settings, &summary, candles, &gaps)?,
    )?;
    let mut out = Owned::create(args.out.as_deref().unwrap_or(run.path()), "backtest")?;
    ensure!(
        run.run_number() == *number,
        "{} was replaced by another run meanwhile: run the backtest again",
        run.path().display()
    );
    let staging = out.stage_results(run)?;
    let evidence = Evidence::new(&backtest, assessed.judgement(), in_sample.as_ref(), &[]);
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

/// The bars that the model was trained on, if the candles have them all and the bars to trade are held out: neither trained on nor
/// used to choose the model.
fn in_sample(
    metadata: &MarketMetadata,
    candles: &Candles,
    traded: &Range<usize>,
    first: usize,
) -> Option<Range<usize>> {
    let place = |timestamp| candles.timestamps.binary_search(&timestamp).ok();
    let (start, last) = (place(metadata.train_from)?, place(metadata.train_to)?);
    let held_out = candles.timestamps[traded.start] >= metadata.test_from;
    (start >= first && start < last && held_out).then_some(start..last + 1)
}

/// The last bar that training or the choice of the model saw, as far as the candles show it.
fn last_known(metadata: &MarketMetadata, settings: &Settings, candles: &Candles) -> DateTime {
    match candles.index_at_or_after(metadata.test_from).checked_sub(1) {
        Some(before) if settings.evaluation.every > 0 => candles.timestamps[before].max(metadata.train_to),
        _ => metadata.train_to,
    }
}

fn info(
    run: &Folder,
    policy: &Policy,
    settings: &Settings,
    summary: &Summary,
    candles: &Candles,
    gaps: &[(&str, String)],
) -> Result<RunInfo> {
    let (model, metadata) = (policy.metadata(), policy.market()?);
    let gaps = gaps.iter().map(|(name, text)| (format!("{name} bars"), text.clone()));
    Ok(RunInfo {
        title: run.name(),
        seed: settings.mappo.ppo.seed,
        adapter: summary.adapter.clone(),
        precision: format!("{:?}", model.network.precision).to_lowercase(),
        parameters: policy.parameters(),
        env_steps: summary.env_steps,
        wall_time: Duration::from_secs_f64(summary.seconds),
        training_period: Some((metadata.train_from, last_known(metadata, settings, candles))),
        version: model.version.clone(),
        folds: Vec::new(),
        more: [
            ("Hidden layers".into(), format!("{:?}", model.network.hidden)),
            ("Networks".into(), format!("{:?}", model.network.networks).to_lowercase()),
            ("Discount".into(), settings.mappo.ppo.gamma.to_string()),
            ("Shorting".into(), if metadata.settings.shorting { "allowed" } else { "not allowed" }.into()),
        ]
        .into_iter()
        .chain(gaps)
        .collect(),
    })
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
