//! Splitting bars into a training part and a test part.

use super::candles::Candles;
use super::timestamp::show;
use crate::{Error, Result};
use jiff::civil::DateTime;
use std::ops::Range;

/// Two ranges of bars; the training bars all precede the test bars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits {
    /// Bars to train on.
    pub train: Range<usize>,
    /// Bars to test on; `train.end <= test.start`.
    pub test: Range<usize>,
}

impl Splits {
    /// Minimum number of bars of a part: an order placed at one bar fills at the next.
    pub const MIN_BARS: usize = 2;

    /// Trains on the first `train_fraction` of `bars`, rounded to whole bars, and tests on the rest.
    ///
    /// ```
    /// let splits = phalanx::market::Splits::by_fraction(1000, 0.8)?;
    /// assert_eq!((splits.train, splits.test), (0..800, 800..1000));
    /// # Ok::<(), phalanx::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] if the fraction is not strictly between 0 and 1 or leaves a part with fewer than
    /// [`Splits::MIN_BARS`] bars.
    pub fn by_fraction(bars: usize, train_fraction: f64) -> Result<Self> {
        if !(train_fraction > 0.0 && train_fraction < 1.0) {
            let reason =
                format!("{train_fraction} is not between 0 and 1; 0.8 trains on the first 80 % of the bars");
            return Err(Error::config("train_fraction", reason));
        }
        // The conversion saturates, and the product is at most `bars`.
        let cut = (bars as f64 * train_fraction).round() as usize;
        Self::cut(bars, cut).map_err(|parts| {
            Error::config("train_fraction", format!("{train_fraction} of {bars} bars leaves {parts}"))
        })
    }

    /// Trains on the bars before `first_test` and tests on the bars at or after it.
    ///
    /// # Errors
    /// [`Error::Data`] with the period of the candles if a part has fewer than [`Splits::MIN_BARS`] bars.
    pub fn by_date(candles: &Candles, first_test: DateTime) -> Result<Self> {
        let bars = candles.bars();
        Self::cut(bars, candles.index_at_or_after(first_test)).map_err(|parts| {
            let period = match (candles.timestamps.first(), candles.timestamps.last()) {
                (Some(first), Some(last)) => format!("run from {} to {}", show(*first), show(*last)),
                _ => "are empty".into(),
            };
            let first_test = show(first_test);
            Error::Data(format!("testing from {first_test} on leaves {parts}; the {bars} bars {period}"))
        })
    }

    fn cut(bars: usize, cut: usize) -> Result<Self, String> {
        let (train, test) = (cut.min(bars), bars.saturating_sub(cut));
        if train < Self::MIN_BARS || test < Self::MIN_BARS {
            let least = Self::MIN_BARS;
            return Err(format!("{train} training bars and {test} test bars, but each part needs {least}"));
        }
        Ok(Self { train: 0..cut, test: cut..bars })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use ndarray::Array2;

    fn daily(days: i8) -> Candles {
        let timestamps: Vec<_> = (1..=days).map(|day| date(2020, 1, day).at(0, 0, 0, 0)).collect();
        let ones = Array2::ones((1, timestamps.len()));
        let prices = || ones.clone();
        Candles::new(vec!["A".into()], timestamps, prices(), prices(), prices(), prices(), None)
            .expect("valid candles")
    }

    #[test]
    fn every_bar_is_in_exactly_one_part() {
        for bars in 8..200 {
            for fraction in [0.5, 0.6, 0.75] {
                let splits = Splits::by_fraction(bars, fraction).expect("both parts have bars");
                assert_eq!((splits.train.start, splits.test.end), (0, bars));
                assert_eq!(splits.train.end, splits.test.start);
                assert!((splits.train.len() as f64 - fraction * bars as f64).abs() <= 0.5);
            }
        }
    }

    #[test]
    fn fractions_that_leave_too_little() {
        let text = |bars, fraction| Splits::by_fraction(bars, fraction).map_err(|error| error.to_string());
        assert_eq!(
            text(10, 0.9),
            Err("setting `train_fraction`: 0.9 of 10 bars leaves 9 training bars and 1 test bars, \
                 but each part needs 2"
                .into())
        );
        assert_eq!(
            text(3, 0.5),
            Err("setting `train_fraction`: 0.5 of 3 bars leaves 2 training bars and 1 test bars, \
                 but each part needs 2"
                .into())
        );
        assert!(text(0, 0.5).is_err());
        for fraction in [0.0, 1.0, -0.5, 80.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                text(100, fraction),
                Err(format!(
                    "setting `train_fraction`: {fraction} is not between 0 and 1; 0.8 trains on the first \
                     80 % of the bars"
                ))
            );
        }
    }

    #[test]
    fn a_date_starts_the_test_part() {
        let candles = daily(10);
        let at = |day, hour| Splits::by_date(&candles, date(2020, 1, day).at(hour, 0, 0, 0));
        assert_eq!(at(7, 0).ok(), Some(Splits { train: 0..6, test: 6..10 }));
        assert_eq!(at(7, 1).ok(), Some(Splits { train: 0..7, test: 7..10 }));
        assert_eq!(at(9, 0).ok(), Some(Splits { train: 0..8, test: 8..10 }));
    }

    #[test]
    fn dates_that_leave_too_little() {
        let candles = daily(10);
        for (first_test, train, test) in [
            (date(2019, 12, 31), 0, 10),
            (date(2020, 1, 2), 1, 9),
            (date(2020, 1, 10), 9, 1),
            (date(2021, 1, 1), 10, 0),
        ] {
            let error =
                Splits::by_date(&candles, first_test.at(0, 0, 0, 0)).map_err(|error| error.to_string());
            assert_eq!(
                error,
                Err(format!(
                    "testing from {first_test} on leaves {train} training bars and {test} test bars, but \
                     each part needs 2; the 10 bars run from 2020-01-01 to 2020-01-10"
                ))
            );
        }
    }
}
