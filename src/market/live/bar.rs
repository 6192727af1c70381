//! A bar of one instrument, and its rules.

use jiff::civil::DateTime;

use super::super::Candles;
use super::super::rules::{Bar, PriceRange, check};
use crate::text::shown;
use crate::{Error, Result};

/// One bar of one instrument that has closed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveBar {
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
    /// Units traded; 0 if unknown.
    pub volume: f64,
    /// Funding rates that fell due during the bar ([`Candles::funding`]); 0 if there are none.
    pub funding: f64,
}

impl LiveBar {
    /// Checks the bar by itself, as bars of candle files are checked.
    ///
    /// # Errors
    /// [`Error::Data`] with symbol, time, field and reason.
    pub fn validate(mut self, symbol: &str, timestamp: DateTime) -> Result<()> {
        self.check(symbol, timestamp, PriceRange::default()).map(|_| ())
    }

    /// Checks the bar as bars of candle files are checked, and moves prices that are out of its range by rounding. Returns the range of
    /// the instrument's prices with it.
    pub(super) fn check(
        &mut self,
        symbol: &str,
        timestamp: DateTime,
        prices: PriceRange,
    ) -> Result<PriceRange> {
        let values = [self.open, self.high, self.low, self.close, self.volume];
        let mut bar = Bar { timestamp, offset: None, values };
        check(symbol, &mut bar).map_err(|(_, reason)| Error::Data(reason))?;
        let prices =
            prices.with(&bar).map_err(|(_, reason)| Error::Data(format!("{}: {reason}", shown(symbol))))?;
        if !(-1.0 < self.funding && self.funding < 1.0) {
            let reason = format!(
                "{}: funding is {}, expected a fraction between -1 and 1",
                shown(symbol),
                self.funding
            );
            return Err(Error::Data(reason));
        }
        [self.open, self.high, self.low, self.close, self.volume] = bar.values;
        Ok(prices)
    }
}

impl Candles {
    /// The bars of all instruments, `None` for those that were filled.
    #[must_use]
    pub fn live_bars(&self, bar: usize) -> Vec<Option<LiveBar>> {
        (0..self.instruments()).map(|instrument| self.live_bar(instrument, bar)).collect()
    }

    /// A bar of an instrument, unless it was filled.
    #[must_use]
    pub fn live_bar(&self, instrument: usize, bar: usize) -> Option<LiveBar> {
        let at = [instrument, bar];
        if self.filled.as_ref().is_some_and(|filled| filled[at]) {
            return None;
        }
        Some(LiveBar {
            open: self.open[at],
            high: self.high[at],
            low: self.low[at],
            close: self.close[at],
            volume: self.volume.as_ref().map_or(0.0, |volume| volume[at]),
            funding: self.funding.as_ref().map_or(0.0, |funding| funding[at]),
        })
    }
}
