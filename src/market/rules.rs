//! The rules for a valid bar.

use super::timestamp::show;
use jiff::civil::DateTime;

/// One bar of one instrument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    pub timestamp: DateTime,
    /// Open, high, low, close and volume, in the order of [`Field::ALL`]; an unknown volume is 0.
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

/// Checks that prices are finite and positive, that volume is finite and not negative, and that
/// `low <= open, close <= high`.
///
/// # Errors
/// The first field that violates a rule, and a message with symbol, timestamp and reason.
pub(super) fn check(symbol: &str, bar: &Bar) -> Result<(), (Field, String)> {
    let [open, high, low, close, volume] = bar.values;
    // Fast path for valid bars. Comparisons with NaN are false; infinity needs an explicit test.
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
            return (field, format!("{} is {price}; a price has to be finite and above 0", field.name()));
        }
    }
    if !(volume >= 0.0 && volume.is_finite()) {
        return (Field::Volume, format!("volume is {volume}; a volume has to be finite and not negative"));
    }
    if high < low {
        let reason =
            format!("high {high} is below low {low}; high has to be the bar's highest price, low its lowest");
        return (Field::High, reason);
    }
    let (field, price) =
        if low <= open && open <= high { (Field::Close, close) } else { (Field::Open, open) };
    (field, format!("{} {price} is outside the bar's range, low {low} to high {high}", field.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn reason(values: [f64; 5]) -> Option<(Field, String)> {
        check("X", &Bar { timestamp: date(2020, 1, 2).at(9, 30, 0, 0), values }).err()
    }

    #[test]
    fn flat_bars_and_prices_at_the_bounds_are_valid() {
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
    fn messages_state_the_rule() {
        assert_eq!(
            reason([2.0, 0.9, 1.0, 2.0, 0.0]).map(|fault| fault.1).as_deref(),
            Some(
                "X 2020-01-02T09:30:00: high 0.9 is below low 1; high has to be the bar's highest price, low its lowest"
            )
        );
        assert_eq!(
            reason([2.0, 3.0, 1.0, 3.5, 0.0]).map(|fault| fault.1).as_deref(),
            Some("X 2020-01-02T09:30:00: close 3.5 is outside the bar's range, low 1 to high 3")
        );
    }
}
