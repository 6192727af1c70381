//! The rows of the file, written a block at a time.

use std::io::Write;

use anyhow::{Context, Result, bail};
use phalanx::indicators::{Unit, Values};
use phalanx::jiff::civil::DateTime;
use phalanx::market::{RealBars, TimestampFormat, symbol_cell};
use phalanx::ndarray::ArrayView2;

use super::digits::append_number;

/// Rows that are in memory at a time.
const BLOCK: usize = 1 << 16;
/// Bars of every instrument that are in memory at a time, at least.
const LEAST_BARS: usize = 64;

/// Rows of the file: one per candle, sorted by timestamp, then by symbol.
pub struct Table<'a> {
    pub symbols: &'a [String],
    pub timestamps: &'a [DateTime],
    pub real: &'a RealBars,
}

/// Values of consecutive bars.
struct Block<'a> {
    /// Its first bar.
    bar: usize,
    /// For each instrument its first bar among its real ones.
    first: &'a [usize],
    /// Whether the values are prices, and the values.
    columns: Vec<(bool, ArrayView2<'a, f64>)>,
}

impl Table<'_> {
    /// Writes the columns `names` a block of rows at a time; `read` returns the values of a number of bars, from one bar of each
    /// instrument on. Fields are empty during warm-up.
    pub fn write(
        &self,
        out: &mut impl Write,
        names: &[&str],
        mut read: impl FnMut(&[usize], usize) -> Result<Values>,
    ) -> Result<()> {
        let (instruments, dates) = (self.symbols.len(), TimestampFormat::of(self.timestamps));
        let header: Vec<&str> = ["timestamp", "symbol"].into_iter().chain(names.iter().copied()).collect();
        out.write_all(&record(&header)?)?;
        let mut cells = Vec::with_capacity(instruments);
        for symbol in self.symbols {
            let mut cell = record(&[&symbol_cell(symbol)])?;
            cell.pop();
            cells.push(cell);
        }
        let mut order: Vec<usize> = (0..instruments).collect();
        order.sort_by_key(|&instrument| &self.symbols[instrument]);
        // A window of every instrument is copied by itself: many short ones would take longer than their digits.
        let step = (BLOCK / instruments.max(1)).max(LEAST_BARS);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        for bar in (0..self.timestamps.len()).step_by(step) {
            let bars = step.min(self.timestamps.len() - bar);
            let first: Vec<usize> =
                (0..instruments).map(|i| self.real.position(i, bar).unwrap_or_default()).collect();
            let values = read(&first, bars)?;
            let column = |name: &&str| Some((values.unit(name)? == Unit::Price, values.get(name)?));
            let block = Block { bar, first: &first, columns: names.iter().filter_map(column).collect() };
            let rows = bars * instruments;
            let part = rows.div_ceil(threads).max(1);
            // Most of the time goes into the digits.
            let append = |from: usize| self.rows(&block, from..rows.min(from + part), &order, &cells, dates);
            let append = &append;
            let texts: Vec<Result<Vec<u8>>> = std::thread::scope(|scope| {
                let spawn = |from| std::thread::Builder::new().spawn_scoped(scope, move || append(from));
                let parts = (0..rows).step_by(part);
                let workers: Vec<_> = parts.map(|from| (from, spawn(from))).collect();
                let texts = workers.into_iter().map(|(from, worker)| match worker {
                    Ok(worker) => {
                        worker.join().unwrap_or_else(|_| bail!("a thread that writes rows panicked"))
                    }
                    // The system allows no more threads.
                    Err(_) => append(from),
                });
                texts.collect()
            });
            for text in texts {
                out.write_all(&text?)?;
            }
        }
        Ok(())
    }

    /// The text of some rows of a block.
    fn rows(
        &self,
        block: &Block,
        rows: std::ops::Range<usize>,
        order: &[usize],
        cells: &[Vec<u8>],
        dates: TimestampFormat,
    ) -> Result<Vec<u8>> {
        let mut text = Vec::with_capacity(rows.len() * (32 + 12 * block.columns.len()));
        let mut stamp = (usize::MAX, String::new());
        let mut digits = String::new();
        for row in rows {
            let (bar, instrument) = (block.bar + row / order.len(), order[row % order.len()]);
            if stamp.0 != bar {
                stamp = (bar, dates.format(self.timestamps[bar]));
            }
            text.extend_from_slice(stamp.1.as_bytes());
            text.push(b',');
            text.extend_from_slice(&cells[instrument]);
            let position = self.real.position(instrument, bar).map(|it| it - block.first[instrument]);
            for (price, column) in &block.columns {
                text.push(b',');
                let value = position.and_then(|position| column.get([instrument, position]));
                if let Some(value) = value.filter(|value| !value.is_nan()) {
                    digits.clear();
                    append_number(&mut digits, *value, *price)?;
                    text.extend_from_slice(digits.as_bytes());
                }
            }
            text.push(b'\n');
        }
        Ok(text)
    }
}

/// A line of a CSV file.
fn record(fields: &[&str]) -> Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(fields)?;
    csv.into_inner().context("writing a record to memory")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use phalanx::gpu::{Gpu, GpuOptions, Recorder};
    use phalanx::indicators::{Indicators, Panel, Series, parse};
    use phalanx::market::{Candles, GapPolicy};
    use phalanx::ndarray::Array2;

    fn panel() -> (Candles, Gpu, Panel) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/us4_daily.csv.gz");
        let candles = Candles::load(&[path], GapPolicy::Reject).unwrap();
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let views = [&candles.high, &candles.low, &candles.close].map(|prices| prices.view());
        let series = Series::upload(&gpu, views[0], views[1], views[2]).unwrap();
        let panel = Indicators::classic(&gpu).panel(&series).unwrap();
        Recorder::new(&gpu).run(&panel.commands()).unwrap();
        (candles, gpu, panel)
    }

    /// The text of the file for candles with these symbols, and the number of blocks that were read.
    fn text(candles: &Candles, symbols: &[String], gpu: &Gpu, panel: &Panel) -> Result<(String, usize)> {
        let (mut text, mut blocks) = (Vec::new(), 0);
        let names: Vec<&str> = panel.names().collect();
        let real = candles.real_bars();
        let table = Table { symbols, timestamps: &candles.timestamps, real: &real };
        table.write(&mut text, &names, |first, bars| {
            blocks += 1;
            Ok(panel.read_windows(gpu, first, bars)?)
        })?;
        Ok((String::from_utf8(text)?, blocks))
    }

    #[test]
    fn every_candle_has_a_row_and_every_value_round_trips() {
        let (candles, gpu, panel) = panel();
        let values = panel.read(&gpu).unwrap();
        let (text, _) = text(&candles, &candles.symbols, &gpu, &panel).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header: Vec<_> = reader.headers().unwrap().iter().map(str::to_string).collect();
        let expected = "timestamp,symbol,rsi,macd,macd_signal,macd_hist,bb_upper,bb_middle,bb_lower,atr,mom,\
                        stoch_k,stoch_d";
        assert_eq!(header.join(","), expected);
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), candles.symbols.len() * candles.bars());
        for (i, row) in rows.iter().enumerate() {
            let (bar, instrument) = (i / candles.symbols.len(), i % candles.symbols.len());
            let date = candles.timestamps[bar].date().to_string();
            assert_eq!((&row[0], &row[1]), (&*date, &*candles.symbols[instrument]));
            for (name, text) in values.names().zip(row.iter().skip(2)) {
                let value = values.get(name).unwrap()[[instrument, bar]];
                if value.is_nan() {
                    assert_eq!(text, "", "{name}, row {i}");
                } else if values.unit(name) == Some(Unit::Price) {
                    let got: f64 = text.parse().unwrap();
                    assert!((got - value).abs() <= 1e-11 * value.abs(), "{name}, row {i}: {text}");
                } else {
                    assert_eq!(text.parse::<f32>().unwrap(), value as f32, "{name}, row {i}");
                }
                assert!(text.len() <= 15, "{name}, row {i}: {text}");
            }
        }
    }

    #[test]
    fn rows_are_sorted_by_symbol_and_names_are_quoted() {
        let (candles, gpu, panel) = panel();
        let symbols = ["D", "b,c", "=1+2", "A"].map(str::to_string);
        let (all, _) = text(&candles, &symbols, &gpu, &panel).unwrap();
        let starts: Vec<_> = all.lines().skip(1).take(5).map(|line| line.trim_end_matches(',')).collect();
        let days =
            ["2004-08-19,'=1+2", "2004-08-19,A", "2004-08-19,D", "2004-08-19,\"b,c\"", "2004-08-20,'=1+2"];
        assert_eq!(starts, days);
        let error = text(&candles, &symbols[..3], &gpu, &panel).unwrap_err().to_string();
        assert!(error.starts_with("first bars: expected 4"), "{error}");
    }

    /// More rows than one block, and filled bars, which have the values of the last real one.
    #[test]
    fn blocks_and_filled_bars_have_the_values_of_the_whole() {
        let bars = 70_000;
        let start = phalanx::market::parse_timestamp("2020-01-01").unwrap();
        let seconds = phalanx::jiff::SignedDuration::from_secs;
        let timestamps = (0..bars).map(|bar| start.saturating_add(seconds(bar as i64))).collect();
        let filled = Array2::from_shape_fn((2, bars), |(i, bar)| bar > 0 && (bar + i) % (3 + i) == 0);
        let mut close = Array2::from_shape_fn((2, bars), |(i, bar)| 50.0 + ((bar * (7 + i)) % 41) as f64);
        for i in 0..2 {
            for bar in 1..bars {
                if filled[[i, bar]] {
                    close[[i, bar]] = close[[i, bar - 1]];
                }
            }
        }
        let symbols = vec!["A".to_string(), "B".to_string()];
        let [open, high, low] = [0; 3].map(|_| close.clone());
        let candles = Candles::new(symbols, timestamps, open, high, low, close, None).unwrap();
        let candles = candles.with_filled(filled).unwrap();
        let (gpu, real) = (panel().1, candles.real_bars());
        let prices = real.compact(candles.close.view());
        let series = Series::upload(&gpu, prices.view(), prices.view(), prices.view()).unwrap();
        let indicators = Indicators::new(&gpu).with(parse("mom").unwrap()).with(parse("donchian").unwrap());
        let panel = indicators.panel(&series).unwrap();
        Recorder::new(&gpu).run(&panel.commands()).unwrap();
        let (text, blocks) = text(&candles, &candles.symbols, &gpu, &panel).unwrap();
        assert_eq!((text.lines().count(), blocks), (2 * bars + 1, 3));
        let values = panel.read(&gpu).unwrap();
        let columns: Vec<_> = values.names().map(|name| real.expand(values.get(name).unwrap())).collect();
        for (row, line) in text.lines().skip(1).enumerate() {
            let (bar, instrument) = (row / 2, row % 2);
            for (column, field) in columns.iter().zip(line.split(',').skip(2)) {
                let value = column[[instrument, bar]];
                assert_eq!(
                    field.parse().ok(),
                    Some(value).filter(|it| !it.is_nan()),
                    "{bar} {instrument}: {line}"
                );
            }
        }
    }
}
