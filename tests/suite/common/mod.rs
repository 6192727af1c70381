//! Synthetic markets, reference indicators, and the trainer program, also in a pseudo-terminal.

pub mod allocations;
pub mod oracle;
pub mod panels;
pub mod program;
pub mod screen_picture;
pub mod terminal;

use jiff::ToSpan;
use jiff::civil::date;
use ndarray::Array2;
use phalanx::backtest::{ReplayOptions, infer_periods_per_year};
use phalanx::env::TradingSettings;
use phalanx::market::Candles;
use phalanx::random::Stream;

/// The account of an environment, as backtests trade it.
pub fn replay_options(settings: &TradingSettings, candles: &Candles) -> ReplayOptions {
    ReplayOptions {
        costs: settings.costs(&candles.symbols).unwrap(),
        max_leverage: settings.max_leverage,
        starting_equity: settings.starting_equity,
        bankruptcy_level: settings.bankruptcy_level,
        periods_per_year: infer_periods_per_year(&candles.timestamps),
    }
}

/// Daily candles of a random walk; `step(instrument, bar)` gives the log return from open to close.
pub fn candles(instruments: usize, bars: usize, mut step: impl FnMut(usize, usize) -> f64) -> Candles {
    let mut stream = Stream::new(77, 1);
    let shape = (instruments, bars);
    let [mut open, mut high, mut low, mut close, mut volume] = [0; 5].map(|_| Array2::zeros(shape));
    for i in 0..instruments {
        let mut price = 20.0 * (i + 1) as f64;
        for bar in 0..bars {
            let first = price * (0.001 * stream.normal()).exp();
            let last = first * step(i, bar).exp();
            open[[i, bar]] = first;
            close[[i, bar]] = last;
            high[[i, bar]] = first.max(last) * (1.0 + 0.002 * stream.uniform());
            low[[i, bar]] = first.min(last) * (1.0 - 0.002 * stream.uniform());
            volume[[i, bar]] = (1e4 * (1.0 + stream.uniform())).round();
            price = last;
        }
    }
    let symbols = (0..instruments).map(|i| format!("S{i}")).collect();
    let start = date(2001, 1, 1).at(0, 0, 0, 0);
    let timestamps = (0..bars).map(|bar| start.checked_add((bar as i64).days()).unwrap()).collect();
    Candles::new(symbols, timestamps, open, high, low, close, Some(volume)).unwrap()
}
