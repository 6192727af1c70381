//! Axis ranges and ticks.

use jiff::Unit;
use jiff::civil::{DateTime, date};

use super::format;

/// A tick: position in data coordinates, label.
pub type Tick = (f64, String);

/// Round numbers (1, 2, 2.5 or 5 times a power of ten) within `[low, high]`, about `wanted` of them.
pub fn numeric(low: f64, high: f64, wanted: usize, label: impl Fn(f64, f64, f64) -> String) -> Vec<Tick> {
    let rough = (high - low) / wanted.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    let largest = low.abs().max(high.abs());
    (first..=last).map(|i| (i as f64 * step, label(i as f64 * step, step, largest))).collect()
}

/// The range of the finite `values` with a margin; `None` if there are none.
pub fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return None;
    }
    // A smaller range is a constant curve with rounding errors, which must not fill the plot.
    let least = 1e-9 * low.abs().max(high.abs());
    let air = if high - low > least { 0.06 * (high - low) } else { (0.1 * high.abs()).max(1e-6) };
    Some((low - air, high + air))
}

const STEPS: [(Unit, i64, &str); 17] = [
    (Unit::Minute, 1, "%H:%M"),
    (Unit::Minute, 5, "%H:%M"),
    (Unit::Minute, 15, "%H:%M"),
    (Unit::Hour, 1, "%H:%M"),
    (Unit::Hour, 3, "%-d %b %H:%M"),
    (Unit::Hour, 6, "%-d %b %H:%M"),
    (Unit::Day, 1, "%-d %b"),
    (Unit::Day, 2, "%-d %b"),
    (Unit::Day, 7, "%-d %b"),
    (Unit::Day, 14, "%-d %b"),
    (Unit::Month, 1, "%b %Y"),
    (Unit::Month, 3, "%b %Y"),
    (Unit::Month, 6, "%b %Y"),
    (Unit::Year, 1, "%Y"),
    (Unit::Year, 2, "%Y"),
    (Unit::Year, 5, "%Y"),
    (Unit::Year, 20, "%Y"),
];

/// Calendar ticks for bars drawn at their index: the first bar of each year, quarter, month, day or
/// hour, in the finest unit with at most five ticks. Weekends and nights take no space.
pub fn calendar(timestamps: &[DateTime]) -> Vec<Tick> {
    const MOST: usize = 5;
    let bars = timestamps.len();
    let ticks = STEPS.iter().map(|step| boundaries(timestamps, *step)).find(|ticks| ticks.len() <= MOST);
    match ticks {
        Some(ticks) if ticks.len() >= 2 => spread(ticks, bars),
        _ => [0, bars.saturating_sub(1)]
            .into_iter()
            .filter_map(|bar| Some((bar as f64, timestamps.get(bar)?.strftime("%-d %b %Y").to_string())))
            .collect(),
    }
}

fn boundaries(timestamps: &[DateTime], (unit, every, pattern): (Unit, i64, &str)) -> Vec<Tick> {
    let keys: Vec<i64> = timestamps.iter().map(|t| count(*t, unit).div_euclid(every)).collect();
    (1..keys.len())
        .filter(|bar| keys[*bar] != keys[bar - 1])
        .map(|bar| (bar as f64, timestamps[bar].strftime(pattern).to_string()))
        .collect()
}

/// Whole units since a Monday in the past.
fn count(timestamp: DateTime, unit: Unit) -> i64 {
    let months = i64::from(timestamp.year()) * 12 + i64::from(timestamp.month()) - 1;
    let seconds = timestamp.duration_since(date(1900, 1, 1).at(0, 0, 0, 0)).as_secs();
    match unit {
        Unit::Year => months.div_euclid(12),
        Unit::Month => months,
        Unit::Day => seconds.div_euclid(86_400),
        Unit::Hour => seconds.div_euclid(3600),
        _ => seconds.div_euclid(60),
    }
}

/// Removes ticks that overlap because of a gap in the data.
fn spread(ticks: Vec<Tick>, bars: usize) -> Vec<Tick> {
    let room = bars as f64 / 6.5;
    let mut kept: Vec<Tick> = Vec::new();
    for tick in ticks {
        if kept.last().is_none_or(|last| tick.0 - last.0 >= room) {
            kept.push(tick);
        }
    }
    kept
}

/// Ticks of a percent axis.
pub fn percents(low: f64, high: f64, wanted: usize) -> Vec<Tick> {
    numeric(low, high, wanted, |value, step, largest| {
        format!("{}%", format::tick(value * 100.0, step * 100.0, largest * 100.0))
    })
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    fn labels(minutes: i64, bars: i64) -> Vec<String> {
        let start = date(2023, 11, 15).at(0, 0, 0, 0);
        let timestamps: Vec<_> = (0..bars).map(|bar| start + (bar * minutes).minutes()).collect();
        let ticks = calendar(&timestamps);
        assert!(ticks.len() <= 5);
        ticks.into_iter().map(|tick| tick.1).collect()
    }

    #[test]
    fn calendars_of_every_length() {
        let day = 24 * 60;
        assert_eq!(labels(day, 100), ["Dec 2023", "Jan 2024", "Feb 2024"]);
        assert_eq!(labels(day, 365 * 2), ["Jan 2024", "Jul 2024", "Jan 2025", "Jul 2025"]);
        assert_eq!(labels(day, 365 * 5), ["2024", "2025", "2026", "2027", "2028"]);
        assert_eq!(labels(60, 24 * 4), ["16 Nov", "17 Nov", "18 Nov"]);
        assert_eq!(labels(1, 20), ["00:05", "00:10", "00:15"]);
        assert_eq!(labels(day, 2), ["15 Nov 2023", "16 Nov 2023"]);
        assert!(calendar(&[]).is_empty());
    }

    #[test]
    fn round_numbers_within_the_range() {
        let ticks = numeric(9_800.0, 12_300.0, 4, format::tick);
        assert_eq!(ticks.iter().map(|t| t.1.as_str()).collect::<Vec<_>>(), ["10k", "11k", "12k"]);
        assert!(numeric(1.0, 1.0, 4, format::tick).is_empty());
        let ticks = percents(-0.21, 0.0, 4);
        assert_eq!(ticks.iter().map(|t| t.1.as_str()).collect::<Vec<_>>(), ["−20%", "−10%", "0%"]);
    }

    #[test]
    fn ranges_have_air_and_ignore_what_is_no_number() {
        assert_eq!(range([f64::NAN, f64::INFINITY].into_iter()), None);
        let (low, high) = range([1.0, f64::NAN, 2.0].into_iter()).unwrap();
        assert!(low < 1.0 && low > 0.9 && high > 2.0 && high < 2.1);
        let (low, high) = range([0.0, 0.0].into_iter()).unwrap();
        assert!(low < 0.0 && high > 0.0);
    }
}
