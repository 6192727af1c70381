//! Valid candle files: real ones, every supported format, and gaps between instruments.

use flate2::{Compression, write::GzEncoder};
use jiff::civil::{DateTime, date};
use ndarray::array;
use phalanx::Result;
use phalanx::market::{Candles, GapPolicy, LoadOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).expect("a writable directory");
    }
    directory
}

fn load(files: &[(&str, &[u8])], gaps: GapPolicy) -> Result<Candles> {
    Candles::load(&[directory(files).path()], gaps)
}

fn day(day: i8) -> DateTime {
    date(2020, 1, day).at(0, 0, 0, 0)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes).and_then(|()| packer.finish()).expect("memory does not fail")
}

#[test]
fn the_demo_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/us4_daily.csv.gz");
    let candles = Candles::load(&[path], GapPolicy::Reject).expect("valid candles");
    assert_eq!(candles.symbols, ["AAPL", "GOOG", "IBM", "MSFT"]);
    assert_eq!((candles.instruments(), candles.bars()), (4, 2148));
    assert_eq!(candles.timestamps.first(), Some(&date(2004, 8, 19).at(0, 0, 0, 0)));
    assert_eq!(candles.timestamps.last(), Some(&date(2013, 3, 1).at(0, 0, 0, 0)));
    assert_eq!(candles.open.column(0).to_vec(), [2.02474, 50.1598, 64.1075, 18.3599]);
    assert_eq!(candles.high.column(0).to_vec(), [2.04723, 52.1911, 64.5613, 18.4337]);
    assert_eq!(candles.low.column(0).to_vec(), [1.95084, 48.1286, 63.8805, 18.1382]);
    assert_eq!(candles.close.column(2147).to_vec(), [56.1374, 404.343, 175.271, 24.6843]);
    let volume = candles.volume.as_ref().expect("the file has volume");
    // Whole numbers below 2^53: the sums are exact in any order.
    let sums: Vec<f64> = volume.rows().into_iter().map(|row| row.sum()).collect();
    assert_eq!(sums, [53_974_585_700.0, 23_689_091_800.0, 14_183_545_600.0, 137_808_375_800.0]);
}

#[test]
fn day_first_with_milliseconds_and_windows_line_ends() {
    let text = b"Time,Open,High,Low,Close,Volume\r\n\
        01.01.2017 22:00:00.000,1.05236,1.05253,1.05221,1.05227,143539993.3\r\n\
        01.01.2017 23:00:00.000,1.05227,1.05426,1.05226,1.05282,253139999.4\r\n\
        02.01.2017 00:00:00.500,1.05284,1.05299,1.0523,1.05255,205409999.2\r\n";
    let candles = load(&[("eurusd_hourly.csv", text)], GapPolicy::Reject).expect("valid candles");
    assert_eq!(candles.symbols, ["eurusd_hourly"]);
    assert_eq!(
        candles.timestamps,
        [
            date(2017, 1, 1).at(22, 0, 0, 0),
            date(2017, 1, 1).at(23, 0, 0, 0),
            date(2017, 1, 2).at(0, 0, 0, 500_000_000)
        ]
    );
    assert_eq!(candles.close, array![[1.05227, 1.05282, 1.05255]]);
    assert_eq!(candles.volume, Some(array![[143539993.3, 253139999.4, 205409999.2]]));
}

#[test]
fn the_same_bars_in_many_formats() {
    let spellings: [(&str, &str); 9] = [
        ("A.csv", "date,open,high,low,close\n2020-01-02,2,3,1,2.5\n2020-01-03,4,6,2,5\n"),
        ("A.csv", "\u{feff}date,open,high,low,close\r\n2020-01-02,2,3,1,2.5\r\n2020-01-03,4,6,2,5"),
        ("A.CSV", "DATE ;Open;High; Low;Close\n02.01.2020;2;3;1;2.5\n03.01.2020; 4;6;2;5\n"),
        (
            "A.csv",
            "timestamp\to\th\tl\tc\n2020-01-02T00:00:00Z\t2\t3\t1\t2.5\n2020-01-03T00:00:00Z\t4\t6\t2\t5\n",
        ),
        (
            "x.csv",
            "close,Ticker,Date,Time,open,max,min\n2.5,A,2020-01-02,00:00,2,3,1\n5,A,2020-01-03,00:00,4,6,2\n",
        ),
        ("x.csv", "Open time,Pair,Open,High,Low,Close\n1577923200,A,2,3,1,2.5\n1578009600,A,4,6,2,5\n"),
        ("x.csv", "Open_Time,Asset,O,H,L,C\n1577923200000,A,2,3,1,2.5\n1578009600000,A,4,6,2,5\n"),
        (
            "x.csv",
            "\n\"date\",\"name\",\"open\",\"high\",\"low\",\"close\"\n\n\"2020-01-02\",\"A\",\"2\",\"3\",\"1\",\"2.5\"\n2020-01-03,A,4,6,2,5\n\n",
        ),
        (
            "x.csv",
            "date,name,symbol,adj close,open,high,low,close\n2020-01-02 02:00+02:00,\"Ae, \"\"Inc\"\"\nB\",A,,2,3,1,2.5\n\
             2020-01-03,,A,,4,6,2,5\n",
        ),
    ];
    for (name, text) in spellings {
        let packed = gzip(text.as_bytes());
        // Gzip is detected by content, not by name.
        for (name, bytes) in [(name, text.as_bytes()), (name, &packed)] {
            let candles = load(&[(name, bytes)], GapPolicy::Reject).expect(text);
            assert_eq!(candles.symbols, ["A"], "{text}");
            assert_eq!(candles.timestamps, [day(2), day(3)], "{text}");
            assert_eq!(candles.open, array![[2.0, 4.0]], "{text}");
            assert_eq!(candles.high, array![[3.0, 6.0]], "{text}");
            assert_eq!(candles.low, array![[1.0, 2.0]], "{text}");
            assert_eq!(candles.close, array![[2.5, 5.0]], "{text}");
            assert_eq!(candles.volume, None, "{text}");
        }
    }
}

#[test]
fn files_of_old_macs_end_lines_with_carriage_returns() {
    let text = "sep=;\rdate;open;high;low;close\r2020-01-02;2;3;1;2,5\r\r2020-01-03;4;6;2;5\r";
    let candles = load(&[("A.csv", text.as_bytes())], GapPolicy::Reject).expect("valid candles");
    assert_eq!(candles.close, array![[2.5, 5.0]]);
}

#[test]
fn gzip_members_are_read_one_after_the_other() {
    let mut packed = gzip(b"date,open,high,low,close\n2020-01-02,2,3,1,2\n2020-0");
    packed.extend(gzip(b"1-03,4,6,2,5\n"));
    let candles = load(&[("A.csv.gz", &packed)], GapPolicy::Reject).expect("valid candles");
    assert_eq!(candles.timestamps, [day(2), day(3)]);
}

#[test]
fn values_keep_every_bit() {
    // A fixed sequence over all exponents that prices of one instrument may have; every number is printed so that it round-trips.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let (least, most) = (1e-4, 1e8);
    let mut values = vec![least, 0.1, 1.0 / 3.0, most, 1.05236];
    while values.len() < 3000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Exponents of 2^-14 to 2^26.
        let exponent = 1009 + (state >> 58) % 41;
        let value = f64::from_bits(exponent << 52 | (state & ((1 << 52) - 1)));
        if (least..=most).contains(&value) {
            values.push(value);
        }
    }
    let mut text = "time,open,high,low,close,volume\n".to_string();
    for (index, value) in values.iter().enumerate() {
        text += &format!("{},{value},{value:e},{value},{value:?},{value}\n", 1_500_000_000 + index);
    }
    let candles = load(&[("A.csv", text.as_bytes())], GapPolicy::Reject).expect("valid candles");
    let volume = candles.volume.as_ref().expect("the file has volume");
    let expected: Vec<u64> = values.iter().map(|value| value.to_bits()).collect();
    for array in [&candles.open, &candles.high, &candles.low, &candles.close, volume] {
        assert_eq!(array.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn long_and_single_files_together() {
    let long = b"symbol,date,open,high,low,close\n\
        C,2020-01-02,1,1,1,1\nA,2020-01-02,2,2,2,2\nA,2020-01-03,3,3,3,3\nC,2020-01-03,4,4,4,4\n";
    let single = b"date;open;high;low;close\n2020-01-02;5;5;5;5\n2020-01-03;6;6;6;6\n";
    let files = directory(&[("long.csv", long), ("B.csv.gz", &gzip(single)), ("notes.txt", b"not candles")]);
    let by_name: Vec<PathBuf> = ["long.csv", "B.csv.gz"].map(|name| files.path().join(name)).to_vec();
    for paths in [vec![files.path().to_path_buf()], by_name] {
        let candles = Candles::load(&paths, GapPolicy::Reject).expect("valid candles");
        assert_eq!(candles.symbols, ["A", "B", "C"]);
        assert_eq!(candles.close, array![[2.0, 3.0], [5.0, 6.0], [1.0, 4.0]]);
    }
}

const GAPS: &[(&str, &[u8])] = &[
    (
        "A.csv",
        b"date,open,high,low,close,volume\n2020-01-01,1,1,1,1,1\n2020-01-02,2,4,1,3,2\n2020-01-06,6,6,6,6,6\n",
    ),
    (
        "B.csv",
        b"date,open,high,low,close,volume\n2020-01-02,7,7,7,7,1\n2020-01-03,8,8,8,8,2\n2020-01-06,9,9,9,9,3\n\
          2020-01-07,10,10,10,10,4\n2020-01-08,10,10,10,10,4\n2020-01-09,10,10,10,10,4\n\
          2020-01-10,10,10,10,10,4\n2020-01-11,10,10,10,10,4\n",
    ),
];

#[test]
fn gaps_are_rejected_by_name() {
    assert_eq!(
        load(GAPS, GapPolicy::default()).map(|_| ()).map_err(|error| error.to_string()),
        Err("the instruments have different bars: A lacks 6 of 9 bars (2020-01-03, 2020-01-07, 2020-01-08, \
             2020-01-09, 2020-01-10, ...); B lacks 1 of 9 bars (2020-01-01); complete the files, or choose the gap \
             policy `drop` (keep only the timestamps that all instruments have) or `forward-fill` (repeat the \
             previous close, with volume 0)"
            .into())
    );
}

#[test]
fn gaps_are_dropped() {
    let candles = load(GAPS, GapPolicy::Drop).expect("two common bars");
    assert_eq!(candles.timestamps, [day(2), day(6)]);
    assert_eq!(candles.close, array![[3.0, 6.0], [7.0, 9.0]]);
    assert_eq!(candles.volume, Some(array![[2.0, 6.0], [1.0, 3.0]]));
}

#[test]
fn gaps_are_filled() {
    let candles = load(GAPS, GapPolicy::ForwardFill).expect("overlap");
    assert_eq!(candles.timestamps, [2, 3, 6, 7, 8, 9, 10, 11].map(day));
    let row = |array: &ndarray::Array2<f64>| array.row(0).to_vec();
    assert_eq!(row(&candles.open), [2.0, 3.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0]);
    assert_eq!(row(&candles.high), [4.0, 3.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0]);
    assert_eq!(row(&candles.low), [1.0, 3.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0]);
    assert_eq!(row(&candles.close), [3.0, 3.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0]);
    assert_eq!(candles.volume.as_ref().map(row), Some(vec![2.0, 0.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    assert_eq!(candles.close.row(1).to_vec(), [7.0, 8.0, 9.0, 10.0, 10.0, 10.0, 10.0, 10.0]);
    assert_eq!((candles.filled_bars(), candles.dropped), (vec![6, 0], vec![1, 0]));
}

/// 3,000 instruments with timestamps of their own: forward-filled they are nine million bars, dropped none. The counts are known
/// before anything is allocated.
#[test]
fn gaps_are_filled_within_the_limit_on_bars() {
    let mut text = String::from("timestamp,symbol,open,high,low,close\n");
    for row in 0..6000 {
        text += &format!("{},S{},1,1,1,1\n", 1_500_000_000 + row, row % 3000);
    }
    let loaded = |gaps| {
        let mut options = LoadOptions { gaps, ..LoadOptions::default() };
        options.limits.bars = 1_000_000;
        let loaded = Candles::load_bytes(&[("all.csv", text.as_bytes())], &options);
        loaded.map(|_| ()).expect_err("more than the limit, or no common bars").to_string()
    };
    assert_eq!(
        loaded(GapPolicy::ForwardFill),
        "3000 instruments x 3001 timestamps are 9003000 bars (283 MiB), more than 1000000: choose the gap policy `drop`, load fewer \
         instruments or a shorter period, or raise data.limits.bars"
    );
    assert!(loaded(GapPolicy::Drop).starts_with("the instruments have only 0 timestamps in common"));
}

#[test]
fn bytes_are_read_as_files_are() {
    let text = b"date,open,high,low,close\n2020-01-02,2,3,1,2.5\n";
    let packed = gzip(text);
    let options = LoadOptions::default();
    let loaded =
        Candles::load_bytes(&[("A.csv", text), ("B.csv.gz", &packed)], &options).expect("valid candles");
    assert_eq!(loaded.candles.symbols, ["A", "B"]);
    assert_eq!(loaded.candles.close, array![[2.5], [2.5]]);
}
