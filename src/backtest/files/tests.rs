use jiff::{ToSpan, civil::date};
use ndarray::array;

use super::*;
use crate::backtest::{PeriodsPerYear, ReplayOptions};
use crate::env::ledger::Costs;
use crate::market::Candles;
use std::fs;

fn backtest(hours: i64) -> Backtest {
    let start = date(2024, 2, 28).at(0, 0, 0, 0);
    let prices = array![[10.0, 10.0, 12.0, 13.0], [5.0, 5.0, 4.0, 4.5]];
    let candles = Candles {
        symbols: vec!["A,A".into(), "BBB".into()],
        timestamps: (0..4).map(|bar| start + (bar * hours).hours()).collect(),
        open: prices.clone(),
        high: prices.clone(),
        low: prices.clone(),
        close: prices,
        volume: None,
        filled: None,
        funding: None,
        dropped: Vec::new(),
    };
    let targets = array![[1.0, 0.0], [1.0, -1.0], [0.0, -1.0]];
    let options = ReplayOptions {
        costs: Costs::default(),
        max_leverage: None,
        starting_equity: 100.0,
        bankruptcy_level: 0.1,
        periods_per_year: PeriodsPerYear::given(252.0).unwrap(),
    };
    Backtest::replay(&candles, 0..4, targets.view(), &options).unwrap()
}

fn table(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let own = |record: &csv::StringRecord| record.iter().map(String::from).collect();
    let header = own(reader.headers().unwrap());
    (header, reader.records().map(|record| own(&record.unwrap())).collect())
}

#[test]
fn files_read_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new/run");
    let backtest = backtest(24);
    write(&backtest, &dir).unwrap();
    write(&backtest, &dir).unwrap();

    let (header, rows) = table(&dir.join("equity.csv"));
    assert_eq!(header[4..], ["benchmark_drawdown", "position_A,A", "position_BBB"]);
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[3][0], "2024-03-02");
    let column = |i: usize| rows.iter().map(|row| row[i].parse().unwrap()).collect::<Vec<f64>>();
    assert_eq!(column(1), backtest.equity);
    assert_eq!(column(2), backtest.drawdown);
    assert_eq!(column(3), backtest.benchmark_equity);
    assert_eq!(column(4), backtest.benchmark_drawdown);
    assert_eq!(column(6), [0.0, 0.0, -1.0, -1.0]);

    let (header, rows) = table(&dir.join("trades.csv"));
    assert_eq!(header.len(), rows[0].len());
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1][..2], ["2024-03-01", "BBB"]);
    assert_eq!(rows[1][2].parse::<f64>().unwrap(), backtest.trades[1].trade.quantity);
    assert_eq!(rows[1][4].parse::<f64>().unwrap(), 4.0 * (1.0 - 2e-4));
    assert_eq!(rows[1][7..], ["0", "-1"]);

    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(json["period"]["from"], "2024-02-28");
    assert_eq!(json["period"]["bars"], 4);
    assert!((json["period"]["years"].as_f64().unwrap() * 365.25 - 4.0).abs() < 1e-12);
    assert_eq!(json["periods_per_year"], 252.0);
    assert_eq!(json["periods_per_year_reason"], "as given");
    assert_eq!(json["symbols"][0], "A,A");
    assert_eq!(json["costs"]["commission_bps"], 5.0);
    assert_eq!(json["bankrupt_at"], serde_json::Value::Null);
    assert_eq!(json["monthly_returns"][0]["year"], 2024);
    assert_eq!(json["monthly_returns"][0]["months"][11], serde_json::Value::Null);
    assert_eq!(json["rolling_sharpe"], serde_json::Value::Null);
    assert_eq!(json["exposure"]["invested"], 1.0);
    // The costs of the first order, made up for by the next bar; then the short position's loss, the deeper one.
    assert_eq!(json["drawdowns"][0]["peak"], "2024-03-01");
    assert_eq!(json["drawdowns"][0]["recovered"], serde_json::Value::Null);
    assert_eq!(json["drawdowns"][1]["peak"], "2024-02-28");
    assert_eq!(json["drawdowns"][1]["recovered"], "2024-03-01");
    assert_eq!(json["holding_times"]["count"], 2);
    assert_eq!(json["attribution"]["instruments"][1]["symbol"], "BBB");
    let profit = |value: &serde_json::Value| value["profit"].as_f64().unwrap();
    let sum: f64 = json["attribution"]["instruments"].as_array().unwrap().iter().map(profit).sum();
    assert!((sum - profit(&json["attribution"])).abs() < 1e-12);
    // Compared as text, because serde_json writes floats exactly but may read them with an error in the last bit.
    let text = fs::read_to_string(dir.join("metrics.json")).unwrap().replace([' ', '\n'], "");
    for (name, metrics) in [("strategy", &backtest.metrics), ("buy_and_hold", &backtest.benchmark)] {
        let wanted = format!("\"{name}\":{}", serde_json::to_string(metrics).unwrap());
        assert!(text.contains(&wanted), "{wanted} in {text}");
    }

    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["equity.csv", "metrics.json", "trades.csv"], "no temporary file is left");
}

#[test]
fn callers_add_fields_at_the_end() {
    #[derive(Serialize)]
    struct More {
        verdict: Option<&'static str>,
    }
    let folder = tempfile::tempdir().unwrap();
    write_with(&backtest(24), folder.path(), &More { verdict: None }).unwrap();
    let text = fs::read_to_string(folder.path().join("metrics.json")).unwrap();
    assert!(text.trim_end().ends_with(",\n  \"verdict\": null\n}"), "{text}");
    let error = write_with(&backtest(24), folder.path(), &5).unwrap_err().to_string();
    assert!(error.contains("metrics.json"), "{error}");
}

#[test]
fn hours_are_written_for_intraday_bars() {
    let folder = tempfile::tempdir().unwrap();
    write(&backtest(1), folder.path()).unwrap();
    let (_, rows) = table(&folder.path().join("equity.csv"));
    assert_eq!((rows[0][0].as_str(), rows[3][0].as_str()), ("2024-02-28T00:00:00", "2024-02-28T03:00:00"));
}

#[test]
fn a_directory_that_cannot_be_created_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = write(&backtest(24), file.path().join("below")).unwrap_err().to_string();
    assert!(error.contains("below"), "{error}");
}

#[test]
fn symbols_are_no_formulas() {
    let folder = tempfile::tempdir().unwrap();
    let mut backtest = backtest(24);
    let evil = "=cmd|' /C calc'!A0";
    backtest.symbols[1] = evil.into();
    backtest.trades.iter_mut().for_each(|dated| dated.symbol = evil.into());
    write(&backtest, folder.path()).unwrap();
    let (header, _) = table(&folder.path().join("equity.csv"));
    assert_eq!(header[6], format!("position_{evil}"));
    let (_, rows) = table(&folder.path().join("trades.csv"));
    assert!(!rows.is_empty() && rows.iter().all(|row| row[1] == format!("'{evil}")));
    // Numbers stay numbers.
    assert!(rows.iter().any(|row| row[2].starts_with('-')));
}
