//! `indicators`: writes technical indicators of candles to a CSV file.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use phalanx::files::write_atomically;
use phalanx::gpu::{Gpu, Recorder};
use phalanx::indicators::{Indicator, Indicators, Input, NAMES, Series, Unit, Values, parse};
use phalanx::market::{LoadOptions, RealBars, TimestampFormat};

use crate::IndicatorsArgs;
use crate::console::{note, say};
use crate::run::load;

pub fn indicators(args: &IndicatorsArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<()> {
    crate::inputs::keep(&args.data, &args.out)?;
    let candles = load(&args.data, &LoadOptions { gaps: args.gaps, adjust: args.adjust })?;
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
    crate::console::busy("computing the indicators");
    let panel = selected(&gpu, &args.indicators, candles.volume.is_some())?.panel(&series)?;
    Recorder::new(&gpu).run(&panel.commands())?;
    let dates = TimestampFormat::of(&candles.timestamps);
    let timestamps: Vec<String> =
        candles.timestamps.iter().map(|timestamp| dates.format(*timestamp)).collect();
    crate::console::busy("writing the indicators");
    write_csv(&args.out, &candles.symbols, &timestamps, &panel.read(&gpu)?, &real)?;
    for (name, text) in crate::gaps::lines(&candles) {
        note!("{name:<10}{text}");
    }
    say!("wrote {} rows to {}", candles.bars() * candles.instruments(), args.out.display());
    Ok(())
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

/// Writes one row per candle, sorted by timestamp, then by symbol. Fields are empty during warm-up. The file is written
/// atomically.
pub fn write_csv(
    out: &Path,
    symbols: &[String],
    timestamps: &[String],
    values: &Values,
    real: &RealBars,
) -> Result<()> {
    let columns: Vec<_> = values
        .names()
        .filter_map(|name| Some((name, values.unit(name)? == Unit::Price, real.expand(values.get(name)?))))
        .collect();
    for (name, _, column) in &columns {
        let expected = (symbols.len(), timestamps.len());
        ensure!(column.dim() == expected, "{name}: {:?} values for {expected:?} candles", column.dim());
    }
    let mut order: Vec<usize> = (0..symbols.len()).collect();
    order.sort_by_key(|&instrument| &symbols[instrument]);
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["timestamp", "symbol"].into_iter().chain(columns.iter().map(|(name, ..)| *name)))?;
    for (bar, timestamp) in timestamps.iter().enumerate() {
        for &instrument in &order {
            csv.write_field(timestamp)?;
            csv.write_field(&symbols[instrument])?;
            for (_, price, column) in &columns {
                csv.write_field(field(column[[instrument, bar]], *price))?;
            }
            csv.write_record(None::<&[u8]>)?;
        }
    }
    let text = csv.into_inner().context("writing rows to memory")?;
    Ok(write_atomically(out, &text)?)
}

/// The shortest decimal that parses to the same value, empty for NaN. An oscillator is an f32. A price is the sum of an f32 and an
/// f64 close: it is rounded to 12 significant digits, since all further ones are rounding errors.
fn field(value: f64, price: bool) -> String {
    if value.is_nan() {
        return String::new();
    }
    let shortest: &dyn Shortest =
        if price { &format!("{value:.11e}").parse::<f64>().unwrap_or(value) } else { &(value as f32) };
    // `Display` never uses an exponent and would print many zeros for a tiny number.
    if value != 0.0 && value.abs() < 1e-5 { format!("{shortest:e}") } else { format!("{shortest}") }
}

/// Numbers that print with the fewest digits that identify them.
trait Shortest: std::fmt::Display + std::fmt::LowerExp {}

impl Shortest for f32 {}
impl Shortest for f64 {}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx::gpu::GpuOptions;
    use phalanx::market::{Candles, GapPolicy};

    fn panel() -> (Candles, Values) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/us4_daily.csv.gz");
        let candles = Candles::load(&[path], GapPolicy::Reject).unwrap();
        let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).unwrap();
        let views = [&candles.high, &candles.low, &candles.close].map(|prices| prices.view());
        let series = Series::upload(&gpu, views[0], views[1], views[2]).unwrap();
        let panel = Indicators::classic(&gpu).panel(&series).unwrap();
        Recorder::new(&gpu).run(&panel.commands()).unwrap();
        let values = panel.read(&gpu).unwrap();
        (candles, values)
    }

    #[test]
    fn every_candle_has_a_row_and_every_value_round_trips() {
        let (candles, values) = panel();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("indicators.csv");
        let timestamps: Vec<String> = candles.timestamps.iter().map(ToString::to_string).collect();
        write_csv(&path, &candles.symbols, &timestamps, &values, &candles.real_bars()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are removed");

        let mut reader = csv::Reader::from_path(&path).unwrap();
        let header: Vec<_> = reader.headers().unwrap().iter().map(str::to_string).collect();
        let expected = "timestamp,symbol,rsi,macd,macd_signal,macd_hist,bb_upper,bb_middle,bb_lower,atr,mom,\
                        stoch_k,stoch_d";
        assert_eq!(header.join(","), expected);
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), candles.symbols.len() * timestamps.len());
        for (i, row) in rows.iter().enumerate() {
            let (bar, instrument) = (i / candles.symbols.len(), i % candles.symbols.len());
            assert_eq!((&row[0], &row[1]), (&*timestamps[bar], &*candles.symbols[instrument]));
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
        let (candles, values) = panel();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("indicators.csv");
        let timestamps: Vec<String> = (0..candles.timestamps.len()).map(|t| t.to_string()).collect();
        let symbols = ["D", "b,c", "C", "A"].map(str::to_string);
        write_csv(&path, &symbols, &timestamps, &values, &candles.real_bars()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let starts: Vec<_> = text.lines().skip(1).take(5).map(|line| line.trim_end_matches(',')).collect();
        assert_eq!(starts, ["0,A", "0,C", "0,D", "0,\"b,c\"", "1,A"]);
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
            (f64::NAN, false, ""),
            (50.0, false, "50"),
            (f64::from(0.1f32), false, "0.1"),
            (f64::from(-1.25e-7f32), false, "-1.25e-7"),
            (0.0, false, "0"),
            (100_000.123_456_789, true, "100000.123457"),
            (0.1 + 0.2, true, "0.3"),
        ];
        for (value, price, text) in cases {
            assert_eq!(field(value, price), text);
        }
    }

    #[test]
    fn candles_of_another_shape_are_rejected() {
        let (candles, values) = panel();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("indicators.csv");
        let real = candles.real_bars();
        let error =
            write_csv(&path, &candles.symbols, &["one".into()], &values, &real).unwrap_err().to_string();
        assert!(error.contains("rsi") && !path.exists(), "{error}");
    }
}
