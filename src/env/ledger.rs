//! Reference implementation of the market's accounting in plain `f64`; the GPU kernel is tested against it.
//!
//! One account holds N instruments. A decision is made after the close of bar t, fills at the open of
//! bar t+1 and is marked at the close of t+1:
//!
//! ```text
//! gap_i    = q_i (open'_i - close_i)                         the gap belongs to the old position
//! E_open   = E + sum gap_i
//! q'_i     = target_i max(E_open, 0) / N / open'_i           if target_i != level_i, else q_i
//! f_i      = open'_i (1 + sign(q'_i - q_i) slippage)         fill price
//! cost_i   = |q'_i - q_i| (open'_i slippage + f_i commission)
//! E'       = E_open - sum cost_i + sum q'_i (close'_i - open'_i)
//! ```
//!
//! An unchanged target holds the position: no rebalancing, no costs. Every instrument is sized with the
//! same `E_open`, so the order of the instruments does not matter. At a filled bar nothing trades: the level stays
//! what it was, and the target that stands when the instrument has a bar again fills at the open of that bar. Negative targets are short positions;
//! borrowing is free of interest in both directions.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Lower bound on the equity ratio of a log return: a larger loss counts as `ln(1e-6)`.
pub const MIN_RATIO: f64 = 1e-6;

/// Trading costs in basis points (1e-4) of the traded value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Costs {
    /// Commission on the value at the fill price.
    pub commission_bps: f64,
    /// Slippage: distance between the fill price and the open, always against the trader.
    pub slippage_bps: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Self { commission_bps: 5.0, slippage_bps: 2.0 }
    }
}

impl Costs {
    /// Commission as a fraction of the value at the fill price.
    pub fn commission_rate(&self) -> f64 {
        self.commission_bps * 1e-4
    }

    /// Slippage as a fraction of the open.
    pub fn slippage_rate(&self) -> f64 {
        self.slippage_bps * 1e-4
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Config`] unless both are in `[0, 10000)` basis points; at 10000 a sale would pay nothing.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in [("commission_bps", self.commission_bps), ("slippage_bps", self.slippage_bps)] {
            if !(0.0..10_000.0).contains(&value) {
                return Err(Error::config(key, format!("{value} is not in [0, 10000) basis points")));
            }
        }
        Ok(())
    }
}

/// The bar after a decision: prices per instrument.
#[derive(Debug, Clone, Copy)]
pub struct NextBar<'a> {
    last_close: &'a [f64],
    open: &'a [f64],
    close: &'a [f64],
    filled: Option<&'a [bool]>,
}

impl<'a> NextBar<'a> {
    /// A bar with the close before it, at which the decision was made, the open, at which it fills, and the close, at which the
    /// account is marked to market.
    pub fn new(last_close: &'a [f64], open: &'a [f64], close: &'a [f64]) -> Self {
        Self { last_close, open, close, filled: None }
    }

    /// Instruments that have no bar of their own: the gap policy filled it ([`crate::market::Candles::filled`]).
    #[must_use]
    pub fn filled(self, filled: &'a [bool]) -> Self {
        Self { filled: Some(filled), ..self }
    }

    fn is_filled(&self, instrument: usize) -> bool {
        self.filled.is_some_and(|filled| filled.get(instrument) == Some(&true))
    }
}

/// A filled order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trade {
    /// Index of the instrument.
    pub instrument: usize,
    /// Units bought (positive) or sold (negative).
    pub quantity: f64,
    /// Open of the bar at which the order filled.
    pub open: f64,
    /// Fill price: the open, moved against the trader by the slippage.
    pub price: f64,
    /// Commission paid, in account currency.
    pub commission: f64,
    /// Cost of the slippage, in account currency.
    pub slippage: f64,
    /// Target level before the fill.
    pub level_before: f64,
    /// Target level after the fill.
    pub level_after: f64,
}

/// Change of the account over one bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `ln(E'/E)`, with the ratio clamped to at least [`MIN_RATIO`]; 0 once bankrupt.
    pub log_return: f64,
    /// Per instrument `ln(1 + N (pnl_i - cost_i) / E)`, with the argument clamped to at least [`MIN_RATIO`]: the
    /// instrument's return on its N-th of the account.
    pub own_log_return: Vec<f64>,
    /// Orders filled at this bar's open, ordered by instrument.
    pub trades: Vec<Trade>,
    /// Whether the account is closed, by this bar or an earlier one.
    pub bankrupt: bool,
}

/// One account that holds N instruments.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    costs: Costs,
    floor: f64,
    equity: f64,
    quantity: Vec<f64>,
    level: Vec<f64>,
    bankrupt: bool,
}

impl Ledger {
    /// Opens an account without positions. It closes for good once equity falls to `bankruptcy_level * starting_equity`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no instrument, `starting_equity` is not positive,
    /// `bankruptcy_level` is not in `[0, 1)`, or the costs are out of range.
    pub fn new(
        instruments: usize,
        starting_equity: f64,
        bankruptcy_level: f64,
        costs: Costs,
    ) -> Result<Self> {
        costs.validate()?;
        if instruments == 0 {
            return Err(Error::config("instruments", "an account needs at least one instrument"));
        }
        if !(starting_equity.is_finite() && starting_equity > 0.0) {
            return Err(Error::config(
                "starting_equity",
                format!("{starting_equity} is not a positive amount"),
            ));
        }
        if !(0.0..1.0).contains(&bankruptcy_level) {
            let reason = format!("{bankruptcy_level} is not a fraction of the starting equity in [0, 1)");
            return Err(Error::config("bankruptcy_level", reason));
        }
        Ok(Self {
            costs,
            floor: bankruptcy_level * starting_equity,
            equity: starting_equity,
            quantity: vec![0.0; instruments],
            level: vec![0.0; instruments],
            bankrupt: false,
        })
    }

    /// Account value at the last close, in account currency. Negative if losses exceed the account.
    pub fn equity(&self) -> f64 {
        self.equity
    }

    /// Signed units held, per instrument.
    pub fn quantity(&self) -> &[f64] {
        &self.quantity
    }

    /// Current target level, per instrument.
    pub fn level(&self) -> &[f64] {
        &self.level
    }

    /// Whether the account is closed for good.
    pub fn bankrupt(&self) -> bool {
        self.bankrupt
    }

    /// Advances by one bar. `targets` are per instrument and are levels (1 = an N-th of the equity long, -1 short).
    /// A bankrupt account no longer changes. On an error the account is unchanged.
    ///
    /// # Errors
    /// [`Error::Shape`] for a slice of the wrong length, [`Error::Data`] for a price that is not positive
    /// or a target that is not finite.
    pub fn step(&mut self, targets: &[f64], bar: &NextBar<'_>) -> Result<Step> {
        self.check(targets, bar)?;
        let count = self.quantity.len();
        let mut step = Step {
            log_return: 0.0,
            own_log_return: vec![0.0; count],
            trades: Vec::new(),
            bankrupt: self.bankrupt,
        };
        if self.bankrupt {
            return Ok(step);
        }

        let before = self.equity;
        let gaps: Vec<f64> = self
            .quantity
            .iter()
            .zip(bar.open)
            .zip(bar.last_close)
            .map(|((q, open), close)| q * (open - close))
            .collect();
        let at_open = before + gaps.iter().sum::<f64>();
        let stake = at_open.max(0.0) / count as f64;

        let mut after = at_open;
        let prices = bar.open.iter().zip(bar.close);
        let holdings = self.quantity.iter_mut().zip(&mut self.level);
        let outcomes = gaps.iter().zip(&mut step.own_log_return);
        for (instrument, (((&target, (&open, &close)), (quantity, level)), (gap, own))) in
            targets.iter().zip(prices).zip(holdings).zip(outcomes).enumerate()
        {
            let mut cost = 0.0;
            if target != *level && !bar.is_filled(instrument) {
                let wanted = target * stake / open;
                let trade = fill(self.costs, instrument, wanted - *quantity, open, (*level, target));
                cost = trade.commission + trade.slippage;
                step.trades.push(trade);
                *quantity = wanted;
                *level = target;
            }
            let held = *quantity * (close - open);
            after += held - cost;
            *own = (1.0 + count as f64 * (gap + held - cost) / before).max(MIN_RATIO).ln();
        }

        step.log_return = (after / before).max(MIN_RATIO).ln();
        self.equity = after;
        if after <= self.floor {
            self.bankrupt = true;
            self.quantity.fill(0.0);
            self.level.fill(0.0);
        }
        step.bankrupt = self.bankrupt;
        Ok(step)
    }

    fn check(&self, targets: &[f64], bar: &NextBar<'_>) -> Result<()> {
        let count = self.quantity.len();
        let prices = [("last_close", bar.last_close), ("open", bar.open), ("close", bar.close)];
        if let Some(filled) = bar.filled.filter(|filled| filled.len() != count) {
            return Err(Error::shape("filled", format!("{count} instruments"), filled.len()));
        }
        for (what, slice) in prices.into_iter().chain([("targets", targets)]) {
            if slice.len() != count {
                return Err(Error::shape(what, format!("{count} instruments"), slice.len()));
            }
        }
        for (what, slice) in prices {
            if let Some((i, price)) = slice.iter().enumerate().find(|(_, p)| !(p.is_finite() && **p > 0.0)) {
                return Err(Error::Data(format!(
                    "{what} of instrument {i} is {price}, not a positive price"
                )));
            }
        }
        match targets.iter().enumerate().find(|(_, t)| !t.is_finite()) {
            Some((i, target)) => {
                Err(Error::Data(format!("target of instrument {i} is {target}, not finite")))
            }
            None => Ok(()),
        }
    }
}

fn fill(costs: Costs, instrument: usize, quantity: f64, open: f64, levels: (f64, f64)) -> Trade {
    // `signum` of 0.0 is 1.0 in Rust; an empty order must not move the price.
    let side = if quantity == 0.0 { 0.0 } else { quantity.signum() };
    let price = open * (1.0 + side * costs.slippage_rate());
    Trade {
        instrument,
        quantity,
        open,
        price,
        commission: quantity.abs() * price * costs.commission_rate(),
        slippage: quantity.abs() * open * costs.slippage_rate(),
        level_before: levels.0,
        level_after: levels.1,
    }
}

#[cfg(test)]
mod tests;
