//! The rules for a valid bar.

use super::timestamp::show;
use crate::text::shown;
use jiff::civil::DateTime;

/// One bar of one instrument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    pub timestamp: DateTime,
    /// The offset from UTC that was written with the timestamp, in minutes east of Greenwich.
    pub offset: Option<i16>,
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

/// The largest distance of a price from the bar's range that is a rounding error, in units of f64 precision: exports whose prices
/// were adjusted one by one, as yfinance does, are off by one or two.
const ROUNDING: f64 = 4.0 * f64::EPSILON;

/// Checks that features of prices and volume can be held by f32, in which the device computes, that volume is not negative, and that
/// `low <= open, close <= high`. Moves an open or a close that is out of the range by rounding only to the nearest bound.
///
/// Returns how many prices it moved.
///
/// # Errors
/// The first field that violates a rule, and a message with symbol, timestamp and reason.
pub(super) fn check(symbol: &str, bar: &mut Bar) -> Result<u64, (Field, String)> {
    let [open, high, low, close, volume] = bar.values;
    // Fast path for valid bars. Comparisons with NaN are false.
    if low >= LEAST_PRICE
        && low <= open
        && open <= high
        && low <= close
        && close <= high
        && high <= MOST_PRICE
        && (0.0..=MOST_VOLUME).contains(&volume)
        && high * volume <= MOST_TURNOVER
    {
        return Ok(0);
    }
    let rounded = |price: f64| {
        let bound = price.max(low).min(high);
        if (price - bound).abs() <= ROUNDING * bound { bound } else { price }
    };
    let (near_open, near_close) = (rounded(open), rounded(close));
    match fault(near_open, high, low, near_close, volume) {
        None => {
            bar.values = [near_open, high, low, near_close, volume];
            Ok(u64::from(near_open != open) + u64::from(near_close != close))
        }
        Some((field, reason)) => Err((field, format!("{} {}: {reason}", shown(symbol), show(bar.timestamp)))),
    }
}

// From these limits no feature, no sum of squared features over 10^8 bars, and no sum over a window of at most 10^5 bars, the longest
// period of an indicator, leaves the range of f32 (3.4e38). Squares of prices: (1e15)^2 * 1e5 = 1e35. Price times volume: 1e33 * 1e5 =
// 1e38. A return, a range or an average range over the price: at most twice MOST_RATIO, and its square over 10^8 bars 4e32.
const LEAST_PRICE: f64 = 1e-15;
const MOST_PRICE: f64 = 1e15;
const MOST_VOLUME: f64 = 1e20;
/// Highest price times volume of a bar.
const MOST_TURNOVER: f64 = 1e33;
/// Highest over lowest price of an instrument.
pub(super) const MOST_RATIO: f64 = 1e12;

/// Lowest and highest price of the bars of an instrument that were seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct PriceRange {
    pub low: f64,
    pub high: f64,
}

impl Default for PriceRange {
    fn default() -> Self {
        Self { low: f64::INFINITY, high: 0.0 }
    }
}

impl PriceRange {
    /// Whether the prices are within the factor that is allowed.
    pub fn is_narrow(self) -> bool {
        self.high <= MOST_RATIO * self.low
    }

    /// The range with one more bar, which is valid by itself.
    ///
    /// # Errors
    /// The field that is too far from the other prices, and the reason.
    pub fn with(self, bar: &Bar) -> Result<Self, (Field, String)> {
        let [_, high, low, ..] = bar.values;
        let wider = Self { low: self.low.min(low), high: self.high.max(high) };
        if wider.is_narrow() {
            return Ok(wider);
        }
        let (field, price, other) =
            if high > self.high { (Field::High, high, wider.low) } else { (Field::Low, low, wider.high) };
        let reason = format!(
            "{} is {price:e}, and another price of the instrument is {other:e}; they may differ by a factor of {MOST_RATIO:e}, \
             so that 32-bit numbers hold every return: check the file for a price in another unit or a mark for a missing one",
            field.name()
        );
        Err((field, reason))
    }
}

fn fault(open: f64, high: f64, low: f64, close: f64, volume: f64) -> Option<(Field, String)> {
    for (field, price) in [(Field::Open, open), (Field::High, high), (Field::Low, low), (Field::Close, close)]
    {
        let name = field.name();
        if !(price > 0.0 && price.is_finite()) {
            return Some((field, format!("{name} is {price}; a price has to be finite and above 0")));
        }
        if !(LEAST_PRICE..=MOST_PRICE).contains(&price) {
            let reason = format!(
                "{name} is {price:e}; a price has to be between {LEAST_PRICE:e} and {MOST_PRICE:e}, so that 32-bit numbers hold every \
                 feature: check the file, or quote the prices in another unit"
            );
            return Some((field, reason));
        }
    }
    if !(volume >= 0.0 && volume.is_finite()) {
        let reason = format!("volume is {volume}; a volume has to be finite and not negative");
        return Some((Field::Volume, reason));
    }
    if volume > MOST_VOLUME {
        let reason = format!(
            "volume is {volume:e}; a volume has to be at most {MOST_VOLUME:e}, so that 32-bit numbers hold every feature: check the \
             file for a mark for a missing volume (write 0), or count in another unit"
        );
        return Some((Field::Volume, reason));
    }
    if high * volume > MOST_TURNOVER {
        let reason = format!(
            "volume is {volume:e} at a price of {high:e}; their product has to be at most {MOST_TURNOVER:e}, so that 32-bit numbers hold \
             its sums: check the file, or count the volume or quote the prices in another unit"
        );
        return Some((Field::Volume, reason));
    }
    if high < low {
        let reason =
            format!("high {high} is below low {low}; high has to be the bar's highest price, low its lowest");
        return Some((Field::High, reason));
    }
    let inside = |price: f64| low <= price && price <= high;
    let (field, price) = match (inside(open), inside(close)) {
        (true, true) => return None,
        (false, _) => (Field::Open, open),
        (true, false) => (Field::Close, close),
    };
    Some((field, format!("{} {price} is outside the bar's range, low {low} to high {high}", field.name())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn reason(values: [f64; 5]) -> Option<(Field, String)> {
        check("X", &mut bar(values)).err()
    }

    fn bar(values: [f64; 5]) -> Bar {
        Bar { timestamp: date(2020, 1, 2).at(9, 30, 0, 0), offset: None, values }
    }

    #[test]
    fn flat_bars_and_prices_at_the_bounds_are_valid() {
        assert_eq!(reason([1.0, 1.0, 1.0, 1.0, 0.0]), None);
        assert_eq!(reason([2.0, 2.0, 1.0, 1.0, 5.5]), None);
        assert_eq!(reason([1e-15, 1e15, 1e-15, 1e15, 1e18]), None);
        assert_eq!(reason([1e13, 1e13, 1e13, 1e13, 1e20]), None);
    }

    #[test]
    fn prices_out_of_the_range_by_rounding_are_moved_to_it() {
        let (low, high) = (99.0_f64, 100.1_f64);
        let [above, below] = [high.next_up().next_up(), low.next_down()];
        for (open, close, moved, expected) in [
            (99.5, high.next_up(), 1, [99.5, high]),
            (above, below, 2, [high, low]),
            (low, high, 0, [low, high]),
        ] {
            let mut bar = bar([open, high, low, close, 5.0]);
            assert_eq!(check("X", &mut bar), Ok(moved));
            assert_eq!(bar.values, [expected[0], high, low, expected[1], 5.0]);
        }
        for close in [high * (1.0 + 1e-14), low * (1.0 - 1e-14)] {
            assert_eq!(reason([99.5, high, low, close, 5.0]).map(|fault| fault.0), Some(Field::Close));
        }
        // High below low by one unit is an error of the source, not of rounding.
        assert_eq!(reason([2.0, 2.0, 2.0_f64.next_up(), 2.0, 5.0]).map(|fault| fault.0), Some(Field::High));
    }

    #[test]
    fn numbers_whose_features_f32_cannot_hold_are_refused() {
        for (values, field) in [
            ([1e39, 1e39, 1e39, 1e39, 0.0], Field::Open),
            ([1.0, 1e15_f64.next_up(), 1.0, 1.0, 0.0], Field::High),
            ([1.0, 1.0, 1e-15_f64.next_down(), 1.0, 0.0], Field::Low),
            ([1.0, 1.0, 1.0, 1.0, 1e20_f64.next_up()], Field::Volume),
            ([1.0, 1.0, 1.0, 1.0, f64::MAX], Field::Volume),
        ] {
            let (found, text) = reason(values).expect("a fault");
            assert_eq!(found, field);
            assert!(text.contains("so that 32-bit numbers hold every feature: check the file"), "{text}");
        }
        // Both are within their limits.
        let (found, text) = reason([1e14, 2e14, 1e14, 1e14, 1e19]).expect("a fault");
        assert!(
            found == Field::Volume
                && text.contains("volume is 1e19 at a price of 2e14; their product has to be at most 1e33"),
            "{text}"
        );
        assert_eq!(
            reason([1e39, 2e39, 1e39, 2e39, 0.0]).map(|fault| fault.1).as_deref(),
            Some(
                "X 2020-01-02T09:30:00: open is 1e39; a price has to be between 1e-15 and 1e15, so that 32-bit numbers hold every \
                 feature: check the file, or quote the prices in another unit"
            )
        );
    }

    #[test]
    fn prices_of_an_instrument_are_within_a_factor() {
        let flat = |price: f64| bar([price, price, price, price, 0.0]);
        let range = |prices: &[f64]| {
            prices
                .iter()
                .try_fold(PriceRange::default(), |range, price| range.with(&flat(*price)))
                .map(|_| ())
        };
        assert_eq!(range(&[1.0, 1e12, 5.0]), Ok(()));
        assert_eq!(range(&[1e-3, 1e9, 1e9]), Ok(()));
        let (field, text) = range(&[1.0, 2.0, 1.1e12]).expect_err("too high");
        assert!(
            field == Field::High
                && text.starts_with("high is 1.1e12, and another price of the instrument is 1e0;"),
            "{text}"
        );
        let (field, text) = range(&[1e3, 2.0, 0.9e-9]).expect_err("too low");
        assert!(
            field == Field::Low
                && text.starts_with("low is 9e-10, and another price of the instrument is 1e3;"),
            "{text}"
        );
        // One bar alone.
        let wide = bar([1.0, 1e13, 1.0, 1.0, 0.0]);
        assert!(PriceRange::default().with(&wide).is_err());
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
