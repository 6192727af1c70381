//! The number of bars per year.

use jiff::civil::{Date, DateTime, Weekday};

const DAY: f64 = 86_400.0;
const YEAR: f64 = 365.25 * DAY;

/// Estimates the number of bars per year, for annualised metrics, from increasing timestamps.
///
/// * Median spacing above 1.5 days: one year divided by the spacing, rounded. Weekly bars give 52, monthly bars 12.
/// * Daily bars: 252 (sessions of a stock exchange) if no bar falls on a weekend, else 365.
/// * Intraday bars: the median number of bars per day times the days per year. There are 365 days if some bar falls on
///   a Saturday; 260 if none does and a day has at least 20 hours (24/5: hourly foreign exchange gives 24 x 260 = 6240);
///   else 252 (hourly stock bars, 7 per day, give 1764). The first and the last day may be incomplete and are
///   ignored; without a complete day in between, the market is assumed to be always open (hourly bars give 8760).
/// * Fewer than two bars: 252.
///
/// ```
/// use jiff::{ToSpan, civil::date};
///
/// let weeks: Vec<_> = (0..10).map(|week| date(2024, 1, 1).at(0, 0, 0, 0) + week.weeks()).collect();
/// assert_eq!(phalanx::backtest::infer_periods_per_year(&weeks), 52.0);
/// ```
pub fn infer_periods_per_year(timestamps: &[DateTime]) -> f64 {
    let mut gaps: Vec<f64> = timestamps
        .iter()
        .zip(timestamps.iter().skip(1))
        .map(|(before, after)| after.duration_since(*before).as_secs_f64())
        .filter(|gap| *gap > 0.0)
        .collect();
    let Some(spacing) = median(&mut gaps) else { return 252.0 };
    let saturdays = timestamps.iter().any(|t| t.weekday() == Weekday::Saturday);
    if spacing > 1.5 * DAY {
        return (YEAR / spacing).round().max(1.0);
    }
    if spacing > 20.0 / 24.0 * DAY {
        let sundays = timestamps.iter().any(|t| t.weekday() == Weekday::Sunday);
        return if saturdays || sundays { 365.0 } else { 252.0 };
    }
    let mut days = bars_per_date(timestamps);
    let inner = days.len().saturating_sub(1);
    let Some(session) = days.get_mut(1..inner).and_then(median) else {
        return (365.0 * DAY / spacing).round();
    };
    let days_per_year = match (saturdays, session * spacing >= 20.0 / 24.0 * DAY) {
        (true, _) => 365.0,
        (false, true) => 260.0,
        (false, false) => 252.0,
    };
    session * days_per_year
}

fn bars_per_date(timestamps: &[DateTime]) -> Vec<f64> {
    let mut days: Vec<(Date, f64)> = Vec::new();
    for timestamp in timestamps {
        match days.last_mut() {
            Some((date, count)) if *date == timestamp.date() => *count += 1.0,
            _ => days.push((timestamp.date(), 1.0)),
        }
    }
    days.into_iter().map(|(_, count)| count).collect()
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use jiff::{ToSpan, civil::date};

    use super::*;

    /// The first `count` bars from Monday 2024-01-01 on for which `open` is true.
    fn bars(minutes: i64, count: usize, open: impl Fn(&DateTime) -> bool) -> Vec<DateTime> {
        let start = date(2024, 1, 1).at(0, 0, 0, 0);
        (0..).map(|i| start + (i * minutes).minutes()).filter(open).take(count).collect()
    }

    fn weekend(t: &DateTime) -> bool {
        matches!(t.weekday(), Weekday::Saturday | Weekday::Sunday)
    }

    #[test]
    fn common_calendars() {
        let day = 24 * 60;
        assert_eq!(infer_periods_per_year(&bars(day, 400, |t| !weekend(t))), 252.0);
        assert_eq!(infer_periods_per_year(&bars(day, 400, |_| true)), 365.0);
        assert_eq!(infer_periods_per_year(&bars(7 * day, 100, |_| true)), 52.0);
        assert_eq!(infer_periods_per_year(&bars(60, 2000, |_| true)), 8760.0);
        assert_eq!(infer_periods_per_year(&bars(240, 500, |_| true)), 2190.0);
        assert_eq!(infer_periods_per_year(&bars(60, 2000, |t| !weekend(t))), 6240.0);
        let session = |t: &DateTime| !weekend(t) && (10..17).contains(&t.hour());
        assert_eq!(infer_periods_per_year(&bars(60, 500, session)), 7.0 * 252.0);
    }

    #[test]
    fn foreign_exchange_weeks_start_on_sunday_evening() {
        let open = |t: &DateTime| match t.weekday() {
            Weekday::Saturday => false,
            Weekday::Sunday => t.hour() >= 22,
            Weekday::Friday => t.hour() < 22,
            _ => true,
        };
        assert_eq!(infer_periods_per_year(&bars(60, 3000, open)), 6240.0);
    }

    #[test]
    fn months_of_different_lengths() {
        let months: Vec<_> = (1..=12).map(|m| date(2023, m, 1).at(0, 0, 0, 0)).collect();
        assert_eq!(infer_periods_per_year(&months), 12.0);
    }

    #[test]
    fn too_few_bars_for_a_calendar() {
        assert_eq!(infer_periods_per_year(&[]), 252.0);
        assert_eq!(infer_periods_per_year(&bars(60, 1, |_| true)), 252.0);
        assert_eq!(infer_periods_per_year(&bars(60, 5, |_| true)), 8760.0);
        assert_eq!(infer_periods_per_year(&bars(60, 30, |_| true)), 8760.0);
    }
}
