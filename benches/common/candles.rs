//! Candles for benchmarks.

use jiff::ToSpan;
use jiff::civil::date;
use ndarray::Array2;
use phalanx::market::Candles;
use phalanx::random::Stream;

/// Daily random walks from a fixed seed.
pub fn candles(instruments: usize, bars: usize) -> phalanx::Result<Candles> {
    let mut stream = Stream::new(1, 1);
    let mut close = Array2::zeros((instruments, bars));
    for i in 0..instruments {
        let mut price = 100.0;
        for bar in 0..bars {
            price *= (0.01 * stream.normal()).exp();
            close[[i, bar]] = price;
        }
    }
    let (high, low) = (close.mapv(|p: f64| p * 1.01), close.mapv(|p: f64| p * 0.99));
    let symbols = (0..instruments).map(|i| format!("S{i}")).collect();
    let start = date(2000, 1, 1).at(0, 0, 0, 0);
    let timestamps = (0..bars).map(|bar| start.saturating_add((bar as i64).days())).collect();
    Candles::new(symbols, timestamps, close.clone(), high, low, close, None)
}
