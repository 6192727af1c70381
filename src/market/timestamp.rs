//! Strict parsing of timestamps in candle files and on the command line.

use crate::text::shown;
use crate::{Error, Result};
use jiff::civil::{Date, DateTime, Time};
use jiff::{SignedDuration, Timestamp, tz::Offset};

/// The accepted formats, for error messages.
pub(super) const FORMS: &str = "accepted formats: 2004-08-19, 2004.08.19, 19.08.2004 and 20040819, each alone or with a time such as \
     16:00[:00[.000]] (after a space or T, before an optional Z, UTC, +02:00 or GMT+0200), and unix time in seconds \
     (9 or 10 digits), milliseconds (12 or 13), microseconds (15 or 16) or nanoseconds (18 or 19)";

/// Parses a date, or a date with a time, in any format accepted in candle files.
///
/// * `2004-08-19`, `2004.08.19`, `19.08.2004` (day first) and `20040819`: midnight of that day;
/// * `2004-08-19 16:00`, `2004.08.19T16:00:00.250`, `20040819 160000`, each with an optional `Z`, `UTC`, `+00:00`,
///   `+0000`, `+00` or `GMT+0200`: with an offset the result is in UTC, without one it is the time as written (daily bars
///   in candle files keep date and time as written, see [`Candles::load_with`](super::Candles::load_with));
/// * whole numbers: Unix time in seconds (9 or 10 digits), milliseconds (12 or 13), microseconds (15 or 16) or nanoseconds
///   (18 or 19), in UTC, also written with `.0`. Other lengths are rejected, and so are 12 digits that could be a date with
///   hours and minutes.
///
/// Surrounding spaces are ignored.
///
/// # Errors
/// [`Error::Data`] with the text and the accepted formats.
///
/// ```
/// let bar = phalanx::market::parse_timestamp("2004-08-19T18:00:00+02:00")?;
/// assert_eq!(bar, jiff::civil::date(2004, 8, 19).at(16, 0, 0, 0));
/// # Ok::<(), phalanx::Error>(())
/// ```
pub fn parse_timestamp(text: &str) -> Result<DateTime> {
    parse(text).map(|stamp| stamp.timestamp).map_err(Error::Data)
}

/// A parsed timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// In UTC if an offset was written, else as written.
    pub timestamp: DateTime,
    /// The offset that was written, in minutes east of Greenwich.
    pub offset: Option<i16>,
}

/// [`parse_timestamp`] with a plain message, for callers that add file and line.
pub(super) fn parse(text: &str) -> Result<Stamp, String> {
    let text = text.trim();
    let refuse = || match text {
        "" => format!("the timestamp is empty; {FORMS}"),
        _ => format!("`{}` is not a timestamp; {FORMS}", shown(text)),
    };
    let digits = text.strip_suffix(".0").unwrap_or(text);
    if digits.len() > 8 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return unix(digits).map(|timestamp| Stamp { timestamp, offset: None }).ok_or_else(refuse);
    }
    let written = Scan { rest: text.as_bytes() }.date_time().ok_or_else(refuse)?;
    written.resolve().ok_or_else(|| format!("`{}` is a date or time of day that does not exist", shown(text)))
}

/// Format of all timestamps in one output file: dates if every bar starts at midnight, else dates with times.
#[derive(Clone, Copy, Debug)]
pub struct TimestampFormat {
    dates_only: bool,
}

impl TimestampFormat {
    /// The format for `timestamps`.
    #[must_use]
    pub fn of(timestamps: &[DateTime]) -> Self {
        Self { dates_only: timestamps.iter().all(|timestamp| timestamp.time() == Time::midnight()) }
    }

    /// `timestamp` in ISO 8601.
    #[must_use]
    pub fn format(self, timestamp: DateTime) -> String {
        if self.dates_only { timestamp.date().to_string() } else { timestamp.to_string() }
    }
}

/// A timestamp in error messages: the date alone at midnight.
pub(super) fn show(timestamp: DateTime) -> String {
    if timestamp.time() == Time::midnight() { timestamp.date().to_string() } else { timestamp.to_string() }
}

fn unix(digits: &str) -> Option<DateTime> {
    let count = digits.parse().ok()?;
    let instant = match digits.len() {
        9 | 10 => Timestamp::from_second(count),
        // 200408191630 is rather a date with hours and minutes than an instant in 1976.
        12 if digits.starts_with("19") || digits.starts_with("20") => return None,
        12 | 13 => Timestamp::from_millisecond(count),
        15 | 16 => Timestamp::from_microsecond(count),
        18 | 19 => Timestamp::from_nanosecond(count.into()),
        _ => return None,
    };
    Some(Offset::UTC.to_datetime(instant.ok()?))
}

/// The numbers of a timestamp, not yet checked against the calendar.
#[derive(Default)]
struct Written {
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    /// East of Greenwich, in minutes.
    offset: Option<i16>,
}

impl Written {
    fn resolve(self) -> Option<Stamp> {
        let date = Date::new(self.year, self.month, self.day).ok()?;
        let time = Time::new(self.hour, self.minute, self.second, self.nanosecond).ok()?;
        let local = DateTime::from_parts(date, time);
        let east = SignedDuration::from_mins(self.offset.unwrap_or(0).into());
        Some(Stamp { timestamp: local.checked_sub(east).ok()?, offset: self.offset })
    }
}

/// Parses a text from left to right; every method returns `None` if the text does not match.
struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    fn date_time(mut self) -> Option<Written> {
        let mut written = Written::default();
        if self.rest.get(2) == Some(&b'.') {
            written.day = self.two()?;
            self.expect(b'.')?;
            written.month = self.two()?;
            self.expect(b'.')?;
            written.year = self.four()?;
        } else {
            written.year = self.four()?;
            let separator = *self.rest.first()?;
            let separated = self.expect(b'-').or_else(|| self.expect(b'.')).is_some();
            // Without separators only plausible years: any number of eight digits reads as a date.
            if !separated && !(1900..2100).contains(&written.year) {
                return None;
            }
            written.month = self.two()?;
            if separated {
                self.expect(separator)?;
            }
            written.day = self.two()?;
        }
        if self.rest.is_empty() {
            return Some(written);
        }
        if self.expect(b'T').is_none() {
            self.expect(b' ')?;
        }
        self.time(&mut written)?;
        if !self.rest.is_empty() {
            written.offset = Some(self.offset()?);
        }
        self.rest.is_empty().then_some(written)
    }

    fn time(&mut self, written: &mut Written) -> Option<()> {
        written.hour = self.two()?;
        if self.expect(b':').is_none() {
            // `160000`, as Stooq writes it.
            written.minute = self.two()?;
            written.second = self.two()?;
            return Some(());
        }
        written.minute = self.two()?;
        if self.expect(b':').is_some() {
            written.second = self.two()?;
            if self.expect(b'.').is_some() {
                written.nanosecond = self.fraction()?;
            }
        }
        Some(())
    }

    /// Digits after the decimal point of a second, one to nine, as nanoseconds.
    fn fraction(&mut self) -> Option<i32> {
        let mut nanoseconds = self.digit()?;
        let mut places = 1;
        while places < 9 {
            let Some(digit) = self.digit() else { break };
            nanoseconds = nanoseconds * 10 + digit;
            places += 1;
        }
        Some(nanoseconds * 10_i32.pow(9 - places))
    }

    /// `Z`, ` UTC`, `+hh:mm`, `+hhmm`, `+hh` or ` GMT+hhmm`, in minutes.
    fn offset(&mut self) -> Option<i16> {
        if self.expect(b'Z').is_some() {
            return Some(0);
        }
        if let Some(rest) = [b" UTC", b" GMT"].into_iter().find_map(|zone| self.rest.strip_prefix(zone)) {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return Some(0);
        }
        let sign = if self.expect(b'-').is_some() { -1 } else { self.expect(b'+').map(|()| 1)? };
        let hours = i16::from(self.two()?);
        let minutes = match self.expect(b':') {
            Some(()) => self.two()?,
            None if self.rest.is_empty() => 0,
            None => self.two()?,
        };
        (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + i16::from(minutes)))
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        (*first == byte).then(|| self.rest = rest)
    }

    fn digit(&mut self) -> Option<i32> {
        let (first, rest) = self.rest.split_first()?;
        first.is_ascii_digit().then(|| {
            self.rest = rest;
            i32::from(first - b'0')
        })
    }

    fn two(&mut self) -> Option<i8> {
        let tens = self.digit()?;
        i8::try_from(tens * 10 + self.digit()?).ok()
    }

    fn four(&mut self) -> Option<i16> {
        let hundreds = i16::from(self.two()?);
        Some(hundreds * 100 + i16::from(self.two()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn every_accepted_form() {
        let day = date(2004, 8, 19);
        for (text, expected) in [
            ("2004-08-19", day.at(0, 0, 0, 0)),
            (" 2004-08-19 ", day.at(0, 0, 0, 0)),
            ("2004-08-19 16:30", day.at(16, 30, 0, 0)),
            ("2004-08-19T16:30:05", day.at(16, 30, 5, 0)),
            ("2004-08-19 16:30:05.25", day.at(16, 30, 5, 250_000_000)),
            ("2004-08-19T16:30:05.123456789Z", day.at(16, 30, 5, 123_456_789)),
            ("2004-08-19 16:30:05+00:00", day.at(16, 30, 5, 0)),
            ("2004-08-19 23:30:00-05:00", date(2004, 8, 20).at(4, 30, 0, 0)),
            ("2004-08-19 02:00:00+0530", date(2004, 8, 18).at(20, 30, 0, 0)),
            ("2004-08-19 02:00+02", day.at(0, 0, 0, 0)),
            ("19.08.2004", day.at(0, 0, 0, 0)),
            ("19.08.2004 16:30", day.at(16, 30, 0, 0)),
            ("19.08.2004 16:30:05.120", day.at(16, 30, 5, 120_000_000)),
            ("2004.08.19", day.at(0, 0, 0, 0)),
            ("2004.08.19 16:30:05", day.at(16, 30, 5, 0)),
            ("20040819", day.at(0, 0, 0, 0)),
            ("20040819 163005", day.at(16, 30, 5, 0)),
            ("2004-08-19 16:30:05 UTC", day.at(16, 30, 5, 0)),
            ("2004-08-19 16:30:05.250 UTC", day.at(16, 30, 5, 250_000_000)),
            ("19.08.2004 02:00:00.000 GMT+0200", day.at(0, 0, 0, 0)),
            ("19.08.2004 16:00:00.000 GMT-0400", day.at(20, 0, 0, 0)),
            ("19.08.2004 16:30:05Z", day.at(16, 30, 5, 0)),
            ("946684800", date(2000, 1, 1).at(0, 0, 0, 0)),
            ("946684800000", date(2000, 1, 1).at(0, 0, 0, 0)),
            ("946684800.0", date(2000, 1, 1).at(0, 0, 0, 0)),
            ("1092931200000000001", day.at(16, 0, 0, 1)),
            ("946684800000000000", date(2000, 1, 1).at(0, 0, 0, 0)),
            ("1092931200", day.at(16, 0, 0, 0)),
            ("1092931200500", day.at(16, 0, 0, 500_000_000)),
            ("1092931200500001", day.at(16, 0, 0, 500_001_000)),
        ] {
            assert_eq!(parse_timestamp(text).ok(), Some(expected), "{text}");
        }
    }

    #[test]
    fn offsets_are_kept_beside_the_time_in_utc() {
        for (text, offset) in [
            ("2004-08-19", None),
            ("2004-08-19 16:00", None),
            ("1092931200", None),
            ("2004-08-19 16:00Z", Some(0)),
            ("2004-08-19 16:00+09:00", Some(540)),
            ("2004-08-19 16:00-0330", Some(-210)),
        ] {
            assert_eq!(parse(text).map(|stamp| stamp.offset), Ok(offset), "{text}");
        }
    }

    #[test]
    fn near_misses_are_refused_with_the_accepted_formats() {
        for text in [
            "12040819",
            "2004-08.19",
            "1092931",
            "200408191630",
            "19/08/2004",
            "08/19/2004",
            "2004-8-19",
            "04-08-19",
            "2004-08-19T",
            "2004-08-19  16:00",
            "2004-08-19 16",
            "2004-08-19 16:00:",
            "2004-08-19 16:00:00.",
            "2004-08-19 16:00:00.1234567890",
            "2004-08-19 16:00:00+25:00",
            "2004-08-19 16:00:00 CET",
            "2004-08-19 UTC",
            "2004-08-19Z",
            "19.08.04",
            "-1092931200",
            "yesterday",
            "2004\u{2013}08\u{2013}19",
        ] {
            let error = parse_timestamp(text).map_err(|error| error.to_string());
            assert_eq!(error, Err(format!("`{text}` is not a timestamp; {FORMS}")));
        }
        assert_eq!(parse(" "), Err(format!("the timestamp is empty; {FORMS}")));
    }

    #[test]
    fn days_that_do_not_exist() {
        for text in
            ["2003-02-29", "20040832", "2004-13-01", "31.04.2004", "2004-08-19 24:00", "2004-08-19 23:59:60"]
        {
            assert_eq!(
                parse(text),
                Err(format!("`{}` is a date or time of day that does not exist", shown(text))),
                "{text}"
            );
        }
    }

    #[test]
    fn an_offset_beyond_the_calendar_is_refused() {
        assert!(parse("9999-12-31 23:59-23:00").is_err());
    }

    #[test]
    fn midnight_is_shown_as_a_day() {
        assert_eq!(show(date(2004, 8, 19).at(0, 0, 0, 0)), "2004-08-19");
        assert_eq!(show(date(2004, 8, 19).at(16, 0, 0, 0)), "2004-08-19T16:00:00");
    }
}
