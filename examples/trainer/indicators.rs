//! `indicators`: writes technical indicators of candles to a CSV file.

mod digits;
mod table;

use std::io::BufWriter;
use std::path::Path;

use anyhow::Result;
use phalanx::Error;
use phalanx::files::{AtomicFile, remove_stale_beside};
use phalanx::gpu::{Gpu, Recorder};
use phalanx::indicators::{Indicator, Indicators, Input, NAMES, Series, parse};

use table::Table;

use crate::IndicatorsArgs;
use crate::console::{note, say};
use crate::run::{DataSettings, Settings, only};

pub fn indicators(args: &IndicatorsArgs, open: impl Fn() -> phalanx::Result<Gpu>) -> Result<()> {
    crate::inputs::keep(&args.data, &args.out)?;
    // Of an earlier process that was killed.
    remove_stale_beside(&args.out)?;
    let candles = crate::candles::load(&args.data, &data_settings(args)?)?;
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
    only(&sets, &["data."], "indicators have settings of candle files only")?;
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use phalanx::gpu::GpuOptions;

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
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("indicators.csv");
        atomically(&path, |file| Ok(file.write_all(b"one")?)).unwrap();
        atomically(&path, |_| anyhow::bail!("no values")).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are removed");
    }
}
