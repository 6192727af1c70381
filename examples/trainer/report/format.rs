//! Formats numbers and dates for the report.

use std::time::Duration;

use jiff::civil::{DateTime, Time};

/// Placeholder for undefined metrics.
pub const UNDEFINED: &str = "–";

/// A number with `decimals` decimal places, a typographic minus sign and thousands separators.
pub fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return UNDEFINED.into();
    }
    if value.abs() >= 1e12 {
        return format!("{value:.2e}").replace('-', "−");
    }
    let digits = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let mut text = String::new();
    if value < 0.0 && digits.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
        text.push('−');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// A fraction as a percentage, with two decimal places below 1 %, one below 1,000 %, and none above or for zero.
pub fn percent(fraction: f64) -> String {
    let value = fraction * 100.0;
    let decimals = match value.abs() {
        0.0 => 0,
        size if size < 1.0 => 2,
        size if size < 1000.0 => 1,
        _ => 0,
    };
    format!("{}\u{a0}%", number(value, decimals))
}

/// Like [`percent`], with a plus sign for gains.
pub fn signed_percent(fraction: f64) -> String {
    let text = percent(fraction);
    if fraction > 0.0 { format!("+{text}") } else { text }
}

/// A ratio with two decimal places.
pub fn plain(value: Option<f64>) -> String {
    value.map_or(UNDEFINED.into(), |value| number(value, 2))
}

/// An amount of account currency: without cents from 1,000 on.
pub fn money(value: f64) -> String {
    number(value, if value.abs() >= 1000.0 { 0 } else { 2 })
}

/// Label of an axis tick, with enough decimal places to distinguish ticks `step` apart; thousands
/// and millions are abbreviated if `largest`, the largest tick, requires it.
pub fn tick(value: f64, step: f64, largest: f64) -> String {
    let (unit, suffix) = match largest.abs() {
        size if size >= 1e12 => return format!("{value:.1e}").replace('-', "−"),
        size if size >= 1e9 => (1e9, "B"),
        size if size >= 1e6 => (1e6, "M"),
        size if size >= 1e4 => (1e3, "k"),
        size if size < 1e-4 && size > 0.0 => return format!("{value:.0e}").replace('-', "−"),
        _ => (1.0, ""),
    };
    if value == 0.0 {
        return "0".into();
    }
    let step = step / unit;
    let fine = (0..6).find(|places| {
        let scaled = step * 10f64.powi(*places);
        (scaled - scaled.round()).abs() < 1e-6 * scaled
    });
    format!("{}{suffix}", number(value / unit, fine.unwrap_or(6) as usize))
}

/// The two largest non-zero units of hours, minutes and seconds.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) => format!("{:.1}\u{a0}s", time.as_secs_f64()),
        (0, minutes, seconds) => format!("{minutes}\u{a0}min {seconds:02}\u{a0}s"),
        (hours, minutes, _) => format!("{}\u{a0}h {minutes:02}\u{a0}min", number(hours as f64, 0)),
    }
}

/// The date, with the time of day unless it is midnight.
pub fn moment(timestamp: DateTime) -> String {
    let date = timestamp.strftime("%-d %B %Y");
    if timestamp.time() == Time::midnight() {
        date.to_string()
    } else {
        format!("{date}, {}", timestamp.strftime("%H:%M"))
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(number(-999.5, 0), "−1,000");
        assert_eq!(number(-0.001, 2), "0.00", "no minus before zero");
        assert_eq!(number(f64::NAN, 2), UNDEFINED);
        assert_eq!(number(-3.2e15, 2), "−3.20e15");
        assert_eq!((percent(0.0012), percent(-0.5)), ("0.12\u{a0}%".into(), "−50.0\u{a0}%".into()));
        assert_eq!((percent(0.0), percent(-0.0)), ("0\u{a0}%".into(), "0\u{a0}%".into()));
        assert_eq!(signed_percent(25.0), "+2,500\u{a0}%");
        assert_eq!((money(12_345.6), money(12.3)), ("12,346".into(), "12.30".into()));
    }

    #[test]
    fn ticks_tell_neighbours_apart() {
        assert_eq!(tick(12_500.0, 2_500.0, 15_000.0), "12.5k");
        assert_eq!(tick(1e6, 5e5, 2e6), "1.0M");
        assert_eq!(tick(0.25, 0.25, 1.0), "0.25");
        assert_eq!(tick(0.0, 0.25, 1.0), "0");
        assert_eq!(tick(-0.002, 0.001, 0.003), "−0.002");
        assert_eq!(tick(2e-6, 1e-6, 4e-6), "2e−6");
    }

    #[test]
    fn times() {
        assert_eq!(duration(Duration::from_millis(1500)), "1.5\u{a0}s");
        assert_eq!(duration(Duration::from_secs(125)), "2\u{a0}min 05\u{a0}s");
        assert_eq!(duration(Duration::from_secs(7_380)), "2\u{a0}h 03\u{a0}min");
        assert_eq!(moment(date(2024, 3, 5).at(0, 0, 0, 0)), "5 March 2024");
        assert_eq!(moment(date(2024, 3, 5).at(9, 30, 0, 0)), "5 March 2024, 09:30");
    }
}
