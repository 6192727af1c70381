//! Candle files of exchanges in different time zones and with different weeks: dates as written, bars per year, and annualised
//! metrics.

use std::path::{Path, PathBuf};

use jiff::civil::{Date, Weekday, date};
use ndarray::Array2;
use phalanx::backtest::{Backtest, Metrics, ReplayOptions, infer_periods_per_year};
use phalanx::env::ledger::Costs;
use phalanx::market::{Candles, GapPolicy};

use crate::common::program::{DEMO, Workplace, refused, succeeded};

fn load(name: &str, gaps: GapPolicy) -> Candles {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/calendars");
    Candles::load(&[folder.join(name)], gaps).unwrap()
}

/// Always long on the last three tenths of the bars, with the default costs.
fn always_long(candles: &Candles) -> Metrics {
    let bars = candles.bars() * 7 / 10..candles.bars();
    let targets = Array2::ones((bars.len() - 1, candles.instruments()));
    let options = ReplayOptions {
        costs: Costs::default(),
        max_leverage: None,
        starting_equity: 100_000.0,
        bankruptcy_level: 0.1,
        periods_per_year: infer_periods_per_year(&candles.timestamps),
    };
    let backtest = Backtest::replay(candles, bars, targets.view(), &options).unwrap();
    assert_eq!(backtest.metrics, backtest.benchmark, "always long is buy-and-hold");
    backtest.metrics
}

#[test]
fn bars_per_year_of_real_weeks() {
    for (file, days, right) in [
        ("control-plain-dates.csv", 5, 252.0),
        ("tz-daily-tokyo.csv", 5, 252.0),
        ("one-sunday-session.csv", 6, 252.0),
        ("sun-to-thu-week.csv", 5, 252.0),
    ] {
        let candles = load(file, GapPolicy::Reject);
        assert_eq!(candles.bars(), 70, "{file}");
        let mut weekdays: Vec<i8> =
            candles.timestamps.iter().map(|t| t.weekday().to_monday_zero_offset()).collect();
        weekdays.sort_unstable();
        weekdays.dedup();
        assert_eq!(weekdays.len(), days, "{file}");
        assert_eq!(infer_periods_per_year(&candles.timestamps).value(), right, "{file}");
    }
}

#[test]
fn local_midnights_keep_their_dates_and_change_no_metric() {
    let (plain, tokyo) =
        (load("control-plain-dates.csv", GapPolicy::Reject), load("tz-daily-tokyo.csv", GapPolicy::Reject));
    assert_eq!(tokyo.timestamps, plain.timestamps);
    assert_eq!(tokyo.timestamps[0], date(2023, 10, 2).at(0, 0, 0, 0));
    assert_eq!(tokyo.timestamps[0].weekday(), Weekday::Monday);
    let metrics = always_long(&tokyo);
    assert_eq!(metrics, always_long(&plain));
    let rounded = |value: Option<f64>, scale: f64| (value.unwrap() * scale).round() / scale;
    assert_eq!(rounded(metrics.sharpe, 100.0), 5.11);
    assert_eq!(rounded(metrics.cagr, 1000.0), 0.847);
    // From 8 December to 5 January, 29 days: growth is annualised by the days that passed.
    let growth = 1.0 + metrics.total_return;
    assert_eq!(metrics.cagr, Some(growth.powf((29.0_f64 / 365.25).recip()) - 1.0));
}

#[test]
fn daily_bars_of_two_exchanges_are_aligned_by_date() {
    for gaps in GapPolicy::ALL {
        let candles = load("two-exchanges-tz", gaps);
        let days: Vec<Date> = candles.timestamps.iter().map(|t| t.date()).collect();
        assert_eq!(candles.symbols, ["IBM", "SAP"]);
        assert_eq!(days, [8, 9, 10].map(|day| date(2024, 1, day)));
        assert!(candles.volume.unwrap().iter().all(|volume| *volume > 0.0), "{gaps}: a bar is made up");
    }
}

#[test]
fn summer_time_moves_no_date_and_hours_stay_in_utc() {
    let place = Workplace::new();
    let rows = |times: &[&str]| {
        let rows = times.iter().map(|time| format!("{time},10,11,9,10.5,5\n"));
        std::iter::once("Date,Open,High,Low,Close,Volume\n".to_string()).chain(rows).collect::<String>()
    };
    let days = ["2024-03-08 00:00:00-05:00", "2024-03-11 00:00:00-04:00", "2024-03-12 00:00:00-04:00"];
    let new_york = place.write("NYSE.csv", &rows(&days));
    let frankfurt = ["2024-03-08 00:00:00+01:00", "2024-03-11 00:00:00+01:00", "2024-03-12 00:00:00+01:00"];
    let frankfurt = place.write("XETRA.csv", &rows(&frankfurt));
    let candles = Candles::load(&[new_york, frankfurt], GapPolicy::Reject).unwrap();
    assert_eq!(candles.timestamps, [8, 11, 12].map(|day| date(2024, 3, day).at(0, 0, 0, 0)));

    let hours = ["2024-03-10 23:00:00-04:00", "2024-03-11 00:00:00-04:00", "2024-03-11 01:00:00-04:00"];
    let candles = Candles::load(&[place.write("H.csv", &rows(&hours))], GapPolicy::Reject).unwrap();
    assert_eq!(candles.timestamps, [3, 4, 5].map(|hour| date(2024, 3, 11).at(hour, 0, 0, 0)));
}

#[test]
fn the_program_prints_and_stores_bars_per_year_and_how_they_were_found() {
    let place = Workplace::new();
    place.trained("run");
    let stored = |key: &str| {
        let bytes = std::fs::read(place.path("run/metrics.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()[key].clone()
    };
    let printed = |more: &[&str]| {
        let output = place.backtest(DEMO, "run", more);
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    let text = printed(&[]);
    let reason = "daily bars, 5 sessions a week, 50.4 weeks a year (holidays of an exchange)";
    assert!(text.contains(&format!("252 bars a year: {reason}\n")), "{text}");
    assert_eq!(
        (stored("periods_per_year"), stored("periods_per_year_reason")),
        (252.0.into(), reason.into())
    );
    let report = std::fs::read_to_string(place.path("run/report.html")).unwrap();
    assert!(report.contains(&format!("252 ({reason})")));

    let inferred = stored("buy_and_hold");
    let text = printed(&["--periods-per-year", "63"]);
    assert!(text.contains("63 bars a year: as given\n"), "{text}");
    assert_eq!(
        (stored("periods_per_year"), stored("periods_per_year_reason")),
        (63.0.into(), "as given".into())
    );
    let sharpe = |metrics: &serde_json::Value| metrics["sharpe"].as_f64().unwrap();
    assert!((sharpe(&inferred) / sharpe(&stored("buy_and_hold")) - 2.0).abs() < 1e-12);
    assert_eq!(
        inferred["cagr"],
        stored("buy_and_hold")["cagr"],
        "growth depends on the time that passed only"
    );

    let wrong = place.backtest(DEMO, "run", &["--periods-per-year", "0"]);
    refused(&wrong, &["periods_per_year", "0 is out of range: from 0.01"]);
}
