//! The device's accounts against those of the f64 ledger, rule by rule.

use jiff::ToSpan;
use jiff::civil::date;
use ndarray::Array2;

use super::*;
use crate::backtest::{PeriodsPerYear, account};
use crate::env::ledger::Costs;
use crate::random::Stream;
use crate::testing::both_classes;

/// Random walks that open with gaps, at irregular times; the first instrument costs about 50.
fn candles(instruments: usize, bars: usize, deviation: f64, seed: u64) -> Candles {
    let mut stream = Stream::new(seed, 21);
    let shape = (instruments, bars);
    let (mut open, mut close) = (Array2::zeros(shape), Array2::zeros(shape));
    for i in 0..instruments {
        let mut price = 50.0 * (i * i + 1) as f64;
        for bar in 0..bars {
            price *= (0.3 * deviation * stream.normal()).exp();
            open[[i, bar]] = price;
            price *= (deviation * stream.normal()).exp();
            close[[i, bar]] = price;
        }
    }
    of_prices(open, close)
}

fn of_prices(open: Array2<f64>, close: Array2<f64>) -> Candles {
    let (instruments, bars) = open.dim();
    let start = date(2001, 1, 1).at(0, 0, 0, 0);
    let hours = |bar: usize| (24 * bar + bar * bar % 19) as i64;
    let high = ndarray::Zip::from(&open).and(&close).map_collect(|a, b| a.max(*b));
    let low = ndarray::Zip::from(&open).and(&close).map_collect(|a, b| a.min(*b));
    let timestamps = (0..bars).map(|bar| start + hours(bar).hours()).collect();
    let symbols = (0..instruments).map(|i| format!("S{i}")).collect();
    Candles::new(symbols, timestamps, open, high, low, close, None).unwrap()
}

/// Every ninth bar or so is filled, but those of the first instrument.
fn with_filled_bars(mut candles: Candles) -> Candles {
    let mask =
        Array2::from_shape_fn(candles.close.dim(), |(i, bar)| i > 0 && bar > 0 && (bar * 7 + i) % 9 < 2);
    for ((i, bar), _) in mask.indexed_iter().filter(|(_, filled)| **filled) {
        let close = candles.close[[i, bar - 1]];
        for prices in [&mut candles.open, &mut candles.high, &mut candles.low, &mut candles.close] {
            prices[[i, bar]] = close;
        }
    }
    candles.with_filled(mask).unwrap()
}

fn with_funding(candles: Candles) -> Candles {
    let mut stream = Stream::new(8, 22);
    let filled = |at: (usize, usize)| candles.filled.as_ref().is_some_and(|mask| mask[at]);
    let rates =
        Array2::from_shape_fn(
            candles.close.dim(),
            |at| {
                if filled(at) { 0.0 } else { 1e-3 * stream.normal() }
            },
        );
    candles.with_funding(rates).unwrap()
}

/// Targets that change every few bars, one instrument at a time.
fn targets(decisions: usize, instruments: usize, levels: &[f64], seed: u64) -> Array2<f64> {
    let mut stream = Stream::new(seed, 23);
    let mut current = vec![0.0; instruments];
    Array2::from_shape_fn((decisions, instruments), |(_, i)| {
        if stream.uniform() < 0.3 {
            current[i] = levels[(stream.uniform() * levels.len() as f64) as usize];
        }
        current[i]
    })
}

fn options(costs: Costs, max_leverage: Option<f64>, bankruptcy_level: f64) -> ReplayOptions {
    let periods_per_year = PeriodsPerYear::given(252.0).unwrap();
    ReplayOptions { costs, max_leverage, starting_equity: 20_000.0, bankruptcy_level, periods_per_year }
}

/// Equity, and mean and deviation of the returns of a bar, in f64.
fn reference(
    candles: &Candles,
    bars: &Range<usize>,
    targets: &Array2<f64>,
    options: &ReplayOptions,
    shift: usize,
) -> [f64; 3] {
    let rows = targets.nrows();
    let shifted = Array2::from_shape_fn(targets.dim(), |(row, i)| targets[[(row + shift) % rows, i]]);
    let metrics = account(candles, bars, shifted.view(), options).unwrap();
    let deviation = metrics.volatility.unwrap() / 252f64.sqrt();
    let mean = metrics.sharpe.map_or(f64::NAN, |sharpe| sharpe / 252f64.sqrt() * deviation);
    [metrics.total_return + 1.0, mean, deviation]
}

/// Compares draws of all classes with the ledger, and returns how many of the accounts were closed.
fn compare(
    case: &str,
    candles: &Candles,
    bars: &Range<usize>,
    targets: &Array2<f64>,
    options: &ReplayOptions,
) -> usize {
    let rows = targets.nrows();
    let step = (rows / 40).max(1);
    let shifts: Vec<usize> = (0..rows).step_by(step).collect();
    let expected: Vec<_> =
        shifts.iter().map(|shift| reference(candles, bars, targets, options, *shift)).collect();
    for gpu in &both_classes() {
        let found = trade(gpu, (candles, bars), targets.view(), options, &shifts).unwrap();
        assert_eq!(found.len(), shifts.len());
        for ((shift, found), [equity, mean, deviation]) in shifts.iter().zip(&found).zip(&expected) {
            let count = rows as f64;
            let own = found.returns / count;
            let spread = ((found.squares - count * own * own) / (count - 1.0)).sqrt();
            let close = |got: f64, want: f64, error: f64| (got - want).abs() <= error;
            // The Sharpe ratio of a bar, at which draws are told apart, has to be a good deal nearer than `NEAR`.
            assert!(
                close(found.equity, *equity, 3e-5 * equity.abs().max(1.0))
                    && close(spread, *deviation, 1e-4 * deviation)
                    && close(own / spread, mean / deviation, 4e-6),
                "{case}, {:?}, shift {shift}: {found:?}, mean {own}, deviation {spread}, for {equity}, {mean}, {deviation}",
                gpu.class()
            );
        }
    }
    expected.iter().filter(|[equity, ..]| *equity <= options.bankruptcy_level).count()
}

const ALL: Costs = Costs {
    commission_bps: 3.0,
    slippage_bps: 1.0,
    commission_per_unit: 0.005,
    min_commission: 2.0,
    spread_bps: Vec::new(),
    borrow_rate: 0.06,
    cash_rate: 0.03,
    margin_rate: 0.09,
};

#[test]
fn device_and_ledger_agree_on_every_rule() {
    let signs = [-1.0, 0.0, 1.0];
    let large = [-1.5, -0.5, 0.0, 1.0, 2.5];
    let candles = candles(3, 331, 0.01, 5);
    let spreads = Costs { spread_bps: vec![2.0, 9.0, 40.0], ..Costs::default() };
    let financing = Costs { commission_bps: 0.0, slippage_bps: 0.0, ..ALL };
    let cases: [(&str, &[f64], Costs, Option<f64>); 9] = [
        ("free", &signs, Costs::NONE, None),
        ("commission and slippage", &signs, Costs::default(), None),
        ("spreads", &signs, spreads, None),
        ("commission per unit", &signs, Costs { commission_per_unit: 0.02, ..Costs::NONE }, None),
        ("minimum commission", &signs, Costs { min_commission: 3.0, ..Costs::default() }, None),
        ("leverage limit", &large, Costs::default(), Some(1.1)),
        ("low leverage limit", &large, Costs::NONE, Some(0.3)),
        ("financing", &large, financing, None),
        ("everything", &large, Costs { spread_bps: vec![2.0, 9.0, 40.0], ..ALL }, Some(1.1)),
    ];
    for (case, levels, costs, limit) in cases {
        let targets = targets(330, 3, levels, 9);
        compare(case, &candles, &(0..331), &targets, &options(costs, limit, 0.0));
    }
    for (case, of) in [
        ("filled bars", with_filled_bars(candles.clone())),
        ("funding", with_funding(candles.clone())),
        ("both", with_funding(with_filled_bars(candles))),
    ] {
        for costs in [Costs::NONE, ALL] {
            let targets = targets(300, 3, &large, 9);
            compare(case, &of, &(17..318), &targets, &options(costs, Some(1.3), 0.1));
        }
    }
}

#[test]
fn sizes_are_odd_and_accounts_go_on_from_dispatch_to_dispatch() {
    for (instruments, bars) in [(1, 4), (1, 5), (2, 37), (7, 64), (31, 130)] {
        let candles = candles(instruments, bars + 3, 0.01, 6);
        let targets = targets(bars - 1, instruments, &[-1.0, 0.5, 1.0], 4);
        compare("sizes", &candles, &(2..bars + 2), &targets, &options(ALL, Some(0.9), 0.1));
    }
    // Two dispatches of 2,048 decisions, and one of four.
    let candles = candles(1, 4101, 0.002, 7);
    let targets = targets(4100, 1, &[-1.0, 0.0, 1.0], 4);
    compare("three dispatches", &candles, &(0..4101), &targets, &options(Costs::default(), None, 0.1));
}

#[test]
fn accounts_are_closed_where_the_ledger_closes_them() {
    let candles = candles(2, 300, 0.06, 8);
    let targets = targets(299, 2, &[-2.0, 0.0, 2.0, 3.0], 4);
    for level in [0.0, 0.2, 0.7] {
        let closed = compare("bankruptcy", &candles, &(0..300), &targets, &options(Costs::NONE, None, level));
        assert!(level == 0.0 || closed > 5, "{closed} accounts are closed at {level}");
    }
}

/// Prices of 30 orders of magnitude, and one that falls by the factor of a million overnight.
#[test]
fn extreme_prices_are_traded_as_others() {
    let mut candles = candles(3, 120, 0.01, 9);
    for prices in [&mut candles.open, &mut candles.high, &mut candles.low, &mut candles.close] {
        prices.row_mut(0).mapv_inplace(|price| price * 1e-16);
        prices.row_mut(1).mapv_inplace(|price| price * 1e12);
        prices.row_mut(2).slice_mut(ndarray::s![60..]).mapv_inplace(|price| price * 1e-6);
    }
    let candles = of_prices(candles.open, candles.close);
    let targets = targets(119, 3, &[-0.9, 0.0, 1.0], 4);
    compare("extreme prices", &candles, &(0..120), &targets, &options(Costs::default(), None, 0.1));
}

/// Two targets that f32 cannot tell apart are two: every change is an order, which costs the minimum commission.
#[test]
fn targets_that_are_equal_in_f32_are_told_apart() {
    let (one, other) = (1.0 / 3.0, 1.0 / 3.0 + 1e-12);
    let numbers = numbered(ndarray::array![[one, 0.0], [other, -0.0], [-1e-60, one]].view());
    let numbers: Vec<u32> = numbers.iter().map(|[_, number]| *number).collect();
    assert_eq!(numbers, [2, 0, 3, 0, 1, 2]);
    let candles = candles(1, 100, 0.01, 3);
    let targets = Array2::from_shape_fn((99, 1), |(row, _)| if row % 5 < 3 { one } else { other });
    let costs = Costs { min_commission: 20.0, ..Costs::NONE };
    compare("targets of one f32", &candles, &(0..100), &targets, &options(costs, None, 0.0));
}

#[test]
fn dispatches_are_short_and_cover_all_decisions() {
    for limited in [false, true] {
        for instruments in [1u64, 2, 28, 29, 30, 1000, 29_999, 30_000] {
            let decisions = decisions_of_a_dispatch(instruments, limited);
            assert!((1..=2048).contains(&decisions));
            if iterations(instruments, limited) <= MOST_ITERATIONS {
                assert!(decisions * iterations(instruments, limited) < 65_535, "{instruments}");
            }
            let limit = limited.then_some(1.0);
            let parts = parameters((5000, instruments as usize), &options(ALL, limit, 0.1), 7, true);
            let ends: Vec<u32> = parts.iter().map(|part| part.end).collect();
            let firsts: Vec<u32> = parts.iter().map(|part| part.first).collect();
            assert_eq!((firsts[0], *ends.last().unwrap()), (0, 5000));
            assert_eq!(firsts[1..], ends[..ends.len() - 1]);
            assert!(parts.iter().all(|part| u64::from(part.end - part.first) <= decisions));
        }
    }
}

#[test]
fn the_plan_is_small_and_what_does_not_fit_is_refused() {
    // 1,000 draws of 10,000 bars of 30 instruments, with funding.
    let usual = plan(9_999, 30, 1000, true);
    assert!(usual.bytes() < 10 << 20, "{} bytes", usual.bytes());
    let budget = Budget { total: 1 << 30, binding: 128 << 20, short_loops: false };
    fits(&budget, &usual, "a test").unwrap();
    let long = plan(1_000_000, 30, 1000, false);
    let error = fits(&budget, &long, "a test").unwrap_err().to_string();
    assert_eq!(
        error,
        "the largest buffer of a test needs 458 MiB and one buffer of this device has at most 128 MiB; test fewer bars, instruments \
         or draws, or on the CPU"
    );
    let error = fits(&Budget { total: 1 << 20, ..budget }, &usual, "a test").unwrap_err();
    assert!(matches!(error, Error::Budget { needed: 9.., budget: 1, .. }), "{error}");
    // More elements than an index of 32 bits can tell apart.
    let most = Budget { total: u64::MAX, binding: u64::from(u32::MAX), short_loops: false };
    assert!(matches!(fits(&most, &plan(1 << 20, 4096, 1, false), "a test"), Err(Error::Buffer { .. })));
}

#[test]
fn more_instruments_than_the_loops_of_a_software_adapter_allow_are_refused() {
    let gpu = crate::testing::gpu();
    if !gpu.stops_long_loops() {
        return crate::testing::skip("the adapter does not stop loops");
    }
    let candles = of_prices(Array2::from_elem((30_000, 4), 10.0), Array2::from_elem((30_000, 4), 11.0));
    let targets = Array2::from_elem((3, 30_000), 1.0);
    let trade =
        |limit| trade(&gpu, (&candles, &(0..4)), targets.view(), &options(Costs::NONE, limit, 0.1), &[1]);
    let error = trade(Some(1.0)).unwrap_err().to_string();
    assert!(
        error.contains("a bar of 30000 instruments needs 60001") && error.contains("on the CPU"),
        "{error}"
    );
    let [account] = trade(None).unwrap()[..] else { panic!("one draw") };
    // Bought at 10 in the second bar; 11 at its close and at the last.
    assert!((account.equity - 1.1).abs() < 1e-4, "{account:?}");
}
