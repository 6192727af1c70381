//! `indicators`: candles in, a CSV of technical indicators out.

use std::io::Write as _;

use anyhow::Result;
use phalanx::files::write_atomically;
use phalanx::gpu::{Gpu, Recorder};
use phalanx::indicators::{Indicators, Parameters, Series, Values};
use phalanx::market::Candles;

use crate::IndicatorsArgs;
use crate::run::DataSettings;

pub fn indicators(args: &IndicatorsArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<()> {
    let candles = DataSettings::default().load(&args.data)?;
    let gpu = open()?;
    let series = Series::upload(&gpu, candles.high.view(), candles.low.view(), candles.close.view())?;
    let panel = Indicators::new(&gpu, Parameters::default())?.panel(&series)?;
    Recorder::new(&gpu).run(&panel.commands())?;
    let values = panel.read(&gpu)?;
    write_atomically(&args.out, &csv(&candles, &values)?)?;
    println!("{} rows in {}", candles.bars() * candles.instruments(), args.out.display());
    Ok(())
}

/// A row per candle, by timestamp, then by symbol; empty where there is no value yet.
fn csv(candles: &Candles, values: &Values) -> Result<Vec<u8>> {
    let columns = values.columns();
    let mut text = Vec::new();
    write!(text, "timestamp,symbol")?;
    columns.iter().try_for_each(|(name, _)| write!(text, ",{name}"))?;
    for (bar, timestamp) in candles.timestamps.iter().enumerate() {
        for (instrument, symbol) in candles.symbols.iter().enumerate() {
            write!(text, "\n{timestamp},{symbol}")?;
            for (_, column) in &columns {
                let value = column[[instrument, bar]];
                if value.is_nan() {
                    write!(text, ",")?;
                } else {
                    write!(text, ",{value}")?;
                }
            }
        }
    }
    writeln!(text)?;
    Ok(text)
}
