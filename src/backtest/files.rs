//! Result files of a backtest: `metrics.json`, `equity.csv`, `trades.csv`.

use std::path::Path;

use serde::Serialize;

use super::{Backtest, Metrics};
use crate::env::ledger::{Costs, Financing};
use crate::files::{create_folders, write_atomically};
use crate::market::{TimestampFormat, symbol_cell};
use crate::{Error, Result};

#[derive(Serialize)]
struct Summary<'a> {
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
}

#[derive(Serialize)]
struct Period {
    from: Option<String>,
    to: Option<String>,
    bars: usize,
    years: f64,
}

/// Writes a backtest to the directory `dir`, which is created if missing:
///
/// * `metrics.json`: metrics of the strategy and of buy-and-hold, period, symbols, costs, bars per year and how this number
///   was found; undefined values are `null`;
/// * `equity.csv`: for every bar the timestamp, equity and drawdown of the strategy and of buy-and-hold, and a column
///   `position_SYMBOL` per instrument with the target position at the close;
/// * `trades.csv`: one line per fill; a symbol that a spreadsheet would run as a formula has an apostrophe before it ([`symbol_cell`]).
///
/// Timestamps are ISO 8601, without the time if every bar is at midnight. Each file is written under a temporary
/// name and renamed, so readers never see a partial file.
///
/// # Errors
/// [`Error::Io`] with the path of the directory or file that could not be written.
pub fn write(backtest: &Backtest, dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    create_folders(dir)?;
    let dates = TimestampFormat::of(&backtest.timestamps);
    for (name, bytes) in [
        ("metrics.json", metrics(backtest, dates)),
        ("equity.csv", equity(backtest, dates)),
        ("trades.csv", trades(backtest, dates)),
    ] {
        let path = dir.join(name);
        write_atomically(&path, &bytes.map_err(Error::io(&path))?)?;
    }
    Ok(())
}

fn metrics(backtest: &Backtest, dates: TimestampFormat) -> std::io::Result<Vec<u8>> {
    let summary = Summary {
        period: Period {
            from: backtest.timestamps.first().map(|t| dates.format(*t)),
            to: backtest.timestamps.last().map(|t| dates.format(*t)),
            bars: backtest.timestamps.len(),
            years: backtest.years,
        },
        symbols: &backtest.symbols,
        costs: &backtest.costs,
        starting_equity: backtest.starting_equity,
        periods_per_year: backtest.periods_per_year.value(),
        periods_per_year_reason: backtest.periods_per_year.reason(),
        bankrupt_at: backtest.bankrupt_at.map(|t| dates.format(t)),
        strategy: &backtest.metrics,
        buy_and_hold: &backtest.benchmark,
        strategy_financing: backtest.financing,
        buy_and_hold_financing: backtest.benchmark_financing,
    };
    let mut bytes = serde_json::to_vec_pretty(&summary)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn equity(backtest: &Backtest, dates: TimestampFormat) -> std::io::Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let fixed = ["timestamp", "equity", "drawdown", "benchmark_equity", "benchmark_drawdown"];
    let positions = backtest.symbols.iter().map(|symbol| format!("position_{symbol}"));
    table.write_record(fixed.into_iter().map(String::from).chain(positions))?;
    let curves = backtest.equity.iter().zip(&backtest.drawdown);
    let benchmark = backtest.benchmark_equity.iter().zip(&backtest.benchmark_drawdown);
    let bars = backtest.timestamps.iter().zip(curves).zip(benchmark).zip(backtest.positions.outer_iter());
    for (((timestamp, strategy), benchmark), levels) in bars {
        let curves = [strategy.0, strategy.1, benchmark.0, benchmark.1];
        let numbers = curves.into_iter().chain(levels).map(f64::to_string);
        table.write_record(std::iter::once(dates.format(*timestamp)).chain(numbers))?;
    }
    table.into_inner().map_err(csv::IntoInnerError::into_error)
}

fn trades(backtest: &Backtest, dates: TimestampFormat) -> std::io::Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record([
        "timestamp",
        "symbol",
        "quantity",
        "open",
        "price",
        "commission",
        "slippage",
        "level_before",
        "level_after",
    ])?;
    for dated in &backtest.trades {
        let fill = dated.trade;
        let prices = [fill.quantity, fill.open, fill.price, fill.commission, fill.slippage];
        let numbers = prices.into_iter().chain([fill.level_before, fill.level_after]);
        let start = [dates.format(dated.timestamp), symbol_cell(&dated.symbol).into_owned()];
        table.write_record(start.into_iter().chain(numbers.map(|number| number.to_string())))?;
    }
    table.into_inner().map_err(csv::IntoInnerError::into_error)
}

#[cfg(test)]
mod tests;
