//! What makes four prices and a volume a candle.

use super::timestamp::show;
use jiff::civil::DateTime;

/// One bar of one instrument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    pub timestamp: DateTime,
    /// Open, high, low, close and volume, in the order of [`Field::ALL`]; volume is 0 where unknown.
    pub values: [f64; 5],
}

/// A number of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Open,
    High,
    Low,
    Close,
    Volume,
}

impl Field {
    pub const ALL: [Self; 5] = [Self::Open, Self::High, Self::Low, Self::Close, Self::Volume];

    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::High => "high",
            Self::Low => "low",
            Self::Close => "close",
            Self::Volume => "volume",
        }
    }
}

/// Checks a bar and names the first number at fault together with the reason.
///
/// Prices are finite and above zero, volume is finite and not negative, and
/// `low <= open, close <= high`.
pub(super) fn check(symbol: &str, bar: &Bar) -> Result<(), (Field, String)> {
    let [open, high, low, close, volume] = bar.values;
    // One comparison chain decides the usual case; it is false for NaN, and infinity is the one value
    // that could slip through it.
    if low > 0.0
        && low <= open
        && open <= high
        && low <= close
        && close <= high
        && high < f64::INFINITY
        && (0.0..f64::INFINITY).contains(&volume)
    {
        return Ok(());
    }
    let (field, reason) = fault(open, high, low, close, volume);
    Err((field, format!("{symbol} {}: {reason}", show(bar.timestamp))))
}

fn fault(open: f64, high: f64, low: f64, close: f64, volume: f64) -> (Field, String) {
    for (field, price) in [(Field::Open, open), (Field::High, high), (Field::Low, low), (Field::Close, close)]
    {
        if !(price > 0.0 && price.is_finite()) {
            return (field, format!("{} is {price}; a price is a finite number above 0", field.name()));
        }
    }
    if !(volume >= 0.0 && volume.is_finite()) {
        return (Field::Volume, format!("volume is {volume}; it is a finite number, 0 or more"));
    }
    if high < low {
        let reason =
            format!("high {high} is below low {low}; high is the greatest price of the bar, low the least");
        return (Field::High, reason);
    }
    let (field, price) =
        if low <= open && open <= high { (Field::Close, close) } else { (Field::Open, open) };
    (
        field,
        format!("{} {price} is outside low {low} to high {high}; it has to lie between them", field.name()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn reason(values: [f64; 5]) -> Option<(Field, String)> {
        check("X", &Bar { timestamp: date(2020, 1, 2).at(9, 30, 0, 0), values }).err()
    }

    #[test]
    fn a_bar_may_be_flat_or_touch_its_bounds() {
        assert_eq!(reason([1.0, 1.0, 1.0, 1.0, 0.0]), None);
        assert_eq!(reason([2.0, 2.0, 1.0, 1.0, 5.5]), None);
        assert_eq!(reason([f64::MIN_POSITIVE, 1e300, f64::MIN_POSITIVE, 1e300, 1e300]), None);
    }

    #[test]
    fn every_rule_has_its_field() {
        let good = [2.0, 3.0, 1.0, 2.5, 7.0];
        for (field, bad) in [
            (Field::Open, 0.5),
            (Field::Open, 3.5),
            (Field::Open, f64::NAN),
            (Field::High, 0.9),
            (Field::High, f64::INFINITY),
            (Field::Low, 0.0),
            (Field::Low, -1.0),
            (Field::Low, f64::NAN),
            (Field::Close, 0.9),
            (Field::Close, 3.1),
            (Field::Close, f64::NEG_INFINITY),
            (Field::Volume, -1.0),
            (Field::Volume, f64::NAN),
            (Field::Volume, f64::INFINITY),
        ] {
            let mut values = good;
            values[field as usize] = bad;
            let (found, text) = reason(values).expect("a fault");
            assert_eq!(found, field, "{values:?}: {text}");
            assert!(text.starts_with("X 2020-01-02T09:30:00: "), "{text}");
            assert!(text.contains(&bad.to_string()), "{text}");
        }
    }

    #[test]
    fn texts_say_what_would_be_right() {
        assert_eq!(
            reason([2.0, 0.9, 1.0, 2.0, 0.0]).map(|fault| fault.1).as_deref(),
            Some(
                "X 2020-01-02T09:30:00: high 0.9 is below low 1; high is the greatest price of the bar, low the least"
            )
        );
        assert_eq!(
            reason([2.0, 3.0, 1.0, 3.5, 0.0]).map(|fault| fault.1).as_deref(),
            Some("X 2020-01-02T09:30:00: close 3.5 is outside low 1 to high 3; it has to lie between them")
        );
    }
}
