//! The real bars of candles: those that no gap policy made up.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, CowArray, Ix2};

/// Positions of the real bars of every instrument, from [`Candles::real_bars`](super::Candles::real_bars). A window of bars that
/// contains filled ones is shorter than it seems; a computation over windows therefore runs on [`RealBars::compact`] rows, and its
/// result is carried over filled bars by [`RealBars::expand`].
///
/// ```
/// use ndarray::array;
/// use phalanx::market::{Candles, parse_timestamp};
///
/// let days = ["2020-01-01", "2020-01-02", "2020-01-03"].map(parse_timestamp).into_iter().collect::<Result<_, _>>()?;
/// let prices = array![[10.0, 10.0, 12.0]];
/// let [open, high, low, close] = [0; 4].map(|_| prices.clone());
/// let candles = Candles::new(vec!["AAPL".into()], days, open, high, low, close, None)?;
/// let candles = candles.with_filled(array![[false, true, false]])?;
///
/// let real = candles.real_bars();
/// let mut values = real.compact(candles.close.view()).into_owned();
/// assert_eq!((values[[0, 0]], values[[0, 1]]), (10.0, 12.0));
/// values.mapv_inplace(|value| 2.0 * value);
/// assert_eq!(real.expand(values.view()), array![[20.0, 20.0, 24.0]]);
/// # Ok::<(), phalanx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RealBars {
    /// Filled bars up to and including each bar, `[N][B]`; `None` if all bars are real.
    filled: Option<Array2<u32>>,
}

impl RealBars {
    pub(super) fn new(filled: Option<&Array2<bool>>) -> Self {
        let filled = filled.map(|mask| {
            let mut counts = mask.mapv(u32::from);
            for mut row in counts.rows_mut() {
                let mut sum = 0;
                row.iter_mut().for_each(|count| {
                    sum += *count;
                    *count = sum;
                });
            }
            counts
        });
        Self { filled }
    }

    /// Moves the real bars of every instrument to the front of its row, in order; NaN follows. `values` is `[N][B]`.
    #[must_use]
    pub fn compact<'a>(&self, values: ArrayView2<'a, f64>) -> CowArray<'a, f64, Ix2> {
        let Some(filled) = &self.filled else { return values.into() };
        let mut compact = Array2::from_elem(values.raw_dim(), f64::NAN);
        for ((mut to, from), counts) in compact.rows_mut().into_iter().zip(values.rows()).zip(filled.rows()) {
            let mut before = 0;
            let real = from
                .iter()
                .zip(counts)
                .filter(|(_, count)| **count == std::mem::replace(&mut before, **count));
            to.iter_mut().zip(real).for_each(|(to, (from, _))| *to = *from);
        }
        compact.into()
    }

    /// Gives every bar the value of the instrument's last real bar, from rows as [`RealBars::compact`] returns them; NaN before
    /// the first real bar. `values` is `[N][B]`.
    #[must_use]
    pub fn expand<'a>(&self, values: ArrayView2<'a, f64>) -> CowArray<'a, f64, Ix2> {
        if self.filled.is_none() {
            return values.into();
        }
        let expanded = Array2::from_shape_fn(values.raw_dim(), |(instrument, bar)| {
            let position = self.position(instrument, bar);
            position.and_then(|position| values.get([instrument, position])).copied().unwrap_or(f64::NAN)
        });
        expanded.into()
    }

    /// Position of the instrument's last real bar up to `bar` among its real bars, which [`RealBars::compact`] puts there; `None` before
    /// the first.
    #[must_use]
    pub fn position(&self, instrument: usize, bar: usize) -> Option<usize> {
        bar.checked_sub(self.filled_until(instrument, bar))
    }

    /// Number of filled bars up to and including `bar`.
    pub(super) fn filled_until(&self, instrument: usize, bar: usize) -> usize {
        let count = self.filled.as_ref().and_then(|filled| filled.get([instrument, bar]));
        count.map_or(0, |count| *count as usize)
    }

    /// Whether some bar is filled.
    pub(super) fn any_filled(&self) -> bool {
        self.filled.as_ref().is_some_and(|filled| filled.iter().any(|count| *count > 0))
    }

    /// Whether a bar of `bars` was filled; bars beyond the last do not count.
    pub(super) fn any_filled_in(&self, bars: Range<usize>) -> bool {
        let Some(filled) = &self.filled else { return false };
        let (Some(last), false) = (bars.end.min(filled.ncols()).checked_sub(1), bars.is_empty()) else {
            return false;
        };
        let before = |row: usize| bars.start.checked_sub(1).map_or(0, |bar| filled[[row, bar.min(last)]]);
        (0..filled.nrows()).any(|row| filled[[row, last]] > before(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn rows_are_compacted_and_expanded_instrument_by_instrument() {
        let mask = array![[false, true, true, false, true], [true, false, false, false, false]];
        let real = RealBars::new(Some(&mask));
        let values = array![[1.0, 1.0, 1.0, 4.0, 4.0], [9.0, 2.0, 3.0, 4.0, 5.0]];
        let shown = |values: ArrayView2<f64>| values.mapv(|value| if value.is_nan() { -1.0 } else { value });
        let compact = real.compact(values.view());
        assert_eq!(shown(compact.view()), array![[1.0, 4.0, -1.0, -1.0, -1.0], [2.0, 3.0, 4.0, 5.0, -1.0]]);
        let expanded = real.expand(compact.view());
        assert_eq!(shown(expanded.view()), array![[1.0, 1.0, 1.0, 4.0, 4.0], [-1.0, 2.0, 3.0, 4.0, 5.0]]);
        assert_eq!((real.position(1, 0), real.position(0, 4)), (None, Some(1)));
        assert!(real.any_filled());
    }

    #[test]
    fn without_filled_bars_nothing_is_copied() {
        let values = array![[1.0, 2.0]];
        let real = RealBars::new(None);
        assert!(real.compact(values.view()).is_view() && real.expand(values.view()).is_view());
        assert!(!real.any_filled() && !RealBars::new(Some(&array![[false]])).any_filled());
    }
}
