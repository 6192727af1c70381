//! Result files of a backtest: `metrics.json`, `equity.csv`, `trades.csv`.

mod summary;

use std::path::Path;

use serde::Serialize;

use summary::Summary;

use super::Backtest;
use crate::files::{create_folders, write_atomically};
use crate::market::{TimestampFormat, symbol_cell};
use crate::{Error, Result};

/// The summary of a backtest, and what its caller adds.
#[derive(Serialize)]
struct WithMore<'a, T> {
    #[serde(flatten)]
    summary: Summary<'a>,
    #[serde(flatten)]
    more: &'a T,
}

/// Nothing to add.
#[derive(Serialize)]
struct Nothing {}

/// Writes a backtest to the directory `dir`, which is created if missing:
///
/// * `metrics.json`: metrics of the strategy and of buy-and-hold, period, symbols, costs, bars per year and how this number
///   was found, and the figures of the [`TearSheet`](super::TearSheet), of the rolling Sharpe ratio and the exposure without their
///   series; undefined values are `null`;
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
    write_with(backtest, dir, &Nothing {})
}

/// The same, with the fields of `more`, a struct or a map with other names, at the end of `metrics.json`.
///
/// # Errors
/// As [`write()`]; [`Error::Io`] also if `more` is neither a struct nor a map.
pub fn write_with(backtest: &Backtest, dir: impl AsRef<Path>, more: &impl Serialize) -> Result<()> {
    let dir = dir.as_ref();
    create_folders(dir)?;
    let dates = TimestampFormat::of(&backtest.timestamps);
    for (name, bytes) in [
        ("metrics.json", metrics(backtest, dates, more)),
        ("equity.csv", equity(backtest, dates)),
        ("trades.csv", trades(backtest, dates)),
    ] {
        let path = dir.join(name);
        write_atomically(&path, &bytes.map_err(Error::io(&path))?)?;
    }
    Ok(())
}

fn metrics(backtest: &Backtest, dates: TimestampFormat, more: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(&WithMore { summary: Summary::new(backtest, dates), more })?;
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
