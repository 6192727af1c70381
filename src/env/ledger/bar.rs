//! The bar that follows a decision.

use crate::{Error, Result};

/// The bar after a decision: prices per instrument, and what makes positions cost money over time.
#[derive(Debug, Clone, Copy)]
pub struct NextBar<'a> {
    pub(super) last_close: &'a [f64],
    pub(super) open: &'a [f64],
    pub(super) close: &'a [f64],
    filled: Option<&'a [bool]>,
    funding: Option<&'a [f64]>,
    pub(super) years: f64,
}

impl<'a> NextBar<'a> {
    /// A bar with the close before it, at which the decision was made, the open, at which it fills, and the close, at which the
    /// account is marked to market.
    pub fn new(last_close: &'a [f64], open: &'a [f64], close: &'a [f64]) -> Self {
        Self { last_close, open, close, filled: None, funding: None, years: 0.0 }
    }

    /// Instruments that have no bar of their own: the gap policy filled it (`Candles::filled`).
    #[must_use]
    pub fn filled(self, filled: &'a [bool]) -> Self {
        Self { filled: Some(filled), ..self }
    }

    /// Funding rates that fall due during the bar (`Candles::funding`).
    #[must_use]
    pub fn funding(self, funding: &'a [f64]) -> Self {
        Self { funding: Some(funding), ..self }
    }

    /// Years from the decision to the close of this bar, over which rates a year accrue; 0 by default.
    #[must_use]
    pub fn years(self, years: f64) -> Self {
        Self { years, ..self }
    }

    pub(super) fn is_filled(&self, instrument: usize) -> bool {
        self.filled.is_some_and(|filled| filled.get(instrument) == Some(&true))
    }

    pub(super) fn funding_of(&self, instrument: usize) -> f64 {
        self.funding.and_then(|funding| funding.get(instrument)).copied().unwrap_or(0.0)
    }

    /// # Errors
    /// [`Error::Shape`] for a slice that does not have one element per instrument; [`Error::Data`] for a price that is not positive,
    /// a funding rate that is not finite, or a negative time.
    pub(super) fn check(&self, instruments: usize) -> Result<()> {
        let prices = [("last_close", self.last_close), ("open", self.open), ("close", self.close)];
        let lengths = prices.iter().map(|(what, slice)| (*what, slice.len()));
        let filled = self.filled.map(|filled| ("filled", filled.len()));
        let funding = self.funding.map(|funding| ("funding", funding.len()));
        for (what, length) in lengths.chain(filled).chain(funding) {
            if length != instruments {
                return Err(Error::shape(what, format!("{instruments} instruments"), length));
            }
        }
        for (what, slice) in prices {
            if let Some((i, price)) = slice.iter().enumerate().find(|(_, p)| !(p.is_finite() && **p > 0.0)) {
                return Err(Error::Data(format!(
                    "{what} of instrument {i} is {price}, not a positive price"
                )));
            }
        }
        let rates = self.funding.iter().flat_map(|rates| rates.iter().enumerate());
        if let Some((i, rate)) = rates.clone().find(|(_, rate)| !rate.is_finite()) {
            return Err(Error::Data(format!("funding of instrument {i} is {rate}, not finite")));
        }
        if !(self.years.is_finite() && self.years >= 0.0) {
            return Err(Error::Data(format!(
                "{} years pass in a bar, not a finite time of at least 0",
                self.years
            )));
        }
        Ok(())
    }
}
