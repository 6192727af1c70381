//! Funding rates of perpetual contracts in candle files, and what accounts pay.

use crate::dialects::{lines, written};
use crate::market::data;
use crate::{common, testing};
use ndarray::{Array2, array};
use phalanx::backtest::{Backtest, PeriodsPerYear, ReplayOptions};
use phalanx::env::ledger::Costs;
use phalanx::env::{Environment, Episodes, Trading, TradingSettings};
use phalanx::market::{Adjust, Candles, GapPolicy, LoadOptions};

/// Daily bars of January 2024 at a price of 10, with the text of their funding rates.
fn perpetual(header: &str, rates: &[(u8, &str)]) -> String {
    let row = |(day, rate): &(u8, &str)| format!("2024-01-{day:02},10,10,10,10,{rate}\n");
    format!("date,open,high,low,close,{header}\n{}", rates.iter().map(row).collect::<String>())
}

fn options(gaps: GapPolicy) -> LoadOptions {
    LoadOptions { gaps, ..LoadOptions::default() }
}

#[test]
fn rates_are_sorted_joined_and_empty_fields_are_0() {
    // The newest bar comes first in one file; the other has the next month, one bar in common.
    let first = perpetual("Funding_Rate", &[(4, "3e-4"), (3, ""), (2, "-1e-4")]);
    let second = perpetual("fundingRate", &[(4, "3e-4"), (5, "null"), (8, "5e-4")]);
    let files = [("P_2024-01.csv", first.as_str()), ("P_2024-02.csv", second.as_str())];
    let loaded = written(&files, &LoadOptions::default()).expect("one instrument");
    assert_eq!(loaded.candles.funding, Some(array![[-1e-4, 0.0, 3e-4, 0.0, 5e-4]]));
    assert_eq!(
        lines(&loaded.report),
        [
            "P_2024-01.csv: funding rates are `Funding_Rate`",
            "P_2024-01.csv: the newest bar comes first: reversed",
            "P_2024-02.csv: funding rates are `fundingRate`",
            "P: joined from 2 files; 1 bar is in two of them",
        ]
    );

    // Other rates for the bar in common: different instruments.
    let other = second.replace("3e-4", "2e-4");
    let files = [("P_2024-01.csv", first.as_str()), ("P_2024-02.csv", other.as_str())];
    let error = written(&files, &LoadOptions::default()).expect_err("different bars").to_string();
    assert!(error.contains("not joined to one instrument `P`"), "{error}");
    let without =
        perpetual("x", &[(5, ""), (8, "")]).replace("date,", "symbol,date,").replace("2024-", "P,2024-");
    let with = first.replace("date,", "symbol,date,").replace("2024-", "P,2024-");
    let error = written(&[("x.csv", &with), ("y.csv", &without)], &LoadOptions::default());
    let error = error.expect_err("one of two").to_string();
    assert!(error.contains("only one of the files has funding rates; add the column (0 or empty"), "{error}");
}

#[test]
fn adjusting_leaves_rates_alone() {
    let text = "date,open,high,low,close,adj close,funding\n2024-01-02,10,10,10,10,9,1e-4\n2024-01-03,10,10,10,10,10,2e-4\n";
    for adjust in Adjust::ALL {
        let options = LoadOptions { adjust, ..LoadOptions::default() };
        let candles = written(&[("A.csv", text)], &options).expect("valid candles").candles;
        assert_eq!(candles.funding, Some(array![[1e-4, 2e-4]]));
    }
}

#[test]
fn rates_that_are_no_fractions_are_refused() {
    for (rate, expected) in [
        ("1", "the funding rate is 1; it has to be a fraction strictly between -1 and 1"),
        ("-1.5", "the funding rate is -1.5; it has to be"),
        ("inf", "the funding rate is inf; it has to be"),
        ("0.01%", "`0.01%` is not a number"),
    ] {
        let text = perpetual("funding", &[(2, "0"), (3, rate)]);
        let error = written(&[("P.csv", &text)], &LoadOptions::default()).expect_err(rate).to_string();
        assert!(error.contains(&format!("P.csv:3, column `funding`: P 2024-01-03: {expected}")), "{error}");
    }
}

#[test]
fn instruments_without_the_column_pay_nothing() {
    let perp = perpetual("funding", &[(2, "1e-4"), (3, "2e-4")]);
    let spot = perpetual("note", &[(2, ""), (3, "")]);
    let loaded = written(&[("P.csv", &perp), ("S.csv", &spot)], &LoadOptions::default()).expect("two");
    assert_eq!(loaded.candles.funding, Some(array![[1e-4, 2e-4], [0.0, 0.0]]));
    assert_eq!(
        lines(&loaded.report),
        [
            "P.csv: funding rates are `funding`",
            "S: no column of funding rates, which other instruments have: the rate is 0 at every bar"
        ]
    );
    let spot = written(&[("S.csv", &spot)], &LoadOptions::default()).expect("one");
    assert_eq!((spot.candles.funding, spot.report.notes.len()), (None, 0));
}

#[test]
fn dropped_bars_are_paid_with_the_next_bar_and_filled_bars_pay_nothing() {
    // P trades every day from Wednesday on, S from Thursday on and not on the weekend.
    let rates =
        [(3, "1e-4"), (4, "2e-4"), (5, "4e-4"), (6, "8e-4"), (7, "16e-4"), (8, "32e-4"), (9, "64e-4")];
    let perp = perpetual("funding", &rates);
    let stock = perpetual("note", &[(4, ""), (5, ""), (8, "")]);
    let files = [("P.csv", perp.as_str()), ("S.csv", stock.as_str())];
    let close_to = |got: &Candles, expected: &[f64]| {
        let got = got.funding.as_ref().expect("rates").row(0).to_vec();
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(got, wanted)| (got - wanted).abs() < 1e-12), "{got:?}");
    };
    let dropped = written(&files, &options(GapPolicy::Drop)).expect("three bars").candles;
    // Nobody holds a position before the first bar, or after the last.
    close_to(&dropped, &[2e-4, 4e-4, 8e-4 + 16e-4 + 32e-4]);
    let filled = written(&files, &options(GapPolicy::ForwardFill)).expect("six bars").candles;
    close_to(&filled, &[2e-4, 4e-4, 8e-4, 16e-4, 32e-4, 64e-4]);
    assert_eq!(filled.filled_bars(), [0, 3]);
    // A perpetual that lacks a bar.
    let daily = perpetual("note", &[(4, ""), (5, ""), (6, "")]);
    let files = [("P.csv", perpetual("funding", &[(4, "2e-4"), (6, "8e-4")])), ("S.csv", daily)];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let filled = written(&files, &options(GapPolicy::ForwardFill)).expect("three bars").candles;
    close_to(&filled, &[2e-4, 0.0, 8e-4]);
}

/// An account that holds its position through bars that were dropped pays what it would pay on every bar.
#[test]
fn a_held_position_pays_the_same_with_and_without_dropped_bars() {
    let rates = [(4, "0"), (5, "4e-4"), (6, "8e-4"), (7, "16e-4"), (8, "32e-4")];
    let stock = perpetual("note", &[(4, ""), (5, ""), (8, "")]);
    let final_equity = |files: &[(&str, &str)], gaps, instruments: usize| {
        let candles = written(files, &options(gaps)).expect("valid candles").candles;
        let mut targets = Array2::zeros((candles.bars() - 1, instruments));
        targets.column_mut(0).fill(1.0);
        let options = ReplayOptions {
            costs: Costs::NONE,
            max_leverage: None,
            starting_equity: 1000.0,
            bankruptcy_level: 0.1,
            periods_per_year: PeriodsPerYear::given(365.0).expect("positive"),
        };
        let run =
            Backtest::replay(&candles, 0..candles.bars(), targets.view(), &options).expect("a backtest");
        *run.equity.last().expect("bars")
    };
    let perp = perpetual("funding", &rates);
    let both = [("P.csv", perp.as_str()), ("S.csv", stock.as_str())];
    let dropped = final_equity(&both, GapPolicy::Drop, 2);
    let filled = final_equity(&both, GapPolicy::ForwardFill, 2);
    // Half the account is in the perpetual, whose price does not move.
    assert!((dropped - (1000.0 - 500.0 * 60e-4)).abs() < 1e-9, "{dropped}");
    assert!((dropped - filled).abs() < 1e-9, "{dropped} {filled}");
    let free = perpetual("note", &rates);
    assert_eq!(final_equity(&[("P.csv", &free)], GapPolicy::Reject, 1), 1000.0);
}

/// Checkpoints are resumed only with the candles they were trained on, funding included.
#[test]
fn the_identity_of_a_market_contains_its_funding() {
    let gpu = testing::gpu();
    let candles = common::candles(1, 200, |_, bar| if bar % 2 == 0 { 0.01 } else { -0.01 });
    let identity = |funding: Option<f64>| {
        let mut candles = candles.clone();
        if let Some(rate) = funding {
            candles = candles.with_funding(Array2::from_elem((1, 200), rate)).expect("a fraction");
        }
        let data = data(&gpu, &candles, 150);
        let bars = data.first_bar()..candles.bars();
        Trading::new(&data, &TradingSettings::default(), &Episodes::Whole(bars)).expect("a market").identity()
    };
    let all = [identity(None), identity(Some(1e-4)), identity(Some(2e-4))];
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{all:?}");
    assert_eq!(all[1], identity(Some(1e-4)));
}
