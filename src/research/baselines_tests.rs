use jiff::ToSpan;
use jiff::civil::date;
use ndarray::array;

use super::*;
use crate::backtest::PeriodsPerYear;
use crate::env::ledger::Costs;

/// Daily candles from 2024-01-01 on, with prices `step(instrument, bar)` at open and close.
fn candles(instruments: usize, bars: usize, price: impl Fn(usize, usize) -> f64) -> Candles {
    let start = date(2024, 1, 1).at(0, 0, 0, 0);
    let close = Array2::from_shape_fn((instruments, bars), |(i, bar)| price(i, bar));
    let symbols = (0..instruments).map(|i| format!("S{i}")).collect();
    let timestamps = (0..bars as i64).map(|day| start + day.days()).collect();
    let prices = || close.clone();
    Candles::new(symbols, timestamps, prices(), prices(), prices(), prices(), None).unwrap()
}

fn options() -> ReplayOptions {
    ReplayOptions {
        costs: Costs::NONE,
        max_leverage: None,
        starting_equity: 1000.0,
        bankruptcy_level: 0.1,
        periods_per_year: PeriodsPerYear::given(252.0).unwrap(),
    }
}

/// One instrument doubles within a month, the other stands still: half of the gain is moved over at the first bar of the next month.
#[test]
fn equal_weights_are_restored_every_month() {
    let candles = candles(2, 64, |i, bar| if i == 0 && bar >= 10 { 20.0 } else { 10.0 });
    let rebalanced = Baseline::EqualWeight.replay(&candles, 0..64, &options()).unwrap();
    let held = Baseline::BuyAndHold.replay(&candles, 0..64, &options()).unwrap();
    assert_eq!((held.trades.len(), held.equity[63]), (2, 1500.0));
    // Bought after the first bar; sized anew after the decisions of 1 February and 1 March, whose orders fill a day later.
    let trades: Vec<_> = rebalanced.trades.iter().map(|it| (it.bar, it.trade.quantity)).collect();
    assert_eq!(trades, [(1, 50.0), (1, 50.0), (32, -12.5), (32, 25.0)]);
    assert_eq!(rebalanced.equity[63], 1500.0);
    let flat = Baseline::Flat.replay(&candles, 0..64, &options()).unwrap();
    assert_eq!((flat.trades.len(), flat.equity[63]), (0, 1000.0));
}

#[test]
fn momentum_looks_back_a_year_and_decides_monthly() {
    let price = |i: usize, bar: usize| {
        let bar = bar as f64;
        match i {
            0 => 100.0 + bar,
            1 => 300.0 - bar,
            _ => 100.0 + (bar - 60.0).abs(),
        }
    };
    let candles = candles(3, 130, price);
    let rule = |shorting| Baseline::Momentum { lookback: 20, shorting };
    let targets = momentum(&candles, &(30..130), 20, true).unwrap();
    for (row, targets) in targets.outer_iter().enumerate() {
        let bar = 30 + row;
        // The first bar, 31 January, then the first of February, March, April and May.
        let decided = [30, 31, 60, 91, 121].into_iter().rfind(|decided| *decided <= bar).unwrap();
        let wanted = |i| if price(i, decided) > price(i, decided - 20) { 1.0 } else { -1.0 };
        assert_eq!(targets.to_vec(), [wanted(0), wanted(1), wanted(2)], "bar {bar}");
    }
    assert_eq!((targets[[0, 2]], targets[[98, 2]]), (-1.0, 1.0));
    let long = rule(false).replay(&candles, 30..130, &options()).unwrap();
    assert!(long.positions.iter().all(|position| *position >= 0.0));
    assert!(rule(true).replay(&candles, 30..130, &options()).unwrap().equity[99] > long.equity[99]);
    let error = rule(true).replay(&candles, 19..130, &options()).unwrap_err().to_string();
    assert!(error.contains("looks back 20 bars, and 19 precede"), "{error}");
    for bars in [30..131, 30..usize::MAX, 0..1 << 40, 129..130, usize::MAX..usize::MAX] {
        for baseline in [rule(true), Baseline::Flat, Baseline::EqualWeight, Baseline::BuyAndHold] {
            assert!(matches!(baseline.replay(&candles, bars.clone(), &options()), Err(Error::Data(_))));
        }
    }
}

/// Positions that know the next bar are far beyond all draws; constant ones are equal to all.
#[test]
fn timing_that_knows_the_future_is_found_and_constant_positions_are_not() {
    let mut random = Stream::new(5, 1);
    let mut level = 100.0;
    let prices: Vec<f64> = (0..300)
        .map(|_| {
            level *= (0.01 * random.normal()).exp();
            level
        })
        .collect();
    let candles = candles(1, 300, |_, bar| prices[bar]);
    // Open and close are equal: an order after bar b fills at bar b + 1 and earns the change to b + 2.
    let knowing = Array2::from_shape_fn((299, 1), |(b, _)| {
        if prices.get(b + 2).is_some_and(|later| later > &prices[b + 1]) { 1.0 } else { -1.0 }
    });
    let test = |targets: &Array2<f64>, draws, seed| {
        random_timing(&candles, &(0..300), targets.view(), &options(), draws, seed).unwrap()
    };
    let found = test(&knowing, 200, 1);
    assert_eq!((found.sharpe.len(), found.p_value), (200, 1.0 / 201.0));
    assert_eq!(found, test(&knowing, 200, 1), "a seed gives the same draws");
    assert_ne!(found.sharpe, test(&knowing, 200, 2).sharpe);
    // No more draws than shifts, each of them once.
    let all = test(&knowing, 10_000, 1);
    assert_eq!(all.sharpe.len(), 298);
    assert_eq!(test(&Array2::ones((299, 1)), 50, 1).p_value, 1.0);
    assert_eq!(test(&Array2::zeros((299, 1)), 50, 1).p_value, 1.0);

    let error = |bars: Range<usize>, targets: &Array2<f64>, draws| {
        random_timing(&candles, &bars, targets.view(), &options(), draws, 1).unwrap_err().to_string()
    };
    assert!(error(0..3, &array![[1.0], [0.0]], 5).contains("3 bars are too few"));
    assert!(error(0..300, &knowing, 0).contains("`draws`"));
    assert!(error(0..200, &knowing, 5).contains("targets"));
}

/// Without knowledge p-values are uniform: positions drawn at random, on many markets.
#[test]
fn p_values_of_random_positions_are_uniform() {
    let mut random = Stream::new(9, 2);
    let mut p_values = Vec::new();
    for market in 0..120 {
        let mut level = 100.0;
        let prices: Vec<f64> = (0..80)
            .map(|_| {
                level *= (0.02 * random.normal()).exp();
                level
            })
            .collect();
        let candles = candles(1, 80, |_, bar| prices[bar]);
        let targets = Array2::from_shape_fn((79, 1), |_| (random.uniform() * 3.0).floor() - 1.0);
        let test = random_timing(&candles, &(0..80), targets.view(), &options(), 60, market).unwrap();
        p_values.push(test.p_value);
    }
    // 120 uniform numbers: below 0.2 are 24, with a deviation of 4.4.
    let below = |limit: f64| p_values.iter().filter(|p| **p <= limit).count();
    assert!((12..=37).contains(&below(0.2)), "{}", below(0.2));
    assert!((45..=75).contains(&below(0.5)), "{}", below(0.5));
}

#[test]
fn shifts_are_distinct_and_complete() {
    for (most, count) in [(1, 1), (10, 10), (50, 7)] {
        let mut drawn = distinct(most, count, 3);
        assert_eq!(drawn.len(), count);
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), count);
        assert!(drawn.iter().all(|shift| (1..=most).contains(shift)));
    }
}
