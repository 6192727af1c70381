//! Instrument of a row: from the column that says so, else from the name of the file.

use std::path::Path;

/// Headers of a symbol column, normalised.
pub(super) const COLUMNS: &[&str] = &["symbol", "ticker", "tic", "instrument", "asset", "coin", "pair"];
/// Used only if no column of [`COLUMNS`] exists, because many files hold a company's name beside its ticker.
pub(super) const FALLBACK: &[&str] = &["name"];

/// Endings of candle files that do not belong to a symbol, in the order in which they are removed.
const ENDINGS: &[&str] = &[".gz", ".csv", ".parquet", ".pq"];

/// The file name without its ending: `eurusd_hourly` for `data/eurusd_hourly.csv.gz`.
pub(super) fn of_file(path: &Path) -> Option<&str> {
    let mut name = path.file_name()?.to_str()?;
    for ending in ENDINGS {
        if let Some((stem, end)) = name.split_at_checked(name.len().saturating_sub(ending.len()))
            && end.eq_ignore_ascii_case(ending)
        {
            name = stem;
        }
    }
    let name = name.trim();
    (!name.is_empty()).then_some(name)
}

/// A piece of a date at the end of a file name.
#[derive(Clone, Copy, Debug)]
enum Part {
    Year,
    /// Month or day.
    Two,
    /// Year and month, with day, hours, minutes and seconds.
    Compact,
    Quarter,
    /// Between two dates.
    To,
}

/// Dates at the end of file names, split at separators; the longest first.
const DATES: &[&[Part]] = &[
    &[Part::Year, Part::Two, Part::Two],
    &[Part::Two, Part::Two, Part::Year],
    &[Part::Year, Part::Two],
    &[Part::Year, Part::Quarter],
    &[Part::Year],
    &[Part::Compact],
    &[Part::To],
];

impl Part {
    fn matches(self, text: &str) -> bool {
        let year = |text: &str| matches!(text.get(..2), Some("19" | "20"));
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::Year => digits && text.len() == 4 && year(text),
            Self::Two => digits && text.len() == 2 && ("01"..="31").contains(&text),
            Self::Compact => digits && matches!(text.len(), 6 | 8 | 12 | 14) && year(text),
            Self::Quarter => text.len() == 2 && ["q1", "q2", "q3", "q4"].contains(&&*text.to_lowercase()),
            Self::To => text.eq_ignore_ascii_case("to"),
        }
    }
}

const SEPARATORS: [char; 5] = ['-', '_', '.', ' ', ','];

/// End of a file name that can differ between files of one instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Date,
    Number,
}

/// Common name of several files of one instrument: the name without the dates at its end, else without the number at
/// its end. `None` if there is neither or if no letter remains.
pub(super) fn common_part(name: &str) -> Option<(&str, Ending)> {
    let mut rest = name;
    while let Some(shorter) = DATES.iter().find_map(|date| without(rest, date)) {
        rest = shorter;
    }
    let ending = if rest == name { Ending::Number } else { Ending::Date };
    if ending == Ending::Number {
        let last = last_part(rest)?;
        rest = rest.strip_suffix(last)?;
        if last.is_empty() || !last.bytes().all(|byte| byte.is_ascii_digit()) || !rest.ends_with(SEPARATORS) {
            return None;
        }
        rest = rest.trim_end_matches(SEPARATORS);
    }
    rest.contains(char::is_alphabetic).then_some((rest, ending))
}

fn last_part(text: &str) -> Option<&str> {
    text.rsplit(SEPARATORS).next()
}

/// `text` without these parts at its end and the separators before them.
fn without<'a>(text: &'a str, parts: &[Part]) -> Option<&'a str> {
    let mut rest = text;
    for part in parts.iter().rev() {
        let last = last_part(rest).filter(|last| part.matches(last))?;
        let shorter = rest.strip_suffix(last)?;
        rest = shorter.trim_end_matches(SEPARATORS);
        if rest.len() == shorter.len() {
            return None;
        }
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_from_file_names() {
        for (path, symbol) in [
            ("data/eurusd_hourly.csv", Some("eurusd_hourly")),
            ("eurusd_hourly.csv.gz", Some("eurusd_hourly")),
            ("BRK.B.CSV.GZ", Some("BRK.B")),
            ("AAPL.gz", Some("AAPL")),
            ("AAPL.parquet", Some("AAPL")),
            ("AAPL", Some("AAPL")),
            ("\u{20ac}.csv", Some("\u{20ac}")),
            ("a\u{20ac}", Some("a\u{20ac}")),
            (".csv", None),
            ("..", None),
        ] {
            assert_eq!(of_file(Path::new(path)), symbol, "{path}");
        }
    }

    #[test]
    fn dates_and_numbers_at_the_end_of_names() {
        for (name, expected) in [
            ("BTCUSDT-1d-2024-01", Some("BTCUSDT-1d")),
            ("BTCUSDT-1m-2024-01-31", Some("BTCUSDT-1m")),
            ("EURUSD_M1_202001020000_202012312359", Some("EURUSD_M1")),
            ("EURUSD_Candlestick_1_D_BID_01.01.2020-31.12.2020", Some("EURUSD_Candlestick_1_D_BID")),
            ("AAPL 2020-01-01 to 2020-12-31", Some("AAPL")),
            ("spy_2024", Some("spy")),
            ("spy_2024Q1", None),
            ("spy_2024-q1", Some("spy")),
            ("candles_3", Some("candles")),
            ("XBTUSD_1440", Some("XBTUSD")),
            ("BTCUSDT-1d", None),
            ("AAPL", None),
            ("SP500", None),
            ("600519", None),
            ("2024-01", None),
            ("0700.HK", None),
            ("", None),
        ] {
            assert_eq!(common_part(name).map(|(common, _)| common), expected, "{name}");
        }
        assert_eq!(common_part("A_2024").map(|(_, ending)| ending), Some(Ending::Date));
        assert_eq!(common_part("A_1").map(|(_, ending)| ending), Some(Ending::Number));
    }
}
