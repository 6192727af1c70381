//! Restores the dates of daily bars that were written with an offset from UTC.

use super::rules::Bar;
use jiff::SignedDuration;
use jiff::civil::{DateTime, Time};

/// Gives daily bars the date and time as written, if all have an offset: `2024-01-08 00:00+09:00` is the session of 8 January
/// in Tokyo, although it began on 7 January in UTC. Other bars stay in UTC, and so do days that begin at midnight in UTC and
/// were written in someone's local time.
pub(super) fn restore_dates(bars: &mut [Bar]) {
    let written = |bar: &Bar| local(bar.timestamp, bar.offset.unwrap_or(0));
    let in_utc = bars.iter().all(|bar| bar.timestamp.time() == Time::midnight());
    if in_utc || bars.iter().any(|bar| bar.offset.is_none()) {
        return;
    }
    if are_daily(bars.iter().map(|bar| (bar.timestamp, written(bar)))) {
        for bar in bars {
            bar.timestamp = written(bar);
        }
    }
}

/// Time of day of the first bar that is not at midnight, if these are two or more daily bars. Stamped in UTC, such bars may have
/// other dates than in the time zone of their exchange.
pub(super) fn days_in_utc(bars: &[Bar]) -> Option<Time> {
    let time = bars.iter().map(|bar| bar.timestamp.time()).find(|time| *time != Time::midnight())?;
    let daily = bars.len() > 1 && are_daily(bars.iter().map(|bar| (bar.timestamp, bar.timestamp)));
    daily.then_some(time)
}

fn local(utc: DateTime, minutes: i16) -> DateTime {
    utc.saturating_add(SignedDuration::from_mins(minutes.into()))
}

/// Whether bars, each with its instant and its time as written, are daily or longer: no two on one date, and all at least
/// 20 hours apart, because a change to summer time makes a day of 23 hours and an early close one of 21.
pub(super) fn are_daily(mut bars: impl Iterator<Item = (DateTime, DateTime)>) -> bool {
    const APART: SignedDuration = SignedDuration::from_hours(20);
    let Some(mut before) = bars.next() else { return true };
    bars.all(|bar| {
        let daily = bar.0.duration_since(before.0) >= APART && bar.1.date() > before.1.date();
        before = bar;
        daily
    })
}

#[cfg(test)]
mod tests {
    use super::super::timestamp::parse;
    use super::*;

    /// The timestamps that bars written like this have in the end.
    fn restored(written: &[&str]) -> Vec<String> {
        let bar = |text: &&str| {
            let stamp = parse(text).expect("a timestamp");
            Bar { timestamp: stamp.timestamp, offset: stamp.offset, values: [1.0; 5] }
        };
        let mut bars: Vec<Bar> = written.iter().map(bar).collect();
        restore_dates(&mut bars);
        bars.iter().map(|bar| bar.timestamp.strftime("%m-%d %H:%M").to_string()).collect()
    }

    #[test]
    fn daily_bars_keep_their_dates() {
        assert_eq!(
            restored(&["2024-01-05 00:00+09:00", "2024-01-08 00:00+09:00", "2024-01-09 00:00+09:00"]),
            ["01-05 00:00", "01-08 00:00", "01-09 00:00"]
        );
        // Summer time begins on 10 March and ends on 3 November: days of 23 and 25 hours.
        assert_eq!(
            restored(&[
                "2024-03-08T00:00:00-05:00",
                "2024-03-10T00:00:00-05:00",
                "2024-03-11T00:00:00-04:00",
                "2024-11-03T00:00:00-04:00",
                "2024-11-04T00:00:00-05:00",
            ]),
            ["03-08 00:00", "03-10 00:00", "03-11 00:00", "11-03 00:00", "11-04 00:00"]
        );
        // Closes, one of them early, and months.
        assert_eq!(
            restored(&["2024-07-02 16:00-04:00", "2024-07-03 13:00-04:00", "2024-07-05 16:00-04:00"]),
            ["07-02 16:00", "07-03 13:00", "07-05 16:00"]
        );
        assert_eq!(
            restored(&["2024-03-01 00:00+01:00", "2024-04-01 00:00+02:00"]),
            ["03-01 00:00", "04-01 00:00"]
        );
    }

    #[test]
    fn daily_bars_that_are_not_at_midnight_in_utc() {
        let found = |texts: &[&str]| {
            let bar = |text: &&str| {
                let timestamp = parse(text).expect("a timestamp").timestamp;
                Bar { timestamp, offset: None, values: [1.0; 5] }
            };
            days_in_utc(&texts.iter().map(bar).collect::<Vec<_>>())
        };
        let at = |hour| Some(Time::constant(hour, 0, 0, 0));
        assert_eq!(found(&["2024-01-04 15:00", "2024-01-07 15:00"]), at(15));
        // Midnight in London, in winter and in summer.
        assert_eq!(found(&["2024-03-28 00:00", "2024-03-31 23:00"]), at(23));
        assert_eq!(found(&["2024-01-04", "2024-01-05"]), None);
        assert_eq!(found(&["2024-01-04 15:00", "2024-01-04 16:00"]), None);
        assert_eq!(found(&["2024-01-04 15:00"]), None);
    }

    #[test]
    fn other_bars_stay_in_utc() {
        // Hours, the one at midnight among them.
        assert_eq!(
            restored(&["2024-01-08 23:00+09:00", "2024-01-09 00:00+09:00", "2024-01-09 01:00+09:00"]),
            ["01-08 14:00", "01-08 15:00", "01-08 16:00"]
        );
        // Two sessions a day; two bars on a date as written.
        assert_eq!(
            restored(&["2024-01-08 08:00-05:00", "2024-01-08 20:00-05:00"]),
            ["01-08 13:00", "01-09 01:00"]
        );
        assert_eq!(
            restored(&["2024-01-08 00:10-05:00", "2024-01-08 23:50-05:00"]),
            ["01-08 05:10", "01-09 04:50"]
        );
        // Without an offset in every row nobody knows which dates were meant.
        assert_eq!(restored(&["2024-01-02 02:00+02:00", "2024-01-03"]), ["01-02 00:00", "01-03 00:00"]);
        // Days of UTC, written in the time of the computer in New York.
        assert_eq!(
            restored(&["07.01.2024 19:00 GMT-0500", "08.01.2024 19:00 GMT-0500"]),
            ["01-08 00:00", "01-09 00:00"]
        );
    }
}
