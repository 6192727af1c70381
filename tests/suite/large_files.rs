//! Time and memory of loading large candle files. They run where `PHALANX_LARGE` is set, as `make test-nightly` does.

use crate::testing::skip;
use phalanx::market::{Candles, GapPolicy};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Largest growth of the process's memory while a file of about 94 MiB is loaded.
const MOST_MIB: f64 = 400.0;
/// Takes about 5 s in the development profile; a busy machine may be many times slower.
const MOST_SECONDS: f64 = 180.0;

/// One file at a time: the memory is that of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// Writes `bars` one-minute bars of each of `symbols` instruments.
fn write(path: &Path, symbols: u32, bars: u32) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    writeln!(file, "timestamp,symbol,open,high,low,close,volume")?;
    for bar in 0..bars {
        let price = 100.0 + f64::from(bar % 977) / 100.0;
        for symbol in 0..symbols {
            let time = 1_000_000_000 + 60 * u64::from(bar);
            writeln!(file, "{time},S{symbol},{price},{},{},{price},{bar}", price + 0.5, price - 0.5)?;
        }
    }
    file.flush()
}

/// The peak memory of this process in MiB, where the system reports it.
fn peak() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

fn check(symbols: u32, bars: u32) {
    if std::env::var_os("PHALANX_LARGE").is_none() {
        return skip("PHALANX_LARGE is not set: large candle files are not loaded");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("large.csv");
    write(&path, symbols, bars).expect("disk space");
    let size = std::fs::metadata(&path).expect("the file").len() >> 20;
    // Linux: the peak starts anew from the present memory. Elsewhere earlier tests may hide a part of the growth.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let (before, start) = (peak(), Instant::now());
    let candles = Candles::load(&[&path], GapPolicy::Reject).expect("valid candles");
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!((candles.instruments(), candles.bars()), (symbols as usize, bars as usize));
    assert!(seconds < MOST_SECONDS, "{seconds:.1} s");
    println!("{symbols} x {bars} bars, {size} MiB of CSV: {seconds:.1} s");
    match before.zip(peak()).map(|(before, after)| after - before) {
        Some(growth) => {
            println!("the memory grew by {growth:.0} MiB");
            assert!(growth < MOST_MIB, "the memory grew by {growth:.0} MiB");
        }
        None => skip("the system does not report the peak memory of a process"),
    }
}

#[test]
fn two_million_bars() {
    check(1, 2_000_000);
}

#[test]
fn two_thousand_symbols() {
    check(2_000, 1_000);
}
