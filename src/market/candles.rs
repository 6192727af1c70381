//! Candles of several instruments on one time axis.

use super::rules::{Bar, PriceRange, check};
use super::symbols::check_symbol;
use super::timestamp::show;
use crate::text::shown;
use crate::{Error, Result};
use jiff::civil::DateTime;
use ndarray::{Array2, s};
use std::ops::Range;

/// Open, high, low, close and volume of N instruments at the same B timestamps.
///
/// [`Candles::load`] reads them from files, [`Candles::new`] takes them from memory. Both check every bar, and both move
/// an open or a close that is outside the bar's range by rounding only (up to about 4 units in the last place) to the nearest bound. Code
/// that writes to the public fields must preserve these invariants:
///
/// * prices are between 1e-15 and 1e15, `low <= open <= high` and `low <= close <= high`;
/// * the highest price of an instrument is at most 1e12 times its lowest one;
/// * volume is at least 0 and at most 1e20, and the highest price of a bar times its volume at most 1e33;
/// * a filled bar repeats the previous close as open, high, low and close, with volume 0 and funding 0;
/// * funding is strictly between -1 and 1;
/// * timestamps increase strictly, symbols are unique, at most 255 bytes long and without control characters, N and B are at least 1.
#[derive(Clone, Debug)]
pub struct Candles {
    /// Symbols of the instruments, `[N]`: sorted by [`Candles::load`], in the given order by [`Candles::new`].
    pub symbols: Vec<String>,
    /// Timestamps of the bars, `[B]`, strictly increasing. Times that were written with an offset are in UTC, except those
    /// of daily bars, see [`Candles::load_with`].
    pub timestamps: Vec<DateTime>,
    /// First price of the bar, `[N][B]`.
    pub open: Array2<f64>,
    /// Highest price of the bar, `[N][B]`.
    pub high: Array2<f64>,
    /// Lowest price of the bar, `[N][B]`.
    pub low: Array2<f64>,
    /// Last price of the bar, `[N][B]`.
    pub close: Array2<f64>,
    /// Units traded during the bar, `[N][B]`; `None` if the source has no volume.
    pub volume: Option<Array2<f64>>,
    /// Bars that [`GapPolicy::ForwardFill`](super::GapPolicy::ForwardFill) made up, `[N][B]`: the instrument did not trade, so
    /// no order fills at them and indicators skip them. `None` if every bar is real.
    pub filled: Option<Array2<bool>>,
    /// Funding rates of perpetual contracts, `[N][B]`: the sum of the rates that fall due during the bar, as a fraction of the
    /// position's value at the open. Long positions pay a positive rate, short ones receive it. Set by [`Candles::with_funding`], or
    /// read from a column of candle files. `None` if the source has none.
    pub funding: Option<Array2<f64>>,
    /// Bars of the source that the gap policy left out, `[N]`; empty if it was not asked.
    pub dropped: Vec<usize>,
}

impl Candles {
    /// Builds candles from memory; all arrays are `[instrument][bar]`.
    ///
    /// ```
    /// use ndarray::array;
    /// use phalanx::market::{Candles, parse_timestamp};
    ///
    /// let days = vec![parse_timestamp("2020-01-02")?, parse_timestamp("2020-01-03")?];
    /// let (open, close) = (array![[10.0, 11.0]], array![[11.0, 10.5]]);
    /// let (high, low) = (array![[11.5, 11.0]], array![[9.5, 10.0]]);
    /// let candles = Candles::new(vec!["AAPL".into()], days, open, high, low, close, None)?;
    /// assert_eq!((candles.instruments(), candles.bars()), (1, 2));
    /// # Ok::<(), phalanx::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if an array is not `[symbols.len()][timestamps.len()]` or one of these lengths is 0;
    /// [`Error::Data`], naming symbol and date, if a symbol is blank, invisible in part, or repeated, timestamps do not
    /// increase, or a bar violates an invariant of [`Candles`].
    pub fn new(
        symbols: Vec<String>,
        timestamps: Vec<DateTime>,
        open: Array2<f64>,
        high: Array2<f64>,
        low: Array2<f64>,
        close: Array2<f64>,
        volume: Option<Array2<f64>>,
    ) -> Result<Self> {
        let mut candles = Self {
            symbols,
            timestamps,
            open,
            high,
            low,
            close,
            volume,
            filled: None,
            funding: None,
            dropped: Vec::new(),
        };
        candles.check_shapes()?;
        candles.check_axes()?;
        candles.check_bars()?;
        Ok(candles)
    }

    /// Number of instruments, N.
    pub fn instruments(&self) -> usize {
        self.symbols.len()
    }

    /// Number of bars, B.
    pub fn bars(&self) -> usize {
        self.timestamps.len()
    }

    /// A copy of the bars in `range`, all instruments.
    ///
    /// # Errors
    /// [`Error::Data`] if the range is empty or ends after the last bar; [`Error::Shape`] if the public fields were
    /// changed to different sizes.
    pub fn slice(&self, range: Range<usize>) -> Result<Self> {
        let bars = self.bars();
        if range.is_empty() || range.end > bars {
            return Err(Error::Data(format!(
                "bars {}..{} are out of range: give at least one bar, and end at {bars} or before",
                range.start, range.end
            )));
        }
        self.check_shapes()?;
        let cut = |array: &Array2<f64>| array.slice(s![.., range.clone()]).to_owned();
        Ok(Self {
            symbols: self.symbols.clone(),
            timestamps: self.timestamps.get(range.clone()).unwrap_or_default().to_vec(),
            open: cut(&self.open),
            high: cut(&self.high),
            low: cut(&self.low),
            close: cut(&self.close),
            volume: self.volume.as_ref().map(cut),
            filled: self.filled.as_ref().map(|filled| filled.slice(s![.., range.clone()]).to_owned()),
            funding: self.funding.as_ref().map(cut),
            dropped: self.dropped.clone(),
        }
        .without_empty_mask())
    }

    /// Checksum of symbols, times, prices, volumes, filled bars and funding of `bars`, of those that there are.
    #[must_use]
    pub fn checksum(&self, bars: Range<usize>) -> String {
        let mut crc = crc32fast::Hasher::new();
        crc.update(self.symbols.join("\0").as_bytes());
        for timestamp in self.timestamps.iter().take(bars.end).skip(bars.start) {
            crc.update(timestamp.to_string().as_bytes());
        }
        let prices = [&self.open, &self.high, &self.low, &self.close].into_iter();
        for values in prices.chain(&self.volume).chain(&self.funding) {
            for row in values.outer_iter() {
                let row = row.iter().take(bars.end).skip(bars.start);
                row.for_each(|value| crc.update(&value.to_le_bytes()));
            }
        }
        for row in self.filled.iter().flat_map(|filled| filled.outer_iter()) {
            let row = row.iter().take(bars.end).skip(bars.start);
            row.for_each(|filled| crc.update(&[u8::from(*filled)]));
        }
        format!("{:08x}", crc.finalize())
    }

    /// Index of the first bar at or after `timestamp`; [`Candles::bars`] if all bars are earlier.
    pub fn index_at_or_after(&self, timestamp: DateTime) -> usize {
        self.timestamps.partition_point(|bar| *bar < timestamp)
    }

    pub(super) fn check_shapes(&self) -> Result<()> {
        if self.symbols.is_empty() || self.timestamps.is_empty() {
            let got = format!("{} instruments and {} bars", self.instruments(), self.bars());
            return Err(Error::shape("candles", "at least 1 instrument and 1 bar", got));
        }
        let expected = (self.instruments(), self.bars());
        let prices = [("open", &self.open), ("high", &self.high), ("low", &self.low), ("close", &self.close)];
        let volume = self.volume.as_ref().map(|volume| ("volume", volume));
        let funding = self.funding.as_ref().map(|funding| ("funding", funding));
        let arrays = prices.into_iter().chain(volume).chain(funding);
        let text = |(rows, columns)| format!("{rows} instruments x {columns} bars");
        for (name, array) in arrays {
            if array.dim() != expected {
                return Err(Error::shape(format!("candles.{name}"), text(expected), text(array.dim())));
            }
        }
        if let Some(filled) = self.filled.as_ref().filter(|filled| filled.dim() != expected) {
            return Err(Error::shape("candles.filled", text(expected), text(filled.dim())));
        }
        Ok(())
    }

    fn check_axes(&self) -> Result<()> {
        for (index, symbol) in self.symbols.iter().enumerate() {
            if symbol.trim().is_empty() {
                return Err(Error::Data(format!("instrument {index} has a blank symbol; give it a name")));
            }
            check_symbol(symbol, "remove it")
                .map_err(|reason| Error::Data(format!("instrument {index}: {reason}")))?;
        }
        let mut sorted: Vec<&str> = self.symbols.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        for (left, right) in sorted.iter().zip(sorted.iter().skip(1)) {
            if left == right {
                return Err(Error::Data(format!(
                    "two instruments have the symbol `{}`; symbols have to be unique",
                    shown(left)
                )));
            }
        }
        for (left, right) in self.timestamps.iter().zip(self.timestamps.iter().skip(1)) {
            if left >= right {
                return Err(Error::Data(format!(
                    "bar {} comes after bar {}; timestamps have to increase strictly",
                    show(*right),
                    show(*left)
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn check_bars(&mut self) -> Result<()> {
        for (instrument, symbol) in self.symbols.iter().enumerate() {
            let prices = self.open.row_mut(instrument);
            let highs = self.high.row(instrument);
            let lows = self.low.row(instrument);
            let closes = self.close.row_mut(instrument);
            let mut volumes = self.volume.as_ref().map(|volume| volume.row(instrument).into_iter());
            let mut range = PriceRange::default();
            let bars = prices.into_iter().zip(highs).zip(lows).zip(closes).zip(&self.timestamps);
            for ((((open, high), low), close), timestamp) in bars {
                let volume = volumes.as_mut().and_then(Iterator::next).copied().unwrap_or(0.0);
                let mut bar =
                    Bar { timestamp: *timestamp, offset: None, values: [*open, *high, *low, *close, volume] };
                check(symbol, &mut bar).map_err(|(_, reason)| Error::Data(reason))?;
                range = range.with(&bar).map_err(|(_, reason)| {
                    Error::Data(format!("{} {}: {reason}", shown(symbol), show(*timestamp)))
                })?;
                [*open, _, _, *close, _] = bar.values;
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

    /// Rebuilds the candles after `change`.
    fn rebuilt(change: impl FnOnce(&mut Candles)) -> String {
        let mut it = two_by_three();
        change(&mut it);
        Candles::new(it.symbols, it.timestamps, it.open, it.high, it.low, it.close, it.volume)
            .map_or_else(|error| error.to_string(), |_| "accepted".into())
    }

    #[test]
    fn order_of_instruments_is_kept() {
        let candles = two_by_three();
        assert_eq!((candles.instruments(), candles.bars()), (2, 3));
        assert_eq!(candles.symbols, ["B", "A"]);
        assert_eq!(rebuilt(|_| ()), "accepted");
        assert_eq!(rebuilt(|candles| candles.volume = None), "accepted");
    }

    #[test]
    fn shapes_are_checked() {
        assert_eq!(
            rebuilt(|candles| candles.low = Array2::ones((3, 2))),
            "candles.low: expected 2 instruments x 3 bars, got 3 instruments x 2 bars"
        );
        assert_eq!(
            rebuilt(|candles| candles.volume = Some(Array2::ones((2, 2)))),
            "candles.volume: expected 2 instruments x 3 bars, got 2 instruments x 2 bars"
        );
        assert_eq!(
            rebuilt(|candles| candles.symbols.clear()),
            "candles: expected at least 1 instrument and 1 bar, got 0 instruments and 3 bars"
        );
    }

    #[test]
    fn axes_are_checked() {
        assert_eq!(
            rebuilt(|candles| candles.symbols[1] = "B".into()),
            "two instruments have the symbol `B`; symbols have to be unique"
        );
        assert_eq!(
            rebuilt(|candles| candles.symbols[1] = " ".into()),
            "instrument 1 has a blank symbol; give it a name"
        );
        assert_eq!(
            rebuilt(|candles| candles.timestamps.swap(1, 2)),
            "bar 2020-01-03 comes after bar 2020-01-06; timestamps have to increase strictly"
        );
        assert_eq!(
            rebuilt(|candles| candles.timestamps[1] = candles.timestamps[0]),
            "bar 2020-01-02 comes after bar 2020-01-02; timestamps have to increase strictly"
        );
    }

    #[test]
    fn bars_are_checked_with_symbol_and_date() {
        assert_eq!(
            rebuilt(|candles| candles.close[[1, 2]] = 50.0),
            "A 2020-01-06: close 50 is outside the bar's range, low 15 to high 45"
        );
        assert_eq!(
            rebuilt(|candles| {
                if let Some(volume) = &mut candles.volume {
                    volume[[0, 1]] = -3.0;
                }
            }),
            "B 2020-01-03: volume is -3; a volume has to be finite and not negative"
        );
    }

    #[test]
    fn slices_keep_the_instruments() {
        let candles = two_by_three();
        let part = candles.slice(1..3).expect("in range");
        assert_eq!(part.symbols, candles.symbols);
        assert_eq!(part.timestamps, candles.timestamps[1..]);
        assert_eq!(part.close, array![[2.0, 3.0], [20.0, 30.0]]);
        assert_eq!(part.volume, Some(Array2::zeros((2, 2))));
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "such a range is an input like any other")]
    fn slices_out_of_range_are_refused() {
        let candles = two_by_three();
        for (range, text) in [(1..1, "1..1"), (2..1, "2..1"), (1..4, "1..4")] {
            let error = candles.slice(range).map(|_| ()).map_err(|error| error.to_string());
            let expected =
                format!("bars {text} are out of range: give at least one bar, and end at 3 or before");
            assert_eq!(error, Err(expected));
        }
        let mut broken = candles;
        broken.high = Array2::ones((1, 1));
        assert!(matches!(broken.slice(0..2), Err(Error::Shape { .. })));
    }

    #[test]
    fn first_bar_at_or_after() {
        let candles = two_by_three();
        let index = |day| candles.index_at_or_after(date(2020, 1, day).at(0, 0, 0, 0));
        assert_eq!([1, 2, 3, 4, 6, 7].map(index), [0, 0, 1, 2, 2, 3]);
    }
}
