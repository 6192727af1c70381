//! Data of candles beside prices: which bars were filled, funding rates, and the time between bars.

use super::candles::Candles;
use super::real_bars::RealBars;
use super::timestamp::show;
use crate::{Error, Result};
use ndarray::Array2;

/// Years of 365 days between two bars.
pub(crate) fn years_between(before: jiff::civil::DateTime, bar: jiff::civil::DateTime) -> f64 {
    const SECONDS: f64 = 365.0 * 86_400.0;
    bar.duration_since(before).as_secs_f64() / SECONDS
}

impl Candles {
    /// Marks the bars that were made up, `[N][B]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for a mask of another shape; [`Error::Data`], naming symbol and date, if a marked bar does not repeat the
    /// previous close or has a volume.
    pub fn with_filled(self, filled: Array2<bool>) -> Result<Self> {
        let candles = Self { filled: Some(filled), ..self };
        candles.check_shapes()?;
        candles.check_filled()?;
        candles.check_funding()?;
        Ok(candles.without_empty_mask())
    }

    /// Sets the funding rates of perpetual contracts, `[N][B]`; see [`Candles::funding`].
    ///
    /// # Errors
    /// [`Error::Shape`] for rates of another shape; [`Error::Data`], naming symbol and date, for a rate that is not strictly between
    /// -1 and 1, or not 0 at a filled bar.
    pub fn with_funding(self, funding: Array2<f64>) -> Result<Self> {
        let candles = Self { funding: Some(funding), ..self };
        candles.check_shapes()?;
        candles.check_funding()?;
        Ok(candles)
    }

    /// Years of 365 days from the bar before `bar` to `bar`; 0 for the first bar.
    pub fn years_before(&self, bar: usize) -> f64 {
        let before = bar.checked_sub(1).and_then(|before| self.timestamps.get(before));
        match (before, self.timestamps.get(bar)) {
            (Some(before), Some(bar)) => years_between(*before, *bar),
            _ => 0.0,
        }
    }

    /// Number of bars of each instrument that were filled, `[N]`.
    pub fn filled_bars(&self) -> Vec<usize> {
        match &self.filled {
            None => vec![0; self.instruments()],
            Some(filled) => {
                filled.rows().into_iter().map(|row| row.iter().filter(|it| **it).count()).collect()
            }
        }
    }

    /// The bars that are not filled, for computations that must see real bars only.
    pub fn real_bars(&self) -> RealBars {
        RealBars::new(self.filled.as_ref())
    }

    /// `None` in place of a mask that marks no bar.
    pub(super) fn without_empty_mask(self) -> Self {
        let filled = self.filled.filter(|filled| filled.iter().any(|it| *it));
        Self { filled, ..self }
    }

    fn check_funding(&self) -> Result<()> {
        let rates = self.funding.iter().flat_map(|funding| funding.indexed_iter());
        for (at, rate) in rates {
            let filled = self.filled.as_ref().is_some_and(|filled| filled[at]);
            let valid = if filled { *rate == 0.0 } else { rate.abs() < 1.0 };
            if !valid {
                let expected =
                    if filled { "0 at a filled bar" } else { "a fraction strictly between -1 and 1" };
                let (symbol, date) = (&self.symbols[at.0], show(self.timestamps[at.1]));
                return Err(Error::Data(format!("{symbol} {date}: funding is {rate}, expected {expected}")));
            }
        }
        Ok(())
    }

    fn check_filled(&self) -> Result<()> {
        let marked =
            self.filled.iter().flat_map(|filled| filled.indexed_iter()).filter(|(_, filled)| **filled);
        for (at, _) in marked {
            let (instrument, bar) = at;
            let close = self.close[at];
            let before = if bar == 0 { close } else { self.close[[instrument, bar - 1]] };
            let flat =
                [self.open[at], self.high[at], self.low[at], before].iter().all(|price| *price == close);
            let traded = self.volume.as_ref().is_some_and(|volume| volume[at] != 0.0);
            if !flat || traded {
                return Err(Error::Data(format!(
                    "{} {}: a filled bar has to repeat the previous close as open, high, low and close, with volume 0",
                    self.symbols[instrument],
                    show(self.timestamps[bar])
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use ndarray::array;

    fn two_by_three() -> Candles {
        let timestamps = [2, 3, 6].map(|day| date(2020, 1, day).at(0, 0, 0, 0)).to_vec();
        let close = array![[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]];
        let symbols = vec!["B".to_string(), "A".to_string()];
        let (high, low) = (&close * 1.5, &close * 0.5);
        Candles::new(symbols, timestamps, close.clone(), high, low, close, Some(Array2::zeros((2, 3))))
            .expect("valid candles")
    }

    #[test]
    fn filled_bars_repeat_the_close_and_are_sliced() {
        let candles = || {
            let mut it = two_by_three();
            for prices in [&mut it.open, &mut it.high, &mut it.low, &mut it.close] {
                prices[[1, 1]] = 10.0;
            }
            it
        };
        let mask = array![[false, false, false], [false, true, false]];
        let marked = candles().with_filled(mask.clone()).expect("B repeats its close");
        assert_eq!(marked.filled_bars(), [0, 1]);
        assert_eq!(marked.slice(1..3).expect("in range").filled, Some(array![[false, false], [true, false]]));
        assert_eq!(marked.slice(2..3).expect("in range").filled, None, "no filled bar is left");
        assert_eq!(candles().with_filled(Array2::from_elem((2, 3), false)).expect("real").filled, None);
        let said = |candles: Candles, mask| {
            candles.with_filled(mask).map_or_else(|e| e.to_string(), |_| "accepted".into())
        };
        assert!(said(two_by_three(), mask.clone()).starts_with("A 2020-01-03: a filled bar has to repeat"));
        let mut jumps = candles();
        jumps.close[[1, 0]] = 9.0;
        assert!(said(jumps, mask.clone()).starts_with("A 2020-01-03: "));
        let mut traded = candles();
        traded.volume = Some(Array2::ones((2, 3)));
        assert!(said(traded, mask).starts_with("A 2020-01-03: "));
        assert!(
            said(candles(), Array2::from_elem((3, 2), true))
                .starts_with("candles.filled: expected 2 instruments")
        );
    }

    #[test]
    fn funding_is_a_fraction_and_time_is_elapsed() {
        let rates = array![[0.0, 1e-4, 0.0], [0.0, 0.0, -2e-4]];
        let candles = two_by_three().with_funding(rates).expect("fractions");
        assert_eq!(candles.slice(1..3).expect("in range").funding, Some(array![[1e-4, 0.0], [0.0, -2e-4]]));
        let said =
            |rates: Array2<f64>| two_by_three().with_funding(rates).map(|_| ()).map_err(|e| e.to_string());
        let high = array![[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
        let expected = "A 2020-01-03: funding is 1, expected a fraction strictly between -1 and 1";
        assert_eq!(said(high), Err(expected.into()));
        assert!(said(Array2::from_elem((2, 3), f64::NAN)).is_err() && said(Array2::zeros((1, 3))).is_err());
        assert_eq!([0, 1, 2, 3].map(|bar| candles.years_before(bar)), [0.0, 1.0 / 365.0, 3.0 / 365.0, 0.0]);
    }
}
