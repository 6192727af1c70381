use jiff::{ToSpan, civil::date};
use ndarray::array;

use super::*;

const FREE: Costs = Costs::NONE;

fn options(costs: Costs) -> ReplayOptions {
    ReplayOptions {
        costs,
        max_leverage: None,
        starting_equity: 1000.0,
        bankruptcy_level: 0.1,
        periods_per_year: PeriodsPerYear::given(252.0).unwrap(),
    }
}

fn candles(open: Array2<f64>, close: Array2<f64>) -> Candles {
    let start = date(2024, 1, 1).at(0, 0, 0, 0);
    Candles {
        symbols: ["AAA", "BBB", "CCC"].iter().take(open.nrows()).map(ToString::to_string).collect(),
        timestamps: (0..open.ncols() as i64).map(|day| start + day.days()).collect(),
        high: open.clone(),
        low: open.clone(),
        open,
        close,
        volume: None,
        filled: None,
        funding: None,
        dropped: Vec::new(),
    }
}

#[test]
fn an_order_fills_at_the_next_open() {
    // The first bar lies before the range. Orders: buy, hold, sell.
    let candles = candles(array![[9.0, 10.0, 12.0, 10.0, 16.0]], array![[9.0, 11.0, 15.0, 18.0, 99.0]]);
    let targets = array![[1.0], [1.0], [0.0]];
    let backtest = Backtest::replay(&candles, 1..5, targets.view(), &options(FREE)).unwrap();
    let units = 1000.0 / 12.0;
    assert_eq!(backtest.timestamps, candles.timestamps[1..5]);
    let wanted = [1000.0, units * 15.0, units * 18.0, units * 16.0];
    backtest
        .equity
        .iter()
        .zip(wanted)
        .for_each(|(got, want)| assert!((got - want).abs() < 1e-9, "{got} {want}"));
    assert_eq!(backtest.positions, array![[0.0], [1.0], [1.0], [0.0]]);
    let [buy, sell] = &backtest.trades[..] else { panic!("{:?}", backtest.trades) };
    assert_eq!((buy.bar, buy.timestamp, buy.symbol.as_str()), (1, candles.timestamps[2], "AAA"));
    assert_eq!((sell.bar, sell.timestamp, sell.trade.price), (3, candles.timestamps[4], 16.0));
    assert!((sell.trade.quantity + units).abs() < 1e-12);
    assert_eq!(backtest.metrics.trades, 2);
    assert!((backtest.metrics.exposure - 2.0 / 3.0).abs() < 1e-15);
    assert!((backtest.drawdown[3] - (16.0 / 18.0 - 1.0)).abs() < 1e-12);
    assert_eq!(backtest.bankrupt_at, None);
    // Bars: bought 1000 into a book of 0 and 15 units' worth; nothing; sold out of a book of 18.
    let turnover = (1000.0 / (units * 15.0 / 2.0) + 0.0 + 16.0 / 9.0) / 3.0;
    assert!((backtest.metrics.turnover.unwrap() - turnover).abs() < 1e-12);
}

#[test]
fn always_long_equals_buy_and_hold_bit_for_bit() {
    let open = array![[10.0, 11.0, 12.0, 11.5], [20.0, 19.0, 22.0, 21.0]];
    let close = array![[10.5, 11.5, 11.0, 12.0], [19.5, 21.0, 21.5, 24.0]];
    let candles = candles(open, close);
    let targets = Array2::ones((3, 2));
    let backtest = Backtest::replay(&candles, 0..4, targets.view(), &options(Costs::default())).unwrap();
    assert_eq!(backtest.equity, backtest.benchmark_equity);
    assert_eq!(backtest.drawdown, backtest.benchmark_drawdown);
    assert_eq!(backtest.metrics, backtest.benchmark);
    // Half the account each, less 2 bps on the open and 5 bps on the fill price.
    let cost = 1000.0 * 2e-4 + 1000.0 * (1.0 + 2e-4) * 5e-4;
    let last = 500.0 / 11.0 * 12.0 + 500.0 / 19.0 * 24.0 - cost;
    assert!((backtest.equity[3] - last).abs() < 1e-9);
    assert!((backtest.metrics.commission + backtest.metrics.slippage - cost).abs() < 1e-9);
}

#[test]
fn a_flat_strategy_has_no_costs_and_no_ratios() {
    let candles = candles(array![[10.0, 11.0, 12.0]], array![[10.0, 11.0, 12.0]]);
    let targets = Array2::zeros((2, 1));
    let backtest = Backtest::replay(&candles, 0..3, targets.view(), &options(Costs::default())).unwrap();
    assert_eq!(backtest.equity, [1000.0; 3]);
    assert_eq!((backtest.metrics.sharpe, backtest.metrics.trades), (None, 0));
    assert!(backtest.benchmark.total_return > 0.0);
}

#[test]
fn a_bankrupt_account_stays_closed() {
    let candles = candles(array![[10.0, 10.0, 10.0, 10.0]], array![[10.0, 25.0, 10.0, 10.0]]);
    let targets = array![[-1.0], [1.0], [1.0]];
    let backtest = Backtest::replay(&candles, 0..4, targets.view(), &options(FREE)).unwrap();
    assert_eq!(backtest.equity, [1000.0, -500.0, -500.0, -500.0]);
    assert_eq!(backtest.bankrupt_at, Some(candles.timestamps[1]));
    assert_eq!(backtest.positions.sum(), 0.0);
    assert_eq!((backtest.metrics.trades, backtest.metrics.cagr), (1, None));
}

/// Later prices must not change earlier results.
#[test]
fn the_past_does_not_depend_on_the_future() {
    let open = array![[10.0, 11.0, 12.0, 11.5, 13.0]];
    let close = array![[10.5, 11.5, 11.0, 12.0, 12.5]];
    let mut changed = candles(open.clone(), close.clone());
    changed.open[[0, 3]] = 5.0;
    changed.close[[0, 3]] = 7.0;
    let targets = array![[1.0], [0.0], [-1.0], [1.0]];
    let replay = |candles: &Candles| Backtest::replay(candles, 0..5, targets.view(), &options(FREE)).unwrap();
    let (one, other) = (replay(&candles(open, close)), replay(&changed));
    assert_eq!(one.equity[..3], other.equity[..3]);
    assert_ne!(one.equity[3], other.equity[3]);
}

#[test]
fn faults_are_named() {
    let mut candles = candles(array![[10.0, 11.0, 12.0]], array![[10.0, 11.0, 12.0]]);
    let targets: Array2<f64> = Array2::zeros((2, 1));
    let message = |candles: &Candles, bars, rows: usize| {
        let targets = targets.slice(ndarray::s![..rows, ..]);
        Backtest::replay(candles, bars, targets, &options(FREE)).unwrap_err().to_string()
    };
    assert!(message(&candles, 0..4, 2).contains("0..4"));
    assert!(message(&candles, 1..2, 1).contains("at least two bars"));
    assert!(message(&candles, Range { start: 2, end: 1 }, 1).contains("at least two bars"));
    assert!(message(&candles, 0..3, 1).contains("expected 2 decisions x 1 instruments"));
    candles.open[[0, 2]] = f64::NAN;
    let text = message(&candles, 0..3, 2);
    assert!(text.contains("2024-01-02") && text.contains("AAA") && text.contains("NaN"), "{text}");
    candles.open = Array2::ones((1, 2));
    assert!(message(&candles, 0..3, 2).contains("open: expected 1 instruments x 3 bars"));
}
