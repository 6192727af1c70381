//! Candle files as their sources write them, and what the reader says about them.

use jiff::civil::{DateTime, date};
use ndarray::{Array2, array};
use phalanx::market::{
    Adjust, Candles, Finding, GapPolicy, LoadOptions, LoadReport, Loaded, parse_timestamp,
};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/candles").join(name)
}

fn load_all(names: &[&str], options: &LoadOptions) -> phalanx::Result<Loaded> {
    let paths: Vec<PathBuf> = names.iter().map(|name| fixture(name)).collect();
    Candles::load_with(&paths, options)
}

fn load(name: &str) -> Loaded {
    load_all(&[name], &LoadOptions::default()).expect(name)
}

/// All lines of the report.
pub(crate) fn lines(report: &LoadReport) -> Vec<String> {
    report.to_string().lines().map(str::to_string).collect()
}

struct Dialect {
    file: &'static str,
    symbols: &'static [&'static str],
    /// Timestamps of the first and of the last bar.
    period: [&'static str; 2],
    /// Open of the first and close of the last bar of the first instrument.
    prices: [f64; 2],
    /// Volume of the last bar of the first instrument.
    volume: f64,
    report: &'static [&'static str],
}

const DIALECTS: &[Dialect] = &[
    Dialect {
        file: "yfinance_levels.csv",
        symbols: &["AAA", "BBB"],
        period: ["2024-01-02", "2024-01-04"],
        prices: [10.0, 11.25],
        volume: 90.0,
        report: &[
            "yfinance_levels.csv: read as columns of several levels, as yfinance writes them",
            "AAA: 1 row without prices dropped",
        ],
    },
    Dialect {
        file: "yahoo_null.csv",
        symbols: &["yahoo_null"],
        period: ["2024-01-02", "2024-01-04"],
        prices: [10.0, 11.25],
        volume: 90.0,
        report: &["yahoo_null: 1 row without prices dropped"],
    },
    Dialect {
        file: "stooq_bulk.csv",
        symbols: &["ABC.US"],
        period: ["2024-01-02 15:35", "2024-01-02 15:40"],
        prices: [10.0, 11.75],
        volume: 120.0,
        report: &["stooq_bulk.csv: read as Stooq's bulk format"],
    },
    Dialect {
        file: "metatrader5.csv",
        symbols: &["metatrader5"],
        period: ["2024-01-02 00:00", "2024-01-02 01:00"],
        prices: [1.1041, 1.1049],
        volume: 640.0,
        report: &[
            "metatrader5.csv: read as a MetaTrader export",
            "metatrader5.csv: volume is `<TICKVOL>`; `<VOL>` not used",
        ],
    },
    Dialect {
        file: "metatrader4.csv",
        symbols: &["metatrader4"],
        period: ["2024-01-02 00:00", "2024-01-02 01:00"],
        prices: [1.1041, 1.1049],
        volume: 640.0,
        report: &["metatrader4.csv: read as MetaTrader 4 without a header"],
    },
    Dialect {
        file: "tradingview.csv",
        symbols: &["tradingview"],
        period: ["2024-01-02", "2024-01-03"],
        prices: [10.0, 11.75],
        volume: 120.0,
        report: &[],
    },
    Dialect {
        file: "dukascopy.csv",
        symbols: &["dukascopy"],
        period: ["2023-12-31 22:00", "2023-12-31 23:00"],
        prices: [1.10412, 1.10411],
        volume: 498.1,
        report: &["dukascopy.csv: read as a Dukascopy export"],
    },
    Dialect {
        file: "cryptodatadownload.csv",
        symbols: &["BTC/USD"],
        period: ["2024-01-02", "2024-01-04"],
        prices: [10.0, 11.25],
        volume: 90.0,
        report: &[
            "cryptodatadownload.csv: read as a CryptoDataDownload file",
            "cryptodatadownload.csv: volume is `Volume BTC`; `Volume USD` not used",
            "cryptodatadownload.csv: the newest bar comes first: reversed",
        ],
    },
    Dialect {
        file: "kraken.csv",
        symbols: &["kraken"],
        period: ["2024-01-02", "2024-01-03"],
        prices: [10.0, 11.75],
        volume: 120.5,
        report: &["kraken.csv: read as Kraken OHLCVT without a header"],
    },
    Dialect {
        file: "binance_ms.csv",
        symbols: &["binance_ms"],
        period: ["2024-01-02", "2024-01-03"],
        prices: [10.0, 11.75],
        volume: 120.5,
        report: &["binance_ms.csv: read as Binance klines without a header"],
    },
    Dialect {
        file: "binance_us.csv",
        symbols: &["binance_us"],
        period: ["2025-01-01", "2025-01-02"],
        prices: [10.0, 11.75],
        volume: 120.5,
        report: &["binance_us.csv: read as Binance klines without a header"],
    },
    Dialect {
        file: "finrl.csv",
        symbols: &["AAA", "BBB"],
        period: ["2024-01-02", "2024-01-03"],
        prices: [10.0, 11.75],
        volume: 120.0,
        report: &["finrl.csv: read as FinRL's format"],
    },
    Dialect {
        file: "decimal_comma.csv",
        symbols: &["decimal_comma"],
        period: ["2024-01-02", "2024-01-03"],
        prices: [1.1041, 1.1049],
        volume: 640.0,
        report: &["decimal_comma.csv: numbers have a decimal comma"],
    },
    Dialect {
        file: "utc_suffix.csv",
        symbols: &["utc_suffix"],
        period: ["2024-01-02 09:30", "2024-01-02 09:31"],
        prices: [10.0, 11.75],
        volume: 120.0,
        report: &[],
    },
    Dialect {
        file: "nanoseconds.csv",
        symbols: &["nanoseconds"],
        period: ["2024-01-02 09:30", "2024-01-02 09:31:00.000000001"],
        prices: [10.0, 11.75],
        volume: 120.0,
        report: &[],
    },
    Dialect {
        file: "rounding.csv",
        symbols: &["rounding"],
        period: ["2024-01-02", "2024-01-04"],
        prices: [99.5, 100.1],
        volume: 5.0,
        report: &["rounding: 2 opens or closes lay outside low..high by rounding and were clamped"],
    },
    Dialect {
        file: "yfinance.csv",
        symbols: &["yfinance"],
        period: ["2024-02-28", "2024-03-04"],
        prices: [90.75, 96.0],
        volume: 2900.0,
        report: &[
            "yfinance: prices adjusted by `Adj Close` / close, 0.5000 to 1.0000; volume adjusted for 1 split",
        ],
    },
];

#[test]
fn files_of_every_source() {
    for dialect in DIALECTS {
        let file = dialect.file;
        let options = LoadOptions { gaps: GapPolicy::Drop, ..LoadOptions::default() };
        let Loaded { candles, report } = load_all(&[file], &options).expect(file);
        assert_eq!(candles.symbols, dialect.symbols, "{file}");
        let period = dialect.period.map(|text| parse_timestamp(text).expect("a timestamp"));
        assert_eq!([candles.timestamps[0], candles.timestamps[candles.bars() - 1]], period, "{file}");
        let last = candles.bars() - 1;
        assert_eq!([candles.open[[0, 0]], candles.close[[0, last]]], dialect.prices, "{file}");
        let volume = candles.volume.expect(file);
        assert_eq!(volume[[0, last]], dialect.volume, "{file}");
        assert_eq!(lines(&report), dialect.report, "{file}");
    }
}

#[test]
fn prices_out_of_the_range_by_rounding_are_clamped() {
    let candles = load("rounding.csv").candles;
    assert_eq!(candles.close.row(0).to_vec(), [100.1, 100.1, 100.1]);
    assert_eq!(candles.open.row(0).to_vec(), [99.5, 99.5, 99.0]);
}

#[test]
fn prices_whose_features_f32_cannot_hold_are_refused_with_their_line() {
    let error = load_all(&["beyond_f32.csv"], &LoadOptions::default()).expect_err("1e39").to_string();
    assert!(
        error.contains("beyond_f32.csv:3, column `open`: beyond_f32 2024-01-02: open is 1e39; "),
        "{error}"
    );
}

const MONTHS: [&str; 2] = ["BTCUSDT-1d-2024-02.csv", "BTCUSDT-1d-2024-01.csv"];

#[test]
fn a_file_a_month_is_one_instrument() {
    let Loaded { candles, report } = load_all(&MONTHS, &LoadOptions::default()).expect("one instrument");
    assert_eq!(candles.symbols, ["BTCUSDT-1d"]);
    assert_eq!(candles.close, array![[10.5, 11.75, 11.25, 11.0]]);
    assert_eq!(candles.timestamps[2], date(2024, 2, 1).at(0, 0, 0, 0));
    assert_eq!(lines(&report), ["BTCUSDT-1d: joined from 2 files"]);
    // One month alone keeps its name.
    assert_eq!(load(MONTHS[0]).candles.symbols, ["BTCUSDT-1d-2024-02"]);
}

/// Loads files of one instrument each.
pub(crate) fn written(files: &[(&str, &str)], options: &LoadOptions) -> phalanx::Result<Loaded> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("a writable folder");
    }
    Candles::load_with(&[folder.path()], options)
}

pub(crate) fn daily(days: &[(&str, f64)]) -> String {
    let row = |(day, price): &(&str, f64)| format!("{day},{price},{price},{price},{price}\n");
    format!("date,open,high,low,close\n{}", days.iter().map(row).collect::<String>())
}

#[test]
fn overlapping_files_are_joined_only_if_they_agree() {
    let first = daily(&[("2024-01-02", 1.0), ("2024-01-03", 2.0), ("2024-01-04", 3.0)]);
    let same = daily(&[("2024-01-03", 2.0), ("2024-01-04", 3.0), ("2024-01-05", 4.0)]);
    let other = daily(&[("2024-01-03", 2.0), ("2024-01-04", 3.5), ("2024-01-05", 4.0)]);
    let names = ["ES_2024-03.csv", "ES_2024-06.csv"];
    let files = |second| [(names[0], first.as_str()), (names[1], second)];

    let Loaded { candles, report } = written(&files(&same), &LoadOptions::default()).expect("they agree");
    assert_eq!(candles.symbols, ["ES"]);
    assert_eq!(candles.close, array![[1.0, 2.0, 3.0, 4.0]]);
    assert_eq!(lines(&report), ["ES: joined from 2 files; 2 bars are in two of them"]);

    // Two contracts: different instruments, as before.
    let drop = LoadOptions { gaps: GapPolicy::Drop, ..LoadOptions::default() };
    let Loaded { candles, report } = written(&files(&other), &drop).expect("two instruments");
    assert_eq!(candles.symbols, ["ES_2024-03", "ES_2024-06"]);
    assert!(
        matches!(&report.notes[0].finding, Finding::NotJoined { common, .. } if common == "ES"),
        "{report}"
    );
    let error = written(&files(&other), &LoadOptions::default()).expect_err("gaps").to_string();
    assert!(
        error.contains("lacks 1 of 4 bars") && error.contains("not joined to one instrument `ES`"),
        "{error}"
    );

    let with_symbol = |day: &str| {
        daily(&[(day, 1.0)]).replace("date,", "date,pair,").replace(&format!("{day},"), &format!("{day},A,"))
    };
    let [one, two] = ["2024-01-02", "2024-01-03"].map(with_symbol);
    let files = [("x.csv", one.as_str()), ("y.csv", two.as_str())];
    let Loaded { candles, report } = written(&files, &LoadOptions::default()).expect("one symbol");
    assert_eq!((candles.symbols, candles.timestamps.len()), (vec!["A".to_string()], 2));
    assert_eq!(lines(&report), ["A: joined from 2 files"]);
}

#[test]
fn numbered_files_are_joined_only_if_they_follow_each_other() {
    let [early, late] = [daily(&[("2024-01-02", 1.0)]), daily(&[("2024-01-03", 2.0)])];
    let options = LoadOptions::default();
    let joined = written(&[("part_1.csv", &early), ("part_2.csv", &late)], &options).expect("one instrument");
    assert_eq!((joined.candles.symbols, joined.candles.close), (vec!["part".into()], array![[1.0, 2.0]]));
    let apart = daily(&[("2024-01-02", 3.0)]);
    let stocks =
        written(&[("stock_1.csv", &early), ("stock_2.csv", &apart)], &options).expect("two instruments");
    assert_eq!(stocks.candles.symbols, ["stock_1", "stock_2"]);
    assert!(stocks.report.notes.is_empty(), "{}", stocks.report);
}

#[test]
fn adjusted_closes_adjust_all_prices() {
    let Loaded { candles, .. } = load("yfinance.csv");
    let row = |array: &Array2<f64>| array.row(0).to_vec();
    assert_eq!(row(&candles.close), [91.0, 93.0, 94.0, 96.0]);
    assert_eq!(row(&candles.open), [90.75, 91.0, 93.5, 94.0]);
    assert_eq!(row(&candles.high), [91.5, 93.25, 95.0, 96.25]);
    assert_eq!(row(&candles.low), [89.625, 90.5, 93.0, 93.75]);
    assert_eq!(candles.volume.as_ref().map(row), Some(vec![2400.0, 3000.0, 3100.0, 2900.0]));

    let none = LoadOptions { adjust: Adjust::None, ..LoadOptions::default() };
    let Loaded { candles, report } = load_all(&["yfinance.csv"], &none).expect("as it is");
    assert_eq!(row(&candles.close), [182.0, 186.0, 94.0, 96.0]);
    assert_eq!(candles.volume.as_ref().map(row), Some(vec![1200.0, 1500.0, 3100.0, 2900.0]));
    assert_eq!(
        lines(&report),
        [
            "yfinance.csv: `Adj Close` not used (adjust = none)",
            "warning: yfinance: the price jumps from 186 to 93.5 at 2024-03-01, which looks like a 2:1 split that is not adjusted; \
             use adjusted prices, or add a column `adj close`"
        ]
    );
}

#[test]
fn dividends_leave_the_volume_alone() {
    let text = "date,open,high,low,close,adj close,volume\n2024-01-02,10,10,10,10,9.5,100\n2024-01-03,9.5,9.5,9.5,9.5,9.5,100\n";
    let Loaded { candles, report } = written(&[("A.csv", text)], &LoadOptions::default()).expect("adjusted");
    assert_eq!(candles.open, array![[9.5, 9.5]]);
    assert_eq!(candles.volume, Some(array![[100.0, 100.0]]));
    assert_eq!(lines(&report), ["A: prices adjusted by `adj close` / close, 0.9500 to 1.0000"]);
    let error = written(
        &[("A.csv", &text.replace(",9.5,100\n2024-01-03", ",-1,100\n2024-01-03"))],
        &LoadOptions::default(),
    );
    let error = error.expect_err("a negative adjusted close").to_string();
    assert!(
        error.contains("A.csv:2, column `adj close`: A 2024-01-02: the adjusted close is -1; "),
        "{error}"
    );
}

#[test]
fn an_adjusted_close_is_in_all_rows_or_in_none() {
    let text = "date,open,high,low,close,adj close\n2024-01-02,10,10,10,10,\n2024-01-03,9,9,9,9,null\n";
    let Loaded { candles, report } =
        written(&[("A.csv", text)], &LoadOptions::default()).expect("not adjusted");
    assert_eq!(candles.close, array![[10.0, 9.0]]);
    assert!(report.notes.is_empty(), "{report}");
    let error = written(&[("A.csv", &text.replace("null", "9"))], &LoadOptions::default());
    let error = error.expect_err("one row of two").to_string();
    assert!(
        error.contains("A.csv:3: A 2024-01-03: some rows have an adjusted close and others have none; "),
        "{error}"
    );
}

#[test]
fn a_jump_that_looks_like_a_split_is_a_warning() {
    let report = load("split.csv").report;
    let [note] = report.notes.as_slice() else { panic!("one note: {report}") };
    assert_eq!(note.subject, "split");
    let at: DateTime = date(2024, 1, 4).at(0, 0, 0, 0);
    assert_eq!(note.finding, Finding::LooksLikeSplit { timestamp: at, ratio: 4.0, prices: [100.0, 25.25] });
    assert!(note.finding.is_warning());
}

#[test]
fn tickers_without_prices_are_left_out() {
    let text = "Price,Close,Close,High,High,Low,Low,Open,Open\nTicker,A,B,A,B,A,B,A,B\nDate,,,,,,,,\n\
        2024-01-02,1,,1,,1,,1,\n2024-01-03,2,,2,,2,,2,\n";
    let Loaded { candles, report } =
        written(&[("x.csv", text)], &LoadOptions::default()).expect("A has prices");
    assert_eq!(candles.symbols, ["A"]);
    assert_eq!(report.warnings(), ["B: no row has prices: the instrument is left out"]);
    let error = written(&[("x.csv", "date,open,high,low,close\n2024-01-02,,,,\n")], &LoadOptions::default());
    let error = error.expect_err("no prices").to_string();
    assert!(error.ends_with("x.csv: no row has prices; download the file again, or remove it"), "{error}");
}

#[test]
fn a_volume_that_one_ticker_lacks_is_left_out_with_a_warning() {
    let text = "Price,Close,Close,High,High,Low,Low,Open,Open,Volume\nTicker,A,B,A,B,A,B,A,B,A\nDate,,,,,,,,,\n\
        2024-01-02,1,1,1,1,1,1,1,1,5\n2024-01-03,2,2,2,2,2,2,2,2,6\n";
    let Loaded { candles, report } =
        written(&[("x.csv", text)], &LoadOptions::default()).expect("two tickers");
    assert_eq!((candles.symbols.len(), candles.volume), (2, None));
    assert_eq!(
        report.warnings(),
        [
            "x.csv: no volume was read, because the header has no volume of B: add the column (0 if unknown), or remove these \
          tickers"
        ]
    );
    // Nobody has a volume: nothing is lost.
    let text = text
        .replace(",Volume", "")
        .replace("A,B,A\n", "A,B\n")
        .replace(",,,\n", ",,\n")
        .replace(",5\n", "\n");
    let report =
        written(&[("x.csv", &text.replace(",6\n", "\n"))], &LoadOptions::default()).expect("two").report;
    assert!(report.warnings().is_empty(), "{report}");
}

#[test]
fn refusals_say_what_to_do() {
    for (text, expected) in [
        ("<html>\n", "x.csv:1: missing columns: "),
        ("<html>\n", "this is a web page, not a table: download the file again"),
        (
            "1704153600,1,1,1,1\n",
            "x.csv:1: expected a header, found a row of 5 fields (`1704153600,1,1,1,1`); write a header",
        ),
        (
            "Date;Open;High;Low;Close\n2024-01-02;1,5;1,5;1,5;1.5\n",
            "`1.5` has a decimal `.`, but numbers before it have `,`",
        ),
        (
            "Date,Open,High,Low,Close\n2024-01-02,1,1,1,null\n",
            "x.csv:2, column `Close`: x 2024-01-02: `null` stands for no value; ",
        ),
    ] {
        let error = written(&[("x.csv", text)], &LoadOptions::default()).expect_err(text).to_string();
        assert!(error.contains(expected), "{error}");
    }
}
