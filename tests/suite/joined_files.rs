//! Several files of one instrument: which are joined, and adjustments that must agree.

use crate::dialects::{daily, written};
use ndarray::array;
use phalanx::market::{Adjust, GapPolicy, LoadOptions};

/// Daily bars of January 2024: day, close and adjusted close.
fn adjusted(bars: &[(u8, f64, f64)]) -> String {
    let row = |(day, close, adjusted): &(u8, f64, f64)| {
        format!("2024-01-{day:02},{close},{close},{close},{close},{adjusted}\n")
    };
    format!("Date,Open,High,Low,Close,Adj Close\n{}", bars.iter().map(row).collect::<String>())
}

#[test]
fn downloads_with_different_adjustments_are_refused() {
    let early = adjusted(&[(2, 10.0, 9.5), (3, 10.0, 9.5), (4, 11.0, 10.45)]);
    // Downloaded before a dividend: the same closes on another base.
    let late = adjusted(&[(4, 11.0, 11.0), (5, 11.0, 11.0)]);
    let with_symbol = |text: &str| text.replace("Date,", "Ticker,Date,").replace("2024-01", "A,2024-01");
    let options = LoadOptions::default();
    for names in [["A_2023.csv", "A_2024.csv"], ["A_1.csv", "A_2.csv"]] {
        let error = written(&[(names[0], &early), (names[1], &late)], &options);
        let error = error.expect_err("two bases").to_string();
        let expected = format!(
            "{}:2, column `Adj Close`: {} 2024-01-04: adjusted close / close is 1.000000, but 0.950000 for the same bar in ",
            names[1],
            names[1].trim_end_matches(".csv")
        );
        assert!(error.contains(&expected), "{error}");
        assert!(
            error.contains(&format!("{} (line 4); joined, the adjusted price would jump", names[0])),
            "{error}"
        );
        assert!(error.ends_with("or read the prices as they are (adjust = none)"), "{error}");
    }
    let files = [("x.csv", with_symbol(&early)), ("y.csv", with_symbol(&late))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let error = written(&files, &options).expect_err("two bases").to_string();
    assert!(
        error.contains("y.csv:2, column `Adj Close`: A 2024-01-04: adjusted close / close is"),
        "{error}"
    );

    let none = LoadOptions { adjust: Adjust::None, ..LoadOptions::default() };
    let joined = written(&[("A_2023.csv", &early), ("A_2024.csv", &late)], &none).expect("equal closes");
    assert_eq!(joined.candles.close, array![[10.0, 10.0, 11.0, 11.0]]);
    // Only one of them has an adjusted close: nobody knows the base of the other.
    let plain = daily(&[("2024-01-05", 11.0), ("2024-01-08", 11.0)]);
    let error = written(&[("A_2023.csv", &early), ("A_2024.csv", &plain)], &options);
    let error = error.expect_err("kept apart").to_string();
    assert!(error.contains("not joined to one instrument `A`"), "{error}");
    assert!(error.contains("only some of them have an adjusted close. "), "{error}");

    // One base, written with other digits.
    let late = adjusted(&[(4, 11.0, 10.450_001), (5, 11.0, 11.0)]);
    let joined = written(&[("A_2023.csv", &early), ("A_2024.csv", &late)], &options).expect("one base");
    assert_eq!(joined.candles.close.row(0).to_vec(), [9.5, 9.5, 10.45, 11.0]);
}

#[test]
fn numbered_files_of_different_bar_lengths_are_not_joined() {
    let days = daily(&[("2024-01-02", 1.0), ("2024-01-03", 2.0), ("2024-01-04", 3.0)]);
    let hours = daily(&[("2024-01-05 01:00", 1.0), ("2024-01-05 02:00", 2.0), ("2024-01-05 03:00", 3.0)]);
    let files = [("XBTUSD_1440.csv", days.as_str()), ("XBTUSD_60.csv", hours.as_str())];
    let error = written(&files, &LoadOptions::default()).expect_err("different bars").to_string();
    assert!(error.contains("XBTUSD_1440 lacks 3 of 6 bars"), "{error}");
    assert!(
        error.contains("XBTUSD_1440: not joined to one instrument `XBTUSD`, although the file names differ by a date or number only: their bars are 24h and 1h apart. "),
        "{error}"
    );

    // The same number of bars an hour apart: parts of one instrument.
    let more = daily(&[("2024-01-05 09:00", 4.0), ("2024-01-05 10:00", 5.0)]);
    let files = [("x_1.csv", hours.as_str()), ("x_2.csv", more.as_str())];
    let joined = written(&files, &LoadOptions::default()).expect("one instrument");
    assert_eq!((joined.candles.symbols, joined.candles.timestamps.len()), (vec!["x".to_string()], 5));

    // Dates at the end of the names say that the files are parts, whatever the bars.
    let files = [("x_2024-01.csv", days.as_str()), ("x_2024-02.csv", hours.as_str())];
    assert_eq!(written(&files, &LoadOptions::default()).expect("one instrument").candles.symbols, ["x"]);

    let drop = LoadOptions { gaps: GapPolicy::Drop, ..LoadOptions::default() };
    let hours = daily(&[("2024-01-02", 1.0), ("2024-01-02 01:00", 1.0), ("2024-01-04", 1.0)]);
    let shown =
        written(&[("x_1440.csv", &days), ("x_60.csv", &hours)], &drop).expect("two common bars").report;
    // They overlap, as two instruments do whose names end in numbers.
    assert!(shown.notes.is_empty(), "{shown}");
}

/// Bars at 1e9 in one file and a tick at 1e-4 in the next.
#[test]
fn files_in_different_units_are_refused_with_their_names() {
    let large = daily(&[("2024-01-02", 1e9), ("2024-01-03", 1.1e9)]);
    let small = daily(&[("2024-01-04", 2e-4), ("2024-01-05", 1e-4)]);
    for (first, second, names) in [(&large, &small, ["x_1", "x_2"]), (&small, &large, ["x_2", "x_1"])] {
        let files = [("x_1.csv", first.as_str()), ("x_2.csv", second.as_str())];
        let error = written(&files, &LoadOptions::default()).expect_err("too far apart");
        let [high, low] = names;
        assert!(
            matches!(&error, phalanx::Error::Candles { path, .. } if path.ends_with(format!("{high}.csv"))),
            "{error:?}"
        );
        let error = error.to_string();
        assert!(error.contains("x: the highest price here is 1.1e9, and the lowest price"), "{error}");
        assert!(error.contains(&format!("{low}.csv 1e-4; they may differ by a factor of 1e12")), "{error}");
    }
    // At the limit.
    let small = daily(&[("2024-01-04", 1.2e-3)]);
    let joined = written(&[("x_1.csv", &large), ("x_2.csv", &small)], &LoadOptions::default());
    assert_eq!(joined.expect("one instrument").candles.bars(), 3);
}

#[test]
fn adjusted_numbers_beyond_the_limits_are_refused_with_their_line() {
    let header = "Date,Open,High,Low,Close,Volume,Adj Close\n";
    for (rows, line, expected) in [
        (
            "2024-01-02,1e14,1e14,1e14,1e14,5,1e14\n2024-01-03,1e14,1e14,1e14,1e14,5,1e16\n",
            3,
            "A 2024-01-03: open is 1e16; a price has to be between ",
        ),
        (
            "2024-01-02,20,20,20,20,9e19,10\n2024-01-03,10,10,10,10,5,10\n",
            2,
            "A 2024-01-02: volume is 1.8e20; a volume has to be at most 1e20, ",
        ),
        (
            "2024-01-02,1,1,1,1,5,1e-13\n2024-01-03,1,1,1,1,5,1\n",
            2,
            "A 2024-01-02: low is 1e-13, and another price of the instrument is 1e0; ",
        ),
    ] {
        let error = written(&[("A.csv", &format!("{header}{rows}"))], &LoadOptions::default());
        let error = error.expect_err("beyond f32").to_string();
        assert!(
            error.contains(&format!("A.csv:{line}, column `Adj Close`: after adjusting: {expected}")),
            "{error}"
        );
        assert!(error.ends_with("; or read the prices as they are (adjust = none)"), "{error}");
    }
}
