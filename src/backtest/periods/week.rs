//! The week of a market: its regular weekdays and its bars per week.

use jiff::civil::{Date, DateTime, Weekday};

use super::{DAY, WEEK};

/// Gaps longer than this, in seconds, belong to no week.
const HOLE: f64 = 4.0 * WEEK;

/// The spread of a market's bars over the week.
pub(super) struct Week {
    /// Dates that have bars, and their number of bars.
    dates: Vec<(Date, f64)>,
    /// Whether a weekday is regular, from Monday.
    regular: [bool; 7],
}

impl Week {
    /// `spacing` is the distance of neighbouring bars within a session, in seconds.
    pub fn of(timestamps: &[DateTime], spacing: f64) -> Self {
        let mut dates: Vec<(Date, f64)> = Vec::new();
        for timestamp in timestamps {
            match dates.last_mut() {
                Some((date, count)) if *date == timestamp.date() => *count += 1.0,
                _ => dates.push((timestamp.date(), 1.0)),
            }
        }
        let mut rates = [0.0_f64; 7];
        for (date, count) in &dates {
            if let Some(rate) = rates.get_mut(from_monday(date.weekday())) {
                *rate += count;
            }
        }
        if let (Some(first), Some(last)) = (timestamps.first(), timestamps.last()) {
            // A week of bars that begins and ends within a day has this weekday once, in two parts.
            let most = ((last.duration_since(*first).as_secs_f64() + spacing) / WEEK).ceil();
            let days = last.date().duration_since(first.date()).as_hours() / 24 + 1;
            for (weekday, rate) in rates.iter_mut().enumerate() {
                let before = (weekday + 7 - from_monday(first.weekday())) % 7;
                let weeks = (days - before as i64 + 6) / 7;
                *rate /= (weeks as f64).min(most).max(1.0);
            }
        }
        let busiest = rates.into_iter().fold(0.0, f64::max);
        Self { dates, regular: rates.map(|rate| rate > 0.5 * busiest) }
    }

    pub fn is_regular(&self, weekday: Weekday) -> bool {
        self.regular.get(from_monday(weekday)).copied().unwrap_or(false)
    }

    /// Number of regular weekdays.
    pub fn sessions(&self) -> usize {
        self.regular.into_iter().filter(|regular| *regular).count()
    }

    /// Median over the dates except the first and the last, which may be incomplete.
    pub fn bars_in_a_complete_day(&self) -> Option<f64> {
        let inner = self.dates.get(1..self.dates.len().saturating_sub(1))?;
        median(inner.iter().map(|(_, count)| *count).collect())
    }

    /// Bars per week, see [`super::infer_periods_per_year`]; `None` for less than a week of bars.
    pub fn bars(&self, timestamps: &[DateTime], spacing: f64) -> Option<f64> {
        const HOLIDAYS: f64 = 0.1;
        const SPECIAL: f64 = 0.02;
        const SESSIONS: f64 = 2.0;
        let (mean, weeks) = mean_week(timestamps, spacing)?;
        let regular = self.dates.iter().filter(|(date, _)| self.is_regular(date.weekday()));
        let session = median(regular.map(|(_, count)| *count).collect())?;
        let full = session * self.sessions() as f64;
        let share = if mean < full { HOLIDAYS } else { SPECIAL };
        let explained = (mean - full).abs() * weeks <= share * full * weeks + SESSIONS * session;
        Some(if explained { full } else { mean })
    }
}

/// Mean number of bars in seven days, and the number of weeks covered. A hole separates stretches of bars, and windows of
/// seven days lie within a stretch.
fn mean_week(timestamps: &[DateTime], spacing: f64) -> Option<(f64, f64)> {
    let first = timestamps.first()?;
    let times: Vec<f64> = timestamps.iter().map(|t| t.duration_since(*first).as_secs_f64()).collect();
    let (mut bars, mut windows, mut weeks) = (0, 0_u32, 0.0);
    for stretch in times.chunk_by(|before, after| after - before <= HOLE) {
        let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { continue };
        let end = last + spacing;
        let mut start = *first;
        if start + WEEK <= end {
            weeks += (end - start) / WEEK;
        }
        while start + WEEK <= end {
            let before = |time: f64| stretch.partition_point(|bar| *bar < time);
            bars += before(start + WEEK) - before(start);
            windows += 1;
            start += DAY;
        }
    }
    (windows > 0).then(|| (bars as f64 / f64::from(windows), weeks))
}

fn from_monday(weekday: Weekday) -> usize {
    usize::try_from(weekday.to_monday_zero_offset()).unwrap_or_default()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
