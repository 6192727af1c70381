//! The number of bars per year, and the years that a backtest covers.

use std::fmt;

use jiff::civil::{DateTime, Weekday};

#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::ranges::check as range;

mod week;

use week::Week;

const HOUR: f64 = 3_600.0;
const DAY: f64 = 24.0 * HOUR;
const WEEK: f64 = 7.0 * DAY;
const DAYS_PER_YEAR: f64 = 365.25;

/// Bars further apart than this, in seconds, are counted against elapsed time, all others against the week.
const WIDE: f64 = 4.5 * DAY;

/// Bars at least this far apart, in seconds, are daily bars: a change to summer time makes a day of 23 hours, and an early
/// close one of 21.
const DAILY: f64 = 20.0 * HOUR;

/// The number of bars per year, for annualised metrics, and how it was found.
///
/// [`infer_periods_per_year`] finds it from timestamps. Its [`Display`](fmt::Display) is both: `252 bars a year: daily
/// bars, 5 sessions a week, 50.4 weeks a year (holidays of an exchange)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeriodsPerYear {
    value: f64,
    basis: Basis,
}

/// Origin of a number of bars per year.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Basis {
    Given,
    TooFew,
    /// Mean distance of the bars in seconds.
    Elapsed(f64),
    Week {
        /// Distance of neighbouring bars within a session, in seconds.
        spacing: f64,
        bars: f64,
        year: Year,
    },
    /// Less than a week of bars.
    Day {
        bars: f64,
        days: f64,
    },
}

/// The weeks in the year of a market.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Year {
    /// An exchange with holidays.
    Exchange,
    /// Around the clock on its days, with hardly any holidays.
    ForeignExchange,
    /// Never closed.
    EveryDay,
}

impl Year {
    fn weeks(self) -> f64 {
        match self {
            Self::Exchange => 252.0 / 5.0,
            Self::ForeignExchange => 52.0,
            Self::EveryDay => 365.0 / 7.0,
        }
    }
}

impl PeriodsPerYear {
    /// A number chosen by the caller.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not between one bar in a hundred years and three a millisecond.
    pub fn given(value: f64) -> Result<Self> {
        range("periods_per_year", value, 0.01, 1e11)?;
        Ok(Self { value, basis: Basis::Given })
    }

    /// Bars per year; above 0.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// Origin of the number: `daily bars, 5 sessions a week, 50.4 weeks a year (holidays of an exchange)`.
    #[must_use]
    pub fn reason(&self) -> String {
        match self.basis {
            Basis::Given => "as given".into(),
            Basis::TooFew => "fewer than two bars, daily bars of an exchange assumed".into(),
            Basis::Elapsed(spacing) => format!("one bar every {} days", short(spacing / DAY)),
            Basis::Week { spacing, bars, year } => {
                let (unit, weeks) = (if spacing < DAILY { "bars" } else { "sessions" }, short(year.weeks()));
                let year = match year {
                    Year::Exchange => format!("{weeks} weeks a year (holidays of an exchange)"),
                    Year::ForeignExchange => format!("{weeks} weeks a year (as in foreign exchange)"),
                    Year::EveryDay => "365 days a year (open every day)".into(),
                };
                format!("{}, {} {unit} a week, {year}", spaced(spacing), short(bars))
            }
            Basis::Day { bars, days } => {
                format!("less than a week of bars, {} a day, {days} days a year assumed", short(bars))
            }
        }
    }
}

impl fmt::Display for PeriodsPerYear {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bars a year: {}", short(self.value), self.reason())
    }
}

/// Infers the number of bars per year, for annualised metrics, from increasing timestamps.
///
/// Bars per year = bars per week x weeks per year:
///
/// * **Bars per week** are the mean number of bars in seven days, over all windows of seven days that start a whole number
///   of days after the first bar; gaps of more than four weeks are left out. The mean gives way to the *full week* where
///   closed days or special sessions explain the difference. A full week is the number of regular weekdays times the
///   median number of bars on them. A weekday is regular if it has more than half as many bars per calendar week as the
///   busiest one. Holidays explain up to a tenth of the bars and two sessions more; special sessions, a fiftieth and two
///   sessions more.
/// * **Weeks per year** are 365 / 7 if all seven weekdays are regular; 52 if the market is open around the clock otherwise,
///   100 hours a week or more, or has daily bars from Sunday to Friday (foreign exchange, where the first hours of the week
///   are a Sunday in UTC); else 252 / 5, because an exchange that opens five days a week has about 252 sessions a year.
///
/// So daily bars from Monday to Friday, or from Sunday to Thursday, give 252, of a six-day week 302, of a market that never
/// closes 365, hourly stock bars (7 a session) 1764, hourly foreign exchange 6240. If half of the days are missing, every
/// return spans two days on average, and there are 126 bars in a year.
///
/// * **Bars further apart** (median above 4.5 days): one year divided by the mean distance, rounded; distances above eight
///   times the median are left out. Weekly bars give 52, monthly bars 12.
/// * **Less than a week of bars**: daily bars give 365 if there are both a Saturday and a Sunday, else 252. Intraday bars
///   give the median number of bars per complete day times 252, or, around the clock, times 260 after a gap of more than
///   a day, else 365. Fewer than two bars give 252.
///
/// ```
/// use jiff::{ToSpan, civil::date};
/// use phalanx::backtest::infer_periods_per_year;
///
/// let weeks: Vec<_> = (0..10).map(|week| date(2024, 1, 1).at(0, 0, 0, 0) + week.weeks()).collect();
/// let found = infer_periods_per_year(&weeks);
/// assert_eq!((found.value(), found.reason().as_str()), (52.0, "one bar every 7 days"));
/// ```
#[must_use]
pub fn infer_periods_per_year(timestamps: &[DateTime]) -> PeriodsPerYear {
    let pairs = timestamps.iter().zip(timestamps.iter().skip(1));
    let gaps = pairs.map(|(before, after)| after.duration_since(*before).as_secs_f64());
    let mut gaps: Vec<f64> = gaps.filter(|gap| *gap > 0.0).collect();
    gaps.sort_by(f64::total_cmp);
    // A quarter of the gaps is within sessions, even with two bars a day or half of the days missing.
    let (Some(&spacing), Some(&median)) = (gaps.get((gaps.len().max(1) - 1) / 4), gaps.get(gaps.len() / 2))
    else {
        return PeriodsPerYear { value: 252.0, basis: Basis::TooFew };
    };
    let (value, basis) = if median > WIDE {
        let (sum, count) = gaps
            .iter()
            .take_while(|gap| **gap <= 8.0 * median)
            .fold((0.0, 0.0), |(sum, count), gap| (sum + gap, count + 1.0));
        let mean = sum / count;
        (DAYS_PER_YEAR * DAY / mean, Basis::Elapsed(mean))
    } else {
        let week = Week::of(timestamps, spacing);
        match week.bars(timestamps, spacing) {
            Some(bars) => by_week(&week, bars, spacing),
            None => by_day(&week, spacing, gaps.last().copied().unwrap_or_default()),
        }
    };
    PeriodsPerYear { value: value.round().max(1.0), basis }
}

fn by_week(week: &Week, bars: f64, spacing: f64) -> (f64, Basis) {
    const ROUND_THE_CLOCK: f64 = 100.0 * HOUR;
    let from_sunday_to_friday = week.sessions() == 6 && !week.is_regular(Weekday::Saturday);
    let year = if week.sessions() == 7 {
        Year::EveryDay
    } else if spacing < DAILY && bars * spacing >= ROUND_THE_CLOCK
        || spacing >= DAILY && from_sunday_to_friday
    {
        Year::ForeignExchange
    } else {
        Year::Exchange
    };
    (bars * year.weeks(), Basis::Week { spacing, bars, year })
}

/// Less than a week of bars; the longest gap shows whether the market closes.
fn by_day(week: &Week, spacing: f64, longest: f64) -> (f64, Basis) {
    let (bars, days) = if spacing >= DAILY {
        let weekend = [Weekday::Saturday, Weekday::Sunday].into_iter().all(|day| week.is_regular(day));
        (1.0, if weekend { 365.0 } else { 252.0 })
    } else {
        // Without a complete day, the market is assumed to be always open.
        let bars = week.bars_in_a_complete_day().unwrap_or(DAY / spacing);
        let days = match bars * spacing >= DAILY {
            false => 252.0,
            true if longest > DAY => 260.0,
            true => 365.0,
        };
        (bars, days)
    };
    (bars * days, Basis::Day { bars, days })
}

/// Years that a backtest covers: the calendar days from the first bar's date to the last bar's, both included, divided by
/// 365.25. Never less than a day, however short the bars.
pub(super) fn years(timestamps: &[DateTime]) -> f64 {
    let (Some(first), Some(last)) = (timestamps.first(), timestamps.last()) else { return 0.0 };
    let between = last.date().duration_since(first.date()).as_hours() / 24;
    (between + 1) as f64 / DAYS_PER_YEAR
}

/// At most two decimals.
fn short(value: f64) -> String {
    ((value * 100.0).round() / 100.0).to_string()
}

fn spaced(seconds: f64) -> String {
    if seconds >= DAILY {
        return "daily bars".into();
    }
    let (count, unit) = match seconds {
        seconds if seconds >= HOUR => (seconds / HOUR, "hour"),
        seconds if seconds >= 60.0 => (seconds / 60.0, "minute"),
        seconds => (seconds, "second"),
    };
    let count = short(count);
    format!("bars of {count} {unit}{}", if count == "1" { "" } else { "s" })
}

#[cfg(test)]
mod tests;
