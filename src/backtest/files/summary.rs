//! The contents of `metrics.json`.

use jiff::civil::DateTime;
use serde::Serialize;

use crate::backtest::{Attribution, Backtest, HoldingTimes, Metrics, TearSheet, YearReturns};
use crate::env::ledger::{Costs, Financing};
use crate::market::TimestampFormat;

/// Everything that `metrics.json` says about a backtest.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    period: Period,
    symbols: &'a [String],
    costs: &'a Costs,
    starting_equity: f64,
    periods_per_year: f64,
    periods_per_year_reason: String,
    bankrupt_at: Option<String>,
    strategy: &'a Metrics,
    buy_and_hold: &'a Metrics,
    // Interest, borrowing and funding.
    strategy_financing: Financing,
    buy_and_hold_financing: Financing,
    monthly_returns: Vec<YearReturns>,
    rolling_sharpe: Option<Rolling>,
    exposure: Exposure,
    drawdowns: Vec<Drawdown>,
    holding_times: HoldingTimes,
    attribution: Attribution,
}

#[derive(Serialize)]
struct Period {
    from: Option<String>,
    to: Option<String>,
    bars: usize,
    years: f64,
}

#[derive(Serialize)]
struct Rolling {
    window_bars: usize,
    lowest: Option<f64>,
    highest: Option<f64>,
    last: Option<f64>,
}

#[derive(Serialize)]
struct Exposure {
    mean_gross: f64,
    max_gross: f64,
    mean_net: f64,
    min_net: f64,
    max_net: f64,
    invested: f64,
}

#[derive(Serialize)]
struct Drawdown {
    peak: String,
    trough: String,
    recovered: Option<String>,
    depth: f64,
    bars: usize,
}

impl<'a> Summary<'a> {
    pub(super) fn new(backtest: &'a Backtest, dates: TimestampFormat) -> Self {
        let date = |date: DateTime| dates.format(date);
        let TearSheet { months, rolling_sharpe, exposure, drawdowns, holding_times, attribution } =
            TearSheet::new(backtest);
        Self {
            period: Period {
                from: backtest.timestamps.first().copied().map(date),
                to: backtest.timestamps.last().copied().map(date),
                bars: backtest.timestamps.len(),
                years: backtest.years,
            },
            symbols: &backtest.symbols,
            costs: &backtest.costs,
            starting_equity: backtest.starting_equity,
            periods_per_year: backtest.periods_per_year.value(),
            periods_per_year_reason: backtest.periods_per_year.reason(),
            bankrupt_at: backtest.bankrupt_at.map(date),
            strategy: &backtest.metrics,
            buy_and_hold: &backtest.benchmark,
            strategy_financing: backtest.financing,
            buy_and_hold_financing: backtest.benchmark_financing,
            monthly_returns: months,
            rolling_sharpe: rolling_sharpe.map(|rolling| {
                let [lowest, highest, last] = rolling.range().map_or([None; 3], |range| range.map(Some));
                Rolling { window_bars: rolling.window, lowest, highest, last }
            }),
            exposure: Exposure {
                mean_gross: exposure.mean_gross,
                max_gross: exposure.max_gross,
                mean_net: exposure.mean_net,
                min_net: exposure.min_net,
                max_net: exposure.max_net,
                invested: exposure.invested,
            },
            drawdowns: drawdowns
                .into_iter()
                .map(|it| Drawdown {
                    peak: date(it.peak),
                    trough: date(it.trough),
                    recovered: it.recovered.map(date),
                    depth: it.depth,
                    bars: it.bars,
                })
                .collect(),
            holding_times,
            attribution,
        }
    }
}
