//! Numbers of the original packages (`tests/fixtures/research.py`), and helpers shared by the tests.

use jiff::ToSpan;
use jiff::civil::date;
use ndarray::Array2;
use serde_json::Value;

use crate::backtest::{PeriodsPerYear, ReplayOptions};
use crate::env::ledger::Costs;
use crate::market::Candles;
use crate::random::Stream;

/// One key of the fixture.
pub(super) fn golden(key: &str) -> Value {
    let golden: Value = serde_json::from_str(include_str!("../../tests/fixtures/research.json")).unwrap();
    golden[key].clone()
}

pub(super) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

pub(super) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

pub(super) fn matrix(value: &Value) -> Array2<f64> {
    let rows: Vec<Vec<f64>> = value.as_array().unwrap().iter().map(numbers).collect();
    Array2::from_shape_vec((rows.len(), rows[0].len()), rows.concat()).unwrap()
}

/// Within a share of the wanted value.
pub(super) fn close_to(what: &str, got: impl Into<Option<f64>>, want: f64, share: f64) {
    let got = got.into().unwrap_or(f64::NAN);
    assert!((got - want).abs() <= share * want.abs().max(1e-3), "{what}: got {got}, want {want}");
}

/// Independent normal values.
pub(super) fn normals(seed: u64, count: usize) -> Vec<f64> {
    let mut stream = Stream::new(seed, 0);
    (0..count).map(|_| stream.normal()).collect()
}

/// .01 sin(.7 (k + 1) t + k^2) + .0005 (k - 2): 48 bars of six trials, whose values were checked in two other ways.
pub(super) fn sines() -> Array2<f64> {
    Array2::from_shape_fn((48, 6), |(t, k)| {
        let (t, k) = (t as f64, k as f64);
        0.01 * (0.7 * (k + 1.0) * t + k * k).sin() + 0.0005 * (k - 2.0)
    })
}

/// Daily candles from 2024-01-01 on, with prices `price(instrument, bar)` at open and close.
pub(super) fn candles(instruments: usize, bars: usize, price: impl Fn(usize, usize) -> f64) -> Candles {
    let start = date(2024, 1, 1).at(0, 0, 0, 0);
    let close = Array2::from_shape_fn((instruments, bars), |(i, bar)| price(i, bar));
    let symbols = (0..instruments).map(|i| format!("S{i}")).collect();
    let timestamps = (0..bars as i64).map(|day| start + day.days()).collect();
    let prices = || close.clone();
    Candles::new(symbols, timestamps, prices(), prices(), prices(), prices(), None).unwrap()
}

/// An account without costs.
pub(super) fn options() -> ReplayOptions {
    ReplayOptions {
        costs: Costs::NONE,
        max_leverage: None,
        starting_equity: 1000.0,
        bankruptcy_level: 0.1,
        periods_per_year: PeriodsPerYear::given(252.0).unwrap(),
    }
}
