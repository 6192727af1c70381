//! The parts of an account's profit: instruments, and interest on cash.

use serde::{Deserialize, Serialize};

use super::Backtest;
use crate::env::ledger::Contribution;

/// Sums over all bars of one instrument, in account currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstrumentProfit {
    /// Profit from prices, from the opens at which orders fill: the sum over bars of q (open' - close) before and q' (close' - open')
    /// after a fill.
    pub price: f64,
    /// Commission paid.
    pub commission: f64,
    /// Cost of slippage and spread.
    pub slippage: f64,
    /// Paid for borrowed units (short positions).
    pub borrow: f64,
    /// Paid as funding of perpetual contracts, less what was received.
    pub funding: f64,
}

impl InstrumentProfit {
    /// Profit of the instrument: price - commission - slippage - borrow - funding.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.price - self.commission - self.slippage - self.borrow - self.funding
    }

    pub(super) fn add(&mut self, part: &Contribution) {
        self.price += part.gap + part.session;
        self.commission += part.commission;
        self.slippage += part.slippage;
        self.borrow += part.financing.borrow;
        self.funding += part.financing.funding;
    }
}

/// One instrument's part of the profit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstrumentAttribution {
    /// Symbol of the instrument.
    pub symbol: String,
    /// The sums that it is made of.
    #[serde(flatten)]
    pub parts: InstrumentProfit,
    /// Its profit, [`InstrumentProfit::total`], in account currency.
    pub profit: f64,
    /// Its contribution to the total return: profit / starting equity.
    pub contribution: f64,
}

/// The profit of an account by instrument. The profits of the instruments and the interest add up to the profit of the account, but for
/// rounding errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attribution {
    /// Instruments in the order of the candles.
    pub instruments: Vec<InstrumentAttribution>,
    /// Interest earned on cash, less what was paid on borrowed cash, in account currency: it belongs to no instrument.
    pub interest: f64,
    /// Profit of the account, last less starting equity, in account currency.
    pub profit: f64,
}

impl Attribution {
    pub(super) fn new(backtest: &Backtest) -> Self {
        let start = backtest.starting_equity;
        let row = |(symbol, parts): (&String, &InstrumentProfit)| {
            let profit = parts.total();
            InstrumentAttribution {
                symbol: symbol.clone(),
                parts: *parts,
                profit,
                contribution: profit / start,
            }
        };
        Self {
            instruments: backtest.symbols.iter().zip(&backtest.profits).map(row).collect(),
            interest: backtest.financing.interest,
            profit: backtest.equity.last().map_or(0.0, |last| last - start),
        }
    }
}
