use std::collections::BTreeMap;

use jiff::civil::{DateTime, date};
use jiff::{Span, ToSpan};
use ndarray::{Array2, array};

use super::*;
use crate::backtest::{InstrumentProfit, PeriodsPerYear, ReplayOptions};
use crate::env::ledger::Costs;
use crate::market::Candles;
use crate::random::Stream;

fn close_to(got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-9 * want.abs().max(1.0), "got {got:e}, want {want:e}");
}

fn dates(start: DateTime, step: Span, bars: usize) -> Vec<DateTime> {
    std::iter::successors(Some(start), |date| Some(*date + step)).take(bars).collect()
}

fn options(costs: Costs) -> ReplayOptions {
    ReplayOptions {
        costs,
        max_leverage: None,
        starting_equity: 1000.0,
        bankruptcy_level: 0.1,
        periods_per_year: PeriodsPerYear::given(100.0).unwrap(),
    }
}

/// Every cost that an account can have.
fn all_costs(instruments: usize) -> Costs {
    Costs {
        commission_per_unit: 0.01,
        min_commission: 0.2,
        spread_bps: vec![3.0; instruments],
        borrow_rate: 0.3,
        cash_rate: 0.05,
        margin_rate: 0.2,
        ..Costs::default()
    }
}

/// Random prices and positions: held, reversed, resized and flat, at times on filled bars, with funding.
fn random(seed: u64, instruments: usize, bars: usize, move_of: f64) -> (Candles, Array2<f64>) {
    let mut random = Stream::new(seed, 5);
    let mut level = vec![100.0; instruments];
    let (mut open, mut close) = (Array2::zeros((instruments, bars)), Array2::zeros((instruments, bars)));
    let mut targets = Array2::zeros((bars - 1, instruments));
    for bar in 0..bars {
        for i in 0..instruments {
            level[i] *= (0.2 * move_of * random.normal()).exp();
            open[[i, bar]] = level[i];
            level[i] *= (move_of * random.normal()).exp();
            close[[i, bar]] = level[i];
            if bar + 1 < bars {
                let before = if bar == 0 { 0.0 } else { targets[[bar - 1, i]] };
                let levels = [-1.0, -0.5, 0.0, 0.0, 0.5, 1.0];
                let drawn = levels[(random.uniform() * 6.0) as usize];
                targets[[bar, i]] = if random.uniform() < 0.7 { before } else { drawn };
            }
        }
    }
    let (high, low) = (
        Array2::from_shape_fn((instruments, bars), |at| f64::max(open[at], close[at])),
        Array2::from_shape_fn((instruments, bars), |at| f64::min(open[at], close[at])),
    );
    let funding = Array2::from_shape_fn((instruments, bars), |_| 1e-4 * random.normal());
    let filled = Array2::from_shape_fn((instruments, bars), |_| random.uniform() < 0.05);
    let candles = Candles {
        symbols: (0..instruments).map(|i| format!("S{i}")).collect(),
        timestamps: dates(date(2021, 11, 20).at(0, 0, 0, 0), 2.days(), bars),
        open,
        high,
        low,
        close,
        volume: None,
        filled: Some(filled),
        funding: Some(funding),
        dropped: Vec::new(),
    };
    (candles, targets)
}

fn replay(candles: &Candles, targets: &Array2<f64>, costs: Costs, max_leverage: Option<f64>) -> Backtest {
    let options = ReplayOptions { max_leverage, ..options(costs) };
    Backtest::replay(candles, 0..candles.timestamps.len(), targets.view(), &options).unwrap()
}

#[test]
fn months_by_hand() {
    let days = [(2023, 12, 29), (2024, 1, 2), (2024, 1, 31), (2024, 2, 1), (2024, 4, 30), (2025, 4, 1)];
    let timestamps: Vec<_> = days.iter().map(|(y, m, d)| date(*y, *m, *d).at(0, 0, 0, 0)).collect();
    let equity = [100.0, 110.0, 120.0, 90.0, 99.0, 198.0];
    let rows = monthly::months(&timestamps, &equity, None);
    // December has only the starting equity, so 2023 has no row.
    assert_eq!(rows.iter().map(|row| row.year).collect::<Vec<_>>(), [2024, 2025]);
    let [first, second] = &rows[..] else { panic!("{rows:?}") };
    let mut wanted = [None; 12];
    (wanted[0], wanted[1], wanted[3]) = (Some(1.2 - 1.0), Some(90.0 / 120.0 - 1.0), Some(99.0 / 90.0 - 1.0));
    assert_eq!((first.months, first.total), (wanted, Some(99.0 / 100.0 - 1.0)));
    // The same month of the next year is another one.
    assert_eq!((second.months[3], second.total), (Some(1.0), Some(1.0)));
}

#[test]
fn months_of_bars_within_a_day_and_of_a_closed_account() {
    let timestamps = dates(date(2024, 1, 31).at(20, 0, 0, 0), 1.hours(), 8);
    let equity = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 107.0];
    let rows = monthly::months(&timestamps, &equity, None);
    // 23:00 is the last bar of January, midnight the first of February.
    assert_eq!(rows[0].months[..3], [Some(103.0 / 100.0 - 1.0), Some(107.0 / 103.0 - 1.0), None]);
    let equity = [100.0, 120.0, -60.0, -60.0, -60.0, -60.0, -60.0, -60.0];
    let rows = monthly::months(&timestamps, &equity, Some(2));
    assert_eq!((rows[0].months[0], rows[0].months[1], rows[0].total), (Some(-1.6), None, Some(-1.6)));
    let year = dates(date(2023, 12, 31).at(20, 0, 0, 0), 1.hours(), 8);
    let rows = monthly::months(&year, &equity, Some(2));
    assert_eq!((rows[0].total, rows[1].total, rows[1].months[0]), (Some(-1.6), None, None));
    assert!(monthly::months(&timestamps[..1], &equity[..1], None).is_empty());
}

#[test]
fn drawdowns_by_hand() {
    let timestamps = dates(date(2024, 1, 1).at(0, 0, 0, 0), 1.days(), 10);
    let equity = [100.0, 90.0, 80.0, 80.0, 100.0, 110.0, 99.0, 110.0, 55.0, 66.0];
    let day = |bar: usize| timestamps[bar];
    let [deepest, second, third] = drawdowns::worst(&timestamps, &equity, 5)[..] else { panic!("three") };
    assert_eq!((deepest.peak, deepest.trough, deepest.recovered), (day(7), day(8), None));
    assert_eq!((deepest.depth, deepest.bars), (-0.5, 2));
    assert_eq!((second.peak, second.trough, second.recovered), (day(0), day(2), Some(day(4))));
    close_to(second.depth, -0.2);
    assert_eq!(second.bars, 3);
    assert_eq!((third.peak, third.trough, third.recovered, third.bars), (day(5), day(6), Some(day(7)), 1));
    assert_eq!(drawdowns::worst(&timestamps, &equity, 1), [deepest]);
    assert!(drawdowns::worst(&timestamps, &[100.0; 10], 5).is_empty());
    // An account that only falls.
    let falling = drawdowns::worst(&timestamps[..3], &[3.0, 2.0, 1.0], 5);
    assert_eq!((falling[0].bars, falling[0].peak, falling[0].recovered), (2, day(0), None));
}

#[test]
fn exposure_by_hand() {
    let values = array![[0.0, 0.0], [50.0, -25.0], [0.0, 0.0], [150.0, 0.0], [0.0, 0.0]];
    let exposure = Exposure::new(values.view(), &[100.0, 100.0, 50.0, 100.0, -5.0]);
    assert_eq!(exposure.gross, [0.0, 0.75, 0.0, 1.5, 0.0]);
    assert_eq!(exposure.net, [0.0, 0.25, 0.0, 1.5, 0.0]);
    assert_eq!((exposure.mean_gross, exposure.max_gross), (2.25 / 4.0, 1.5));
    assert_eq!((exposure.mean_net, exposure.min_net, exposure.max_net), (1.75 / 4.0, 0.0, 1.5));
    assert_eq!(exposure.invested, 0.5);
}

#[test]
fn the_window_of_the_rolling_ratio() {
    let window = |returns: usize, periods: f64| {
        let returns: Vec<f64> = (0..returns).map(|i| (i as f64).sin()).collect();
        RollingSharpe::new(&returns, periods).map(|it| (it.window, it.values.len()))
    };
    assert_eq!(window(1000, 252.0), Some((126, 875)));
    assert_eq!(window(100, 252.0), Some((50, 51)), "an account of less than a year");
    assert_eq!(window(100, 12.0), Some((20, 81)), "monthly bars");
    assert_eq!(window(40, 1e11), Some((20, 21)));
    assert_eq!(window(39, 252.0), None);
}

#[test]
fn the_rolling_ratio_is_that_of_the_returns_in_the_window() {
    let mut random = Stream::new(9, 1);
    let mut returns: Vec<f64> = (0..400).map(|_| 1e-3 + 0.01 * random.normal()).collect();
    // No deviation, whatever came before: neither zeros nor another constant leave a rest.
    returns[100..200].fill(0.0);
    returns[200..300].fill(0.1 + 0.2);
    returns[350] = 1e6;
    for window in [20, 37, 64, 200] {
        let rolling = RollingSharpe::over(&returns, window, 252.0);
        assert_eq!(rolling.values.len(), 401 - window);
        for (start, value) in rolling.values.iter().enumerate() {
            let part = &returns[start..start + window];
            let mean = part.iter().sum::<f64>() / window as f64;
            let squares = part.iter().map(|r| (r - mean).powi(2)).sum::<f64>();
            let deviation = (squares / (window as f64 - 1.0)).sqrt();
            if part.iter().all(|value| *value == part[0]) {
                assert_eq!(*value, None, "{window} {start}");
            } else {
                close_to(value.unwrap(), mean / deviation * 252f64.sqrt());
            }
        }
    }
    let rolling = RollingSharpe::over(&returns, 64, 252.0);
    let [low, high, last] = rolling.range().unwrap();
    assert!(low < high && low <= last && last <= high && Some(last) == *rolling.values.last().unwrap());
    assert_eq!(RollingSharpe::over(&[0.0; 50], 20, 252.0).range(), None);
}

/// Each instrument alone cannot be replayed, since they share the equity; its profit is counted again from prices, fills and levels.
#[test]
fn attribution_adds_up_and_agrees_with_a_plain_count() {
    for seed in 0..20 {
        let (instruments, leverage) = (1 + seed as usize % 4, [None, Some(0.6)][seed as usize % 2]);
        let move_of = if seed % 5 == 4 { 0.2 } else { 0.01 };
        let (candles, targets) = random(seed, instruments, 120, move_of);
        let backtest = replay(&candles, &targets, all_costs(instruments), leverage);
        let sheet = TearSheet::new(&backtest);
        let attribution = &sheet.attribution;
        let parts: f64 = attribution.instruments.iter().map(|it| it.profit).sum();
        let scale = attribution.instruments.iter().map(|it| it.parts.price.abs()).sum::<f64>().max(1000.0);
        let gap = parts + attribution.interest - attribution.profit;
        assert!(gap.abs() < 1e-12 * scale, "{gap:e}");
        let contributions: f64 = attribution.instruments.iter().map(|it| it.contribution).sum();
        close_to(contributions + attribution.interest / 1000.0, backtest.metrics.total_return);
        let sum = |part: fn(&InstrumentProfit) -> f64| backtest.profits.iter().map(part).sum::<f64>();
        close_to(sum(|it| it.commission), backtest.metrics.commission);
        close_to(sum(|it| it.slippage), backtest.metrics.slippage);
        close_to(sum(|it| it.borrow), backtest.financing.borrow);
        close_to(sum(|it| it.funding), backtest.financing.funding);
        for (i, row) in attribution.instruments.iter().enumerate() {
            let held: f64 =
                backtest.holdings.iter().filter(|it| it.instrument == i).map(|it| it.profit).sum();
            assert!((held - row.profit).abs() < 1e-12 * scale, "{held} {}", row.profit);
            // Cash that the fills at the open cost, against the value of what is held in the end.
            let fills = backtest.trades.iter().filter(|it| it.trade.instrument == i);
            let spent: f64 = fills.map(|it| it.trade.quantity * it.trade.open).sum();
            if backtest.bankrupt_at.is_none() {
                let last = backtest.values[[119, i]];
                assert!((last - spent - row.parts.price).abs() < 1e-9 * scale);
            }
        }
    }
}

#[test]
fn a_random_account_agrees_with_a_plain_count() {
    for seed in 0..20 {
        let move_of = if seed % 5 == 4 { 0.2 } else { 0.02 };
        let (candles, targets) = random(seed, 3, 200, move_of);
        let backtest = replay(&candles, &targets, all_costs(3), None);
        let sheet = TearSheet::new(&backtest);
        let returns = backtest.returns();
        let mut months: BTreeMap<(i16, i8), f64> = BTreeMap::new();
        for (date, r) in backtest.timestamps[1..].iter().zip(&returns) {
            *months.entry((date.year(), date.month())).or_insert(1.0) *= 1.0 + r;
        }
        let alive = |year: i16, month: i8| {
            backtest.bankrupt_at.is_none_or(|closed| (year, month) <= (closed.year(), closed.month()))
        };
        let mut seen = 0;
        for row in &sheet.months {
            let mut year = 1.0;
            for (month, value) in (1..).zip(row.months) {
                let wanted = months.get(&(row.year, month)).filter(|_| alive(row.year, month));
                assert_eq!(value.is_some(), wanted.is_some(), "{} {month}", row.year);
                if let (Some(value), Some(wanted)) = (value, wanted) {
                    close_to(1.0 + value, *wanted);
                    year *= 1.0 + value;
                    seen += 1;
                }
            }
            if let Some(total) = row.total {
                close_to(1.0 + total, year);
            }
        }
        assert!(seen > 0);

        // Positions from the signs of their values: every change of the sign closes one and may open another.
        let mut held: Vec<(usize, usize, usize)> = Vec::new();
        for i in 0..3 {
            let sign = |bar: usize| (backtest.values[[bar, i]].total_cmp(&0.0)) as i32;
            for bar in 1..200 {
                if sign(bar) != 0 && sign(bar) == sign(bar - 1) {
                    held.last_mut().unwrap().2 += 1;
                } else if sign(bar) != 0 {
                    held.push((bar, i, 1));
                }
            }
        }
        held.sort_unstable();
        if backtest.bankrupt_at.is_none() {
            let got: Vec<_> =
                backtest.holdings.iter().map(|it| (it.opened, it.instrument, it.bars)).collect();
            assert_eq!(got, held);
        }
        let worst = sheet.drawdowns.first().unwrap();
        assert_eq!(worst.depth, backtest.metrics.max_drawdown);
        assert!(sheet.drawdowns.is_sorted_by(|a, b| a.depth <= b.depth) && sheet.drawdowns.len() <= 5);
        assert!(sheet.drawdowns.iter().all(|it| it.bars <= backtest.metrics.max_drawdown_bars));
        for (bar, (gross, net)) in sheet.exposure.gross.iter().zip(&sheet.exposure.net).enumerate() {
            assert!(gross.is_finite() && net.abs() <= gross * (1.0 + 1e-12), "{bar}: {gross} {net}");
        }
    }
}

#[test]
fn odd_accounts_have_no_numbers_that_are_none() {
    let prices = array![[10.0, 12.0]];
    let two = |target: f64| {
        let candles = Candles {
            symbols: vec!["AAA".into()],
            timestamps: dates(date(2024, 1, 31).at(0, 0, 0, 0), 1.days(), 2),
            open: prices.clone(),
            high: prices.clone(),
            low: prices.clone(),
            close: prices.clone(),
            volume: None,
            filled: None,
            funding: None,
            dropped: Vec::new(),
        };
        replay(&candles, &array![[target]], Costs::NONE, None)
    };
    let idle = TearSheet::new(&two(0.0));
    assert_eq!((idle.months.len(), idle.months[0].months[1]), (1, Some(0.0)));
    assert_eq!((&idle.rolling_sharpe, idle.drawdowns.len()), (&None, 0));
    assert_eq!((idle.exposure.max_gross, idle.exposure.invested), (0.0, 0.0));
    assert_eq!((idle.holding_times, idle.attribution.profit), (HoldingTimes::default(), 0.0));
    let held = TearSheet::new(&two(1.0));
    assert_eq!((held.holding_times.count, held.holding_times.open), (1, 1));
    assert_eq!((held.holding_times.median_bars, held.exposure.invested), (Some(1.0), 1.0));
}

#[test]
fn a_bankrupt_account_has_all_figures() {
    let (candles, _) = random(3, 2, 200, 0.01);
    let mut targets = Array2::zeros((199, 2));
    targets.fill(-60.0);
    let backtest = replay(&candles, &targets, all_costs(2), None);
    let closed = backtest.bankrupt_at.unwrap();
    let sheet = TearSheet::new(&backtest);
    let after = backtest.timestamps.iter().position(|date| *date == closed).unwrap();
    assert!(sheet.exposure.gross[after..].iter().all(|gross| *gross == 0.0));
    assert_eq!(sheet.holding_times.open, 0);
    assert!(backtest.holdings.iter().all(|it| it.closed == Some(after)));
    assert!(sheet.drawdowns[0].recovered.is_none());
    let rolling = sheet.rolling_sharpe.unwrap();
    assert_eq!(*rolling.values.last().unwrap(), None, "a closed account does not move");
    let parts: f64 = sheet.attribution.instruments.iter().map(|it| it.profit).sum();
    close_to(parts + sheet.attribution.interest, backtest.equity.last().unwrap() - 1000.0);
}
