//! `indicators`: writes technical indicators of candles to a CSV file.

use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use phalanx::Error;
use phalanx::files::AtomicFile;
use phalanx::gpu::{Gpu, Recorder};
use phalanx::indicators::{Indicator, Indicators, Input, NAMES, Series, Unit, Values, parse};
use phalanx::jiff::civil::DateTime;
use phalanx::market::{LoadOptions, RealBars, TimestampFormat, symbol_cell};
use phalanx::ndarray::ArrayView2;

use crate::IndicatorsArgs;
use crate::console::{note, say};
use crate::run::{DataSettings, Settings, load};

/// Rows that are in memory at a time.
const BLOCK: usize = 1 << 16;
/// Bars of every instrument that are in memory at a time, at least.
const LEAST_BARS: usize = 64;

pub fn indicators(args: &IndicatorsArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<()> {
    crate::inputs::keep(&args.data, &args.out)?;
    // Of an earlier process that was killed.
    let folder = args.out.parent().filter(|folder| !folder.as_os_str().is_empty());
    phalanx::files::remove_stale(folder.unwrap_or(Path::new(".")))?;
    let data = data_settings(args)?;
    let options = LoadOptions { gaps: data.gaps, adjust: data.adjust, limits: data.limits };
    let candles = load(&args.data, &options)?;
    let gpu = open()?;
    // A filled bar must not shorten a window: indicators see real bars only, and their values are carried over filled ones.
    let real = candles.real_bars();
    let [high, low, close] =
        [&candles.high, &candles.low, &candles.close].map(|prices| real.compact(prices.view()));
    let (high, low, close) = (high.view(), low.view(), close.view());
    let series = match &candles.volume {
        Some(volume) => Series::with_volume(&gpu, high, low, close, real.compact(volume.view()).view())?,
        None => Series::upload(&gpu, high, low, close)?,
    };
    let selected = selected(&gpu, &args.indicators, candles.volume.is_some())?;
    let gaps = crate::gaps::lines(&candles);
    // From here on the prices are needed on the device only.
    let (symbols, timestamps) = (candles.symbols, candles.timestamps);
    drop((candles.open, candles.high, candles.low, candles.close, candles.volume, candles.filled));
    crate::console::busy("computing the indicators");
    let panel = selected.panel(&series)?;
    Recorder::new(&gpu).run(&panel.commands())?;
    let table = Table { symbols: &symbols, timestamps: &timestamps, real: &real };
    let names: Vec<&str> = panel.names().collect();
    crate::console::busy("writing the indicators");
    atomically(&args.out, |file| {
        table.write(file, &names, |first, bars| Ok(panel.read_windows(&gpu, first, bars)?))
    })?;
    for (name, text) in gaps {
        note!("{name:<10}{text}");
    }
    say!("wrote {} rows to {}", timestamps.len() * symbols.len(), args.out.display());
    Ok(())
}

/// The settings of candle files, of which the options `--gaps` and `--adjust` are two.
fn data_settings(args: &IndicatorsArgs) -> Result<DataSettings> {
    let mut sets = args.sets.clone();
    if let Some(other) = sets.iter().find(|set| !set.trim_start().starts_with("data.")) {
        bail!("--set {other}: indicators have settings of candle files only, whose names begin with `data.`");
    }
    sets.extend(args.gaps.map(|gaps| format!("data.gaps={gaps}")));
    sets.extend(args.adjust.map(|adjust| format!("data.adjust={adjust}")));
    Ok(Settings::read(None, &sets)?.data)
}

/// The selected indicators; by default all that the candles' columns suffice for.
fn selected(gpu: &Gpu, wanted: &[String], volume: bool) -> Result<Indicators> {
    let mut indicators = Indicators::new(gpu);
    for text in wanted {
        // A column name precedes the first `=`, unless the `=` belongs to a parameter.
        let (name, indicator) = match text.split_once('=') {
            Some((name, rest)) if !name.contains(':') => (Some(name.trim()), rest),
            _ => (None, text.as_str()),
        };
        indicators = indicators.with(parse(indicator)?);
        if let Some(name) = name {
            indicators = indicators.named(name);
        }
    }
    if wanted.is_empty() {
        for name in NAMES {
            let indicator = parse(name)?;
            if volume || indicator.spec()?.input != Input::Trades {
                indicators = indicators.with(indicator);
            }
        }
    }
    Ok(indicators)
}

/// Writes a file that appears when it is complete.
fn atomically(path: &Path, write: impl FnOnce(&mut BufWriter<AtomicFile>) -> Result<()>) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?);
    write(&mut file)?;
    Ok(file.into_inner().map_err(|error| Error::io(path)(error.into_error()))?.commit()?)
}

/// Rows of the file: one per candle, sorted by timestamp, then by symbol.
struct Table<'a> {
    symbols: &'a [String],
    timestamps: &'a [DateTime],
    real: &'a RealBars,
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
    fn write(
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

/// Appends the shortest decimal that parses to the same value. An oscillator is an f32. A price is the sum of an f32 and an
/// f64 close: it is rounded to 12 significant digits, since all further ones are rounding errors.
fn append_number(out: &mut String, value: f64, price: bool) -> std::fmt::Result {
    // `Display` never uses an exponent and would print many zeros for a tiny number.
    let tiny = value != 0.0 && value.abs() < 1e-5;
    if price {
        return append_price(out, value, tiny);
    }
    let value = value as f32;
    if tiny { write!(out, "{value:e}") } else { write!(out, "{value}") }
}

/// 12 significant digits without zeros at the end. So few digits are the shortest that parse to their value.
fn append_price(out: &mut String, value: f64, tiny: bool) -> std::fmt::Result {
    let start = out.len();
    write!(out, "{value:.11e}")?;
    let text = out.split_off(start);
    let parts =
        text.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)));
    let Some((digits, exponent)) = parts else {
        // Infinite.
        out.push_str(&text);
        return Ok(());
    };
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    out.push_str(sign);
    if tiny || !(-5..=11).contains(&exponent) {
        let point = if fraction.is_empty() { "" } else { "." };
        if tiny {
            return write!(out, "{whole}{point}{fraction}e{exponent}");
        }
        let rounded: f64 = text.trim_start_matches('-').parse().unwrap_or(value.abs());
        return write!(out, "{rounded}");
    }
    if let Ok(places @ 1..) = usize::try_from(-exponent) {
        out.push_str("0.");
        (1..places).for_each(|_| out.push('0'));
        out.push_str(whole);
        out.push_str(fraction);
        return Ok(());
    }
    let before = usize::try_from(exponent).unwrap_or(0);
    out.push_str(whole);
    match fraction.split_at_checked(before) {
        Some((before, after)) => {
            out.push_str(before);
            if !after.is_empty() {
                out.push('.');
                out.push_str(after);
            }
        }
        None => {
            out.push_str(fraction);
            (fraction.len()..before).for_each(|_| out.push('0'));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx::gpu::GpuOptions;
    use phalanx::indicators::Panel;
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

    #[test]
    fn indicators_can_be_selected_and_named() {
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let warm_up = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            selected(&gpu, &wanted, false)?.warm_up().map_err(anyhow::Error::from)
        };
        assert_eq!(warm_up(&["sma:period=10", "slow=sma:period=50"]).unwrap(), 49);
        assert_eq!(warm_up(&[]).unwrap(), 33);
        assert!(warm_up(&["sma", "sma:period=9"]).unwrap_err().to_string().contains("named"));
        assert!(warm_up(&["sna"]).unwrap_err().to_string().contains("unknown indicator `sna`"));
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (50.0, false, "50"),
            (f64::from(0.1f32), false, "0.1"),
            (f64::from(-1.25e-7f32), false, "-1.25e-7"),
            (0.0, false, "0"),
            (100_000.123_456_789, true, "100000.123457"),
            (0.1 + 0.2, true, "0.3"),
        ];
        for (value, price, expected) in cases {
            assert_eq!(field(value, price), expected);
        }
    }

    fn field(value: f64, price: bool) -> String {
        let mut text = String::new();
        append_number(&mut text, value, price).unwrap();
        text
    }

    /// The digits of a price are those of the f64 that is nearest to its first twelve.
    #[test]
    fn prices_have_the_shortest_of_twelve_digits() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut cases = vec![
            1.0,
            10.0,
            123_456_789_012.0,
            1e11,
            1e12,
            999_999_999_999.5,
            1e-5,
            9.999_999_999_999e-6,
            0.1 + 0.2,
            0.0,
            1e300,
        ];
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let digits = (state >> 20) as f64 / f64::from(1 << 30);
            cases.push(digits * 10_f64.powi((state % 29) as i32 - 14));
            cases.push((digits.floor() / 100.0) * if state & 64 == 0 { 1.0 } else { -1.0 });
        }
        for value in cases {
            let rounded: f64 = format!("{value:.11e}").parse().unwrap();
            let tiny = value != 0.0 && value.abs() < 1e-5;
            let expected = if tiny { format!("{rounded:e}") } else { format!("{rounded}") };
            assert_eq!(field(value, true), expected);
        }
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("indicators.csv");
        atomically(&path, |file| Ok(file.write_all(b"one")?)).unwrap();
        atomically(&path, |_| anyhow::bail!("no values")).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are removed");
    }
}
