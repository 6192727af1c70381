//! Invalid candle files, and the error messages they are rejected with.

use crate::common::program::{DEMO, Workplace, refused};
use flate2::{Compression, write::GzEncoder};
use ndarray::Array2;
use phalanx::gpu::Recorder;
use phalanx::indicators::{Indicators, NAMES, Series, parse};
use phalanx::market::{Candles, ExtraFeatures, GapPolicy, LoadOptions, MarketData, Scaling};
use std::io::Write;
use std::path::Path;

const HEADER: &str = "date,symbol,open,high,low,close,volume\n";
const FORMS: &str = "accepted formats: 2004-08-19, 2004.08.19, 19.08.2004 and 20040819, each alone or with a time such as \
     16:00[:00[.000]] (after a space or T, before an optional Z, UTC, +02:00 or GMT+0200), and unix time in seconds (9 or 10 \
     digits), milliseconds (12 or 13), microseconds (15 or 16) or nanoseconds (18 or 19)";
const EXAMPLE: &str = "write a header such as date,symbol,open,high,low,close,volume, then one line per bar";

/// The error of loading these files from one directory, whose path is replaced by `DIR`.
fn refusal(files: &[(&str, &[u8])]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).expect("a writable directory");
    }
    let error = Candles::load(&[directory.path()], GapPolicy::Reject).expect_err("a fault in the candles");
    error.to_string().replace(&directory.path().display().to_string(), "DIR")
}

/// The error of a file `a.csv` with the usual header, two valid bars of A and these rows.
fn row_refusal(rows: &str) -> String {
    let good = "2020-01-01,A,2,3,1,2,10\n2020-01-02,A,2,3,1,2,10\n";
    refusal(&[("a.csv", format!("{HEADER}{good}{rows}").as_bytes())])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes).and_then(|()| packer.finish()).expect("memory does not fail")
}

#[test]
fn high_below_low() {
    assert_eq!(
        row_refusal("2020-01-03,A,2,0.5,1,2,10\n"),
        "DIR/a.csv:4, column `high`: A 2020-01-03: high 0.5 is below low 1; high has to be the bar's \
         highest price, low its lowest"
    );
}

#[test]
fn open_and_close_outside_the_bar() {
    assert_eq!(
        row_refusal("2020-01-03,A,3.25,3,1,2,10\n"),
        "DIR/a.csv:4, column `open`: A 2020-01-03: open 3.25 is outside the bar's range, low 1 to high 3"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,2,3,1,0.75,10\n"),
        "DIR/a.csv:4, column `close`: A 2020-01-03: close 0.75 is outside the bar's range, low 1 to high 3"
    );
}

#[test]
fn invalid_prices() {
    assert_eq!(
        row_refusal("2020-01-03,A,2,3,0,2,10\n"),
        "DIR/a.csv:4, column `low`: A 2020-01-03: low is 0; a price has to be finite and above 0"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,-2,3,1,2,10\n"),
        "DIR/a.csv:4, column `open`: A 2020-01-03: open is -2; a price has to be finite and above 0"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,2,3,1,NaN,10\n"),
        "DIR/a.csv:4, column `close`: A 2020-01-03: close is NaN; a price has to be finite and above 0"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,2,1e999,1,2,10\n"),
        "DIR/a.csv:4, column `high`: A 2020-01-03: high is inf; a price has to be finite and above 0"
    );
}

/// Marks for missing values and prices in another unit, from which no feature could be computed in f32.
#[test]
fn values_that_no_feature_can_hold() {
    assert_eq!(
        row_refusal("2020-01-03,A,2,3,1,2,1.7976931348623157e308\n"),
        "DIR/a.csv:4, column `volume`: A 2020-01-03: volume is 1.7976931348623157e308; a volume has to be at most 1e20, so that 32-bit numbers \
         hold every feature: check the file for a mark for a missing volume (write 0), or count in another unit"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,1e21,1e21,1e21,1e21,10\n"),
        "DIR/a.csv:4, column `open`: A 2020-01-03: open is 1e21; a price has to be between 1e-15 and 1e15, so that 32-bit \
         numbers hold every feature: check the file, or quote the prices in another unit"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,2,1e13,1,2,10\n"),
        "DIR/a.csv:4, column `high`: A 2020-01-03: high is 1e13, and another price of the instrument is 1e0; they may \
         differ by a factor of 1e12, so that 32-bit numbers hold every return: check the file for a price in another unit or a \
         mark for a missing one"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,1e14,2e14,1e14,1e14,1e19\n"),
        "DIR/a.csv:4, column `volume`: A 2020-01-03: volume is 1e19 at a price of 2e14; their product has to be at most 1e33, so that \
         32-bit numbers hold its sums: check the file, or count the volume or quote the prices in another unit"
    );
    let error = row_refusal("2020-01-03,A,2,3,1e-12,2,10\n");
    assert!(
        error.contains(
            "a.csv:4, column `low`: A 2020-01-03: low is 1e-12, and another price of the instrument is "
        ),
        "{error}"
    );
    // Another instrument may have such prices.
    let text = format!("{HEADER}2020-01-02,A,1,1,1,1,0\n2020-01-02,B,1e14,1e14,1e14,1e14,1e19\n");
    assert!(Candles::load_bytes(&[("a.csv", text.as_bytes())], &LoadOptions::default()).is_ok());
}

/// The widest prices and volumes that are accepted: every feature, its statistics and every indicator stay finite.
#[test]
fn accepted_values_have_finite_features() {
    let bars = 200;
    let start = phalanx::market::parse_timestamp("2020-01-01").expect("a date");
    let days = (0..bars as i64)
        .map(|day| start.saturating_add(jiff::SignedDuration::from_hours(24 * day)))
        .collect();
    let levels = [[1e3, 1e15], [1e-15, 1e-3], [1e-15, 1e-15], [1e15, 1e15]];
    // Runs of low and high prices of one to five bars.
    let high_at = |bar: usize| (bar / (1 + bar / 40)) % 2 == 1;
    let close = Array2::from_shape_fn((levels.len(), bars), |(i, bar)| levels[i][usize::from(high_at(bar))]);
    let range = |pick: fn(f64, f64) -> f64| {
        let before = |i: usize, bar: usize| close[[i, bar.saturating_sub(1)]];
        Array2::from_shape_fn(close.dim(), |(i, bar)| pick(close[[i, bar]], before(i, bar)))
    };
    let (high, low) = (range(f64::max), range(f64::min));
    // As large as the product with the price allows.
    let volume = Array2::from_shape_fn(close.dim(), |(i, bar)| {
        let most = (1e33 / high[[i, bar]]).next_down().min(1e20);
        [0.0, most, 1e-30, most][(bar / 3 + i) % 4]
    });
    let symbols = ["A", "B", "C", "D"].map(String::from).to_vec();
    let candles = Candles::new(
        symbols,
        days,
        low.clone(),
        high.clone(),
        low.clone(),
        close.clone(),
        Some(volume.clone()),
    )
    .expect("values at the limits");
    let gpu = crate::testing::gpu();
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(50..bars))
        .expect("features");
    for (index, moments) in data.scaling().moments.iter().enumerate() {
        let feature = &data.scaling().features[index % data.features()];
        assert!(
            moments.iter().all(|it| it.is_finite()),
            "{feature} of instrument {}: {moments:?}",
            index / data.features()
        );
    }
    let scaled: Vec<f32> = gpu.read(data.buffer()).expect("a buffer");
    assert!(scaled.iter().all(|value| value.is_finite()));

    let views = [&high, &low, &close].map(|prices| prices.view());
    let series = Series::with_volume(&gpu, views[0], views[1], views[2], volume.view()).expect("an upload");
    let all = NAMES.iter().fold(Indicators::new(&gpu), |all, name| all.with(parse(name).expect("known")));
    let panel = all.panel(&series).expect("a panel");
    Recorder::new(&gpu).run(&panel.commands()).expect("a submission");
    let values = panel.read(&gpu).expect("values");
    for name in values.names() {
        let infinite = values.get(name).expect("a name").iter().any(|value| value.is_infinite());
        assert!(!infinite, "{name}");
    }
}

#[test]
fn negative_volume() {
    assert_eq!(
        row_refusal("2020-01-03,A,2,3,1,2,-10\n"),
        "DIR/a.csv:4, column `volume`: A 2020-01-03: volume is -10; a volume has to be finite and not negative"
    );
}

#[test]
fn invalid_numbers() {
    assert_eq!(
        row_refusal("2020-01-03,A,2,3,1,n/a,10\n"),
        "DIR/a.csv:4, column `close`: A 2020-01-03: `n/a` stands for no value; every bar needs a number in this column (rows \
         without any price are dropped)"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,2,3,1,two,10\n"),
        "DIR/a.csv:4, column `close`: A 2020-01-03: `two` is not a number; write it like 1234.5 or 1.2345e3"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,2,\"1,234.5\",1,2,10\n"),
        "DIR/a.csv:4, column `high`: A 2020-01-03: `1,234.5` is not a number; write it like 1234.5 or 1.2345e3"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,2,3,1,2, \n"),
        "DIR/a.csv:4, column `volume`: A 2020-01-03: the field is empty; every bar needs a number in this column (rows \
         without any price are dropped)"
    );
}

#[test]
fn duplicate_or_unsorted_timestamps() {
    assert_eq!(
        row_refusal("2020-01-02,A,2,3,1,2,10\n"),
        "DIR/a.csv:4, column `date`: A has two bars at 2020-01-02, the first on line 3; keep one of them"
    );
    assert_eq!(
        row_refusal("2020-01-01,B,2,3,1,2,10\n2020-01-01,A,2,3,1,2,10\n"),
        "DIR/a.csv:5, column `date`: A has two bars at 2020-01-01, the second after 2020-01-02 on line 3; keep \
         one of them"
    );
    assert_eq!(
        row_refusal("2019-12-31,A,2,3,1,2,10\n"),
        "DIR/a.csv:4, column `date`: A 2019-12-31 comes after 2020-01-02 on line 3; sort the bars of an \
         instrument by time"
    );
    assert_eq!(
        refusal(&[(
            "EURUSD.csv",
            b"Date,Time,o,h,l,c\n2020-01-01,10:00,1,1,1,1\n2020-01-01,10:00,1,1,1,1\n"
        )]),
        "DIR/EURUSD.csv:3, column `Date + Time`: EURUSD has two bars at 2020-01-01T10:00:00, the first on line 2; \
         keep one of them (a file without a symbol column holds one instrument)"
    );
}

#[test]
fn invalid_timestamps() {
    assert_eq!(
        row_refusal("01/03/2020,A,2,3,1,2,10\n"),
        format!("DIR/a.csv:4, column `date`: A: `01/03/2020` is not a timestamp; {FORMS}")
    );
    assert_eq!(
        row_refusal(",A,2,3,1,2,10\n"),
        format!("DIR/a.csv:4, column `date`: A: the timestamp is empty; {FORMS}")
    );
    assert_eq!(
        row_refusal("2020-02-30,A,2,3,1,2,10\n"),
        "DIR/a.csv:4, column `date`: A: `2020-02-30` is a date or time of day that does not exist"
    );
}

#[test]
fn empty_symbols() {
    assert_eq!(
        row_refusal("2020-01-03, ,2,3,1,2,10\n"),
        "DIR/a.csv:4, column `symbol`: the symbol is empty; every row needs a symbol"
    );
    assert_eq!(
        refusal(&[(".csv", b"date,open,high,low,close\n2020-01-03,2,3,1,2\n")]),
        "DIR/.csv: the file has neither a symbol column nor a symbol in its name; rename it to SYMBOL.csv or add the \
         column"
    );
}

#[test]
fn rows_of_the_wrong_length() {
    assert_eq!(
        row_refusal("2020-01-03,A,2,3,1,2\n"),
        "DIR/a.csv:4: the row has 6 fields, but the header has 7"
    );
    assert_eq!(
        row_refusal("2020-01-03,A,2,3,1,2,10,11\n"),
        "DIR/a.csv:4: the row has 8 fields, but the header has 7"
    );
    assert_eq!(
        row_refusal("2020-01-03,\"A,2,3,1,2,10\n2020-01-04,A,2,3,1,2,10\n"),
        "DIR/a.csv:4: the row has 2 fields, but the header has 7; the row ends on line 6: check for a quote \
         that is not closed"
    );
}

#[test]
fn files_without_bars() {
    for empty in ["", "\n \r\n", "\u{feff}"] {
        assert_eq!(
            refusal(&[("a.csv", empty.as_bytes())]),
            format!("DIR/a.csv: the file is empty; {EXAMPLE}")
        );
    }
    assert_eq!(
        refusal(&[("a.csv", HEADER.as_bytes())]),
        format!("DIR/a.csv: the file has a header but no bars; {EXAMPLE}")
    );
    assert_eq!(
        refusal(&[("readme.txt", b"")]),
        "DIR: the directory contains no .csv, .csv.gz, .parquet, .pq file"
    );
    let none: [&Path; 0] = [];
    assert_eq!(
        Candles::load(&none, GapPolicy::Reject).map(|_| ()).map_err(|error| error.to_string()),
        Err("no candle files given; pass CSV or Parquet files or a directory of them".into())
    );
}

#[test]
fn missing_and_duplicate_columns() {
    assert_eq!(
        refusal(&[("a.csv", b"\nDay,Open,High,Low,Close\n2020-01-03,2,3,1,2\n")]),
        "DIR/a.csv:2: missing column: timestamp (accepted: date, time, timestamp, datetime, date time, open \
         time, gmt time, local time, unix, unix time, unix timestamp, epoch, index, index level 0); the header has `Day`, `Open`, `High`, `Low`, `Close`"
    );
    assert_eq!(
        refusal(&[("a.csv", b"date|open|high\n")]),
        "DIR/a.csv:1: missing columns: low (accepted: low, l, min), close (accepted: close, c); the header has `date`, \
         `open`, `high`"
    );
    assert_eq!(
        refusal(&[("a.csv", b"date,open,high,max,low,close\n")]),
        "DIR/a.csv:1: 2 columns match the high: `high`, `max`; keep one of them"
    );
}

#[test]
fn text_that_is_not_utf8() {
    let mut bytes = format!("{HEADER}2020-01-01,A,2,3,1,2,10\n").into_bytes();
    bytes.extend(b"2020-01-01,M\xfcnchen,2,3,1,2,10\n");
    assert_eq!(
        refusal(&[("a.csv", &bytes)]),
        "DIR/a.csv:3, column `symbol`: the text is not valid UTF-8; save the file in UTF-8"
    );
    assert_eq!(
        refusal(&[("a.csv", b"\xff\xfed\0a\0t\0e\0\n\0")]),
        "DIR/a.csv:1: the text is not valid UTF-8; save the file in UTF-8"
    );
}

#[test]
fn damaged_gzip() {
    let mut text = HEADER.to_string();
    for hour in 0..24 {
        for minute in 0..60 {
            // Random volumes, so that the compressed file has more than one block.
            let volume = (hour * 60 + minute) * 7919 % 10007;
            text += &format!("2020-01-01 {hour:02}:{minute:02},A,2,3,1,2,{volume}\n");
        }
    }
    let whole = gzip(text.as_bytes());
    for cut in [whole.len() - 1, whole.len() / 2, 5] {
        let error = refusal(&[("a.csv.gz", &whole[..cut])]);
        let (place, reason) = error.split_once(": the gzip data ").expect("a fault of the archive");
        assert!(reason.starts_with("is truncated or corrupt ("), "{error}");
        assert!(reason.ends_with("); download or compress the file again"), "{error}");
        // An archive cut in its trailer yields all 1441 lines; cut in its header, none.
        let expected = [(whole.len() - 1, "DIR/a.csv.gz:1441"), (5, "DIR/a.csv.gz")];
        assert!(expected.iter().all(|(at, text)| *at != cut || *text == place), "{error}");
    }
    let mut flipped = whole.clone();
    let checksum = whole.len() - 8;
    flipped[checksum] ^= 1;
    assert_eq!(
        refusal(&[("a.csv.gz", &flipped)]),
        "DIR/a.csv.gz:1441: the gzip data is truncated or corrupt (corrupt gzip stream does not have a matching \
         checksum); download or compress the file again"
    );
}

#[test]
fn one_symbol_in_two_files_with_different_bars() {
    let long = format!("{HEADER}2020-01-01,B,2,3,1,2,10\n2020-01-01,A,2,3,1,2,10\n");
    let other = long.replace(",B,", ",C,").replace("A,2,", "A,3,");
    assert_eq!(
        refusal(&[("1.csv", long.as_bytes()), ("2.csv", other.as_bytes())]),
        "DIR/2.csv: A also appears in DIR/1.csv, with different bars around 2020-01-01; keep every bar of an instrument in \
         one file, or give different instruments different symbols"
    );
    let single = b"date,open,high,low,close,volume\n2020-01-01,2,3,1,2,11\n";
    let error = refusal(&[("1.csv", long.as_bytes()), ("B.csv", single)]);
    assert!(
        error.starts_with("DIR/B.csv: B also appears in DIR/1.csv, with different bars around "),
        "{error}"
    );
    let adjusted = b"date,open,high,low,close,volume,adj close\n2020-01-02,2,3,1,2,11,2\n";
    let error = refusal(&[("1.csv", long.as_bytes()), ("B.csv", adjusted)]);
    assert!(error.contains("only one of the files has an adjusted close"), "{error}");
}

#[test]
fn volume_in_some_files_only() {
    let with = b"date,open,high,low,close,volume\n2020-01-01,2,3,1,2,10\n";
    let without = b"date,open,high,low,close\n2020-01-01,2,3,1,2\n";
    assert_eq!(
        refusal(&[("A.csv", with), ("B.csv", without)]),
        "DIR/B.csv, column `volume`: missing, but DIR/A.csv has it; add the column here (0 if unknown) or remove \
         it from all files"
    );
}

#[test]
fn missing_files() {
    let error = Candles::load(&["no/such/file.csv"], GapPolicy::Reject).expect_err("no file");
    assert!(matches!(error, phalanx::Error::Io { .. }));
    assert!(error.to_string().starts_with("no/such/file.csv: "), "{error}");
}

#[test]
fn line_numbers_match_a_text_editor() {
    // A blank line, a quoted header over two lines, and a quoted field over three.
    let text = "\ndate,symbol,open,high,low,close,\"a\nnote\"\n\
        2020-01-01,A,2,3,1,2,\"one\n\ntwo\"\n\
        \n\
        2020-01-02,A,2,3,1,2,\n\
        2020-01-03,A,2,3,1,9,\"a\nb\"\n";
    let expected = ", column `close`: A 2020-01-03: close 9 is outside the bar's range, low 1 to high 3";
    for (text, line) in [
        (text.to_string(), 9),
        (text.replace('\n', "\r\n"), 9),
        (format!("\u{feff}{text}"), 9),
        (text.replace("\n\n", "\n\n\n"), 11),
        (text.trim_end().to_string(), 9),
        (text.replace('\n', "\r"), 9),
        (text.replace("\n\n", "\r\r\r").replace('\n', "\r"), 11),
    ] {
        assert_eq!(refusal(&[("a.csv", text.as_bytes())]), format!("DIR/a.csv:{line}{expected}"));
        assert_eq!(
            refusal(&[("a.csv.gz", &gzip(text.as_bytes()))]),
            format!("DIR/a.csv.gz:{line}{expected}")
        );
    }
}

/// Loads one file with limits; the error does not depend on a folder.
fn limited(name: &str, bytes: &[u8], change: impl FnOnce(&mut LoadOptions)) -> String {
    let mut options = LoadOptions::default();
    change(&mut options);
    Candles::load_bytes(&[(name, bytes)], &options)
        .map_or_else(|error| error.to_string(), |_| "accepted".into())
}

#[test]
fn limits_are_named_with_file_and_line() {
    let rows = "2020-01-01,A,2,3,1,2,10\n2020-01-01,B,2,3,1,2,10\n2020-01-02,A,2,3,1,2,10\n2020-01-02,B,2,3,1,2,10\n";
    let text = format!("{HEADER}{rows}");
    assert_eq!(limited("a.csv", text.as_bytes(), |_| ()), "accepted");
    assert_eq!(
        limited("a.csv", text.as_bytes(), |options| options.limits.bars = 3),
        "a.csv:5: the files have more than 3 bars: load fewer instruments or a shorter period, or raise data.limits.bars"
    );
    assert_eq!(
        limited("a.csv", text.as_bytes(), |options| options.limits.symbols = 1),
        "a.csv:3: the files have more than 1 instruments: check that the symbols are right, load fewer, or raise \
         data.limits.symbols"
    );
    assert_eq!(
        limited("a.csv", text.as_bytes(), |options| options.limits.fields = 6),
        "a.csv:1: the line has 7 fields, and at most 6 are read: check the file, or raise data.limits.fields"
    );
    let long =
        format!("{HEADER}2020-01-01,A,2,3,1,2,10\n2020-01-02,\"A\n{},2,3,1,2,10\n", "x\n".repeat(1000));
    assert_eq!(
        limited("a.csv", long.as_bytes(), |options| options.limits.line_bytes = 1000),
        "a.csv:497: a line, or a row over several lines, has more than 1000 bytes: check that this is a table and that every quote \
         is closed, or raise data.limits.line_bytes"
    );
    // Symbols of rows without prices count as well.
    let empty = format!("{HEADER}2020-01-01,A,,,,,\n2020-01-01,B,,,,,\n");
    assert!(
        limited("a.csv", empty.as_bytes(), |options| options.limits.symbols = 1).starts_with("a.csv:3: ")
    );
}

/// A megabyte of gzipped commas or zeros was read into gigabytes. The reader stops at the limit of a line: a test of its module counts
/// the bytes that it takes.
#[test]
fn archives_of_one_byte_are_refused() {
    for (byte, megabytes) in [(b',', 64), (0, 64), (b'"', 64)] {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        for _ in 0..megabytes {
            packer.write_all(&[byte; 1 << 20]).expect("memory does not fail");
        }
        let packed = packer.finish().expect("memory does not fail");
        let error = limited("a.csv.gz", &packed, |_| ());
        assert!(
            error.starts_with(
                "a.csv.gz:1: a line, or a row over several lines, has more than 1048576 bytes: "
            ),
            "{error}"
        );
    }
    // Lines that are short, but blank.
    let packed = gzip(&vec![b'\n'; 1 << 20]);
    let error = limited("a.csv.gz", &packed, |options| options.limits.unpacked_bytes = 0);
    assert!(
        error
            .contains("no candles are: check where the file comes from, or raise data.limits.unpacked_ratio"),
        "{error}"
    );
}

/// Blank lines cost as much as other bytes: 100,000 of them took 2.4 s when the time grew with their square, so 8 million would take
/// four hours. They take less than a second; a busy machine gets two minutes.
#[test]
fn blank_lines_take_linear_time() {
    let lines = 4_000_000;
    let text =
        format!("{}{HEADER}{}2020-01-01,A,2,3,1,2,10\n", "\n".repeat(lines), "\r\n \n".repeat(lines / 2));
    let start = std::time::Instant::now();
    assert_eq!(limited("a.csv", text.as_bytes(), |_| ()), "accepted");
    let seconds = start.elapsed().as_secs_f64();
    println!("{seconds:.2} s for {} blank lines", 2 * lines);
    assert!(seconds < 120.0, "{seconds} s");
}

#[test]
fn messages_are_short_and_show_control_characters() {
    let escape = row_refusal("2020-01-03,A,2,3,1,\u{1b}[2J\u{202e}x,10\n");
    assert!(escape.contains("`\\u{1b}[2J\\u{202e}x` is not a number"), "{escape}");
    for text in [
        // A long value, timestamp, symbol, header, and a long header line.
        format!("{HEADER}2020-01-03,A,2,3,1,{},10\n", "9x".repeat(100_000)),
        format!("{HEADER}{},A,2,3,1,2,10\n", "\u{4e2d}".repeat(100_000)),
        format!("{HEADER}2020-01-03,{},2,3,1,2,10\n", "\u{1b}".repeat(100_000)),
        format!("date,open,high,low,{}\n", "x\u{7}".repeat(100_000)),
        format!("{}\n", vec!["\u{1f600}\u{200b}".repeat(30); 5000].join(",")),
        format!(
            "Price,{0},{0},{0}\nTicker,{0},{0},{0}\nDate,,,\n",
            "Close,".repeat(3000).trim_end_matches(',')
        ),
        format!("{}\n", "close,".repeat(5000)),
        "1,".repeat(30_000),
    ] {
        let error = refusal(&[("a.csv", text.as_bytes())]);
        assert!(error.len() <= 2048, "{} bytes: {error}", error.len());
        assert!(!error.contains(|it: char| it.is_control() || it == '\u{200b}'), "{error:?}");
    }
    // Files of a folder have names that others chose.
    let name = format!("{}\u{1b}[31m.csv", "n".repeat(200));
    let error = refusal(&[(&name, b"date,open\n")]);
    assert!(error.contains("nnn\\u{1b}[31m.csv:1: missing columns: "), "{error}");
    let error = refusal(&[(&name, b"date,open,high,low,close\n2020-01-02,1,1,1,1\n")]);
    assert!(
        error.ends_with(
            "\\u{1b}[31m` has a control character or another one that is not visible; rename the file"
        ),
        "{error}"
    );
}

#[test]
fn symbols_are_visible() {
    for (symbol, shown) in
        [("A\tB", "A\\tB"), ("A\u{200b}", "A\\u{200b}"), ("\u{1b}]0;x\u{7}", "\\u{1b}]0;x\\u{7}")]
    {
        assert_eq!(
            row_refusal(&format!("2020-01-03,\"{symbol}\",2,3,1,2,10\n")),
            format!(
                "DIR/a.csv:4, column `symbol`: the symbol `{shown}` has a control character or another one that is not visible; \
                 remove it"
            )
        );
    }
    let error = row_refusal(&format!("2020-01-03,{},2,3,1,2,10\n", "S".repeat(300)));
    assert!(error.contains("has 300 bytes; it may have 255: shorten it"), "{error}");
}

#[cfg(unix)]
#[test]
fn folders_take_regular_files_and_pipes_are_read_if_they_are_named() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let text = "date,open,high,low,close\n2020-01-02,1,1,1,1\n2020-01-03,2,2,2,2\n";
    let pipe = folder.path().join("pipe.csv");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    // Nobody writes to the pipe: opening it would wait for ever.
    let error =
        Candles::load(&[folder.path()], GapPolicy::Reject).map(|_| ()).expect_err("no file").to_string();
    assert!(error.contains("contains no .csv, .csv.gz, .parquet, .pq file ("), "{error}");
    assert!(error.ends_with("pipe.csv is not a regular file: name it to read from it)"), "{error}");
    std::fs::write(folder.path().join("data"), text).expect("a writable directory");
    std::os::unix::fs::symlink(folder.path().join("data"), folder.path().join("A.csv")).expect("a link");
    let loaded = Candles::load_with(&[folder.path()], &LoadOptions::default()).expect("A");
    assert_eq!(loaded.candles.symbols, ["A"], "links to regular files are read");
    assert_eq!(
        loaded.report.warnings(),
        ["pipe.csv: left out, because it is not a regular file; name it itself to read it"]
    );

    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, gzip(text.as_bytes()))
    });
    let loaded = Candles::load_with(&[&pipe], &LoadOptions::default()).expect("the pipe");
    writer.join().expect("no panic").expect("everything was read");
    assert_eq!((loaded.candles.symbols, loaded.candles.timestamps.len()), (vec!["pipe".to_string()], 2));
    assert_eq!(loaded.report.findings(), ["pipe.csv: read, although it is not a regular file"]);

    let error =
        Candles::load(&["/dev/zero"], GapPolicy::Reject).map(|_| ()).expect_err("endless").to_string();
    assert!(error.starts_with("/dev/zero:1: a line, or a row over several lines, has more than "), "{error}");
}

#[test]
fn the_program_has_the_settings_that_errors_name() {
    let place = Workplace::new();
    let out = place.path("run");
    let train = |setting: &str| place.train(DEMO, "run", &["--set", setting]);
    refused(
        &train("data.limits.bars=1000"),
        &["us4_daily.csv.gz:1002: ", "more than 1000 bars", "raise data.limits.bars"],
    );
    refused(&train("data.limits.symbols=3"), &["us4_daily.csv.gz:6446: ", "raise data.limits.symbols"]);
    refused(&train("data.limits.fields=3"), &["us4_daily.csv.gz:1: ", "raise data.limits.fields"]);
    refused(&train("data.limits.line_bytes=20"), &["us4_daily.csv.gz:1: ", "raise data.limits.line_bytes"]);
    let none = ["--set", "data.limits.unpacked_bytes=0", "--set", "data.limits.unpacked_ratio=1"];
    refused(&place.train(DEMO, "run", &none), &["us4_daily.csv.gz", "raise data.limits.unpacked_ratio"]);
    refused(&train("data.limits.rows=3"), &["unknown setting", "data.limits.rows"]);
    assert!(!out.exists());
}
