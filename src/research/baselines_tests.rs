use super::super::testing::{candles, options};
use super::*;

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
