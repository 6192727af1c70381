//! Reference implementation of the market's accounting in plain `f64`; the GPU kernel is tested against it.
//!
//! One account holds N instruments. A decision is made after the close of bar t, fills at the open of
//! bar t+1 and is marked at the close of t+1:
//!
//! ```text
//! gap_i    = q_i (open'_i - close_i)                         the gap belongs to the old position
//! E_open   = E + sum gap_i
//! q'_i     = target_i max(E_open, 0) / N / open'_i           if target_i != level_i, else q_i
//! f_i      = open'_i (1 + sign(q'_i - q_i) slip_i)           fill price; slip_i = slippage + spread_i / 2
//! cost_i   = |q'_i - q_i| open'_i slip_i + max(|q'_i - q_i| (f_i commission + per unit), minimum)
//! C        = E - sum max(q_i, 0) close_i                     cash
//! rate_i   = t r (E / N - max(q_i, 0) close_i)               r = cash rate if C > 0, else margin rate
//!            - t borrow rate max(-q_i, 0) close_i
//!            - funding_i q'_i open'_i
//! E'       = E_open - sum cost_i + sum rate_i + sum q'_i (close'_i - open'_i)
//! ```
//!
//! An unchanged target holds the position: no rebalancing, no costs. Every instrument is sized with the
//! same `E_open`, so the order of the instruments does not matter. At a filled bar nothing trades: the level stays
//! what it was, and the target that stands when the instrument has a bar again fills at the open of that bar.
//! Negative targets are short positions. Rates a year accrue over `t`, the years from the decision to the close after it, on
//! the positions at the decision; funding is charged on the position after the fill. Interest is shared out so that an
//! instrument earns it on its N-th of the equity less its own position.
//!
//! With a leverage limit L, orders that raise the gross exposure `sum |q'_i| open'_i` beyond `L E_open` are cut by one common factor;
//! those that lower it fill in full. The target counts as reached all the same. Positions that outgrow the limit are not
//! closed: the limit is no margin call.

mod bar;
mod contribution;
mod costs;

pub use bar::NextBar;
pub use contribution::Contribution;
pub use costs::{Costs, Financing};

use crate::{Error, Result};

/// Lower bound on the equity ratio of a log return: a larger loss counts as `ln(1e-6)`.
pub const MIN_RATIO: f64 = 1e-6;

/// Largest equity and largest units of an account that a caller reports: their products with prices stay finite.
const MOST_HELD: f64 = 1e30;

/// A cut order that would trade less than this fraction of what was wanted is not placed.
const MIN_FRACTION: f64 = 1e-6;

/// A filled order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trade {
    /// Index of the instrument.
    pub instrument: usize,
    /// Units bought (positive) or sold (negative).
    pub quantity: f64,
    /// Open of the bar at which the order filled.
    pub open: f64,
    /// Fill price: the open, moved against the trader by the slippage and half the spread.
    pub price: f64,
    /// Commission paid, in account currency.
    pub commission: f64,
    /// Cost of slippage and spread, in account currency.
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
    /// Per instrument `ln(1 + N (pnl_i - cost_i + rate_i) / E)`, with the argument clamped to at least [`MIN_RATIO`]: the
    /// instrument's return on its N-th of the account.
    pub own_log_return: Vec<f64>,
    /// Every instrument's part in the change of the equity, `[instrument]`; 0 once bankrupt.
    pub contributions: Vec<Contribution>,
    /// Orders filled at this bar's open, ordered by instrument.
    pub trades: Vec<Trade>,
    /// Interest, borrowing and funding of this bar.
    pub financing: Financing,
    /// Whether the account is closed, by this bar or an earlier one.
    pub bankrupt: bool,
}

/// One account that holds N instruments.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    costs: Costs,
    /// Largest gross exposure that orders may lead to, in units of the equity.
    max_leverage: Option<f64>,
    floor: f64,
    equity: f64,
    quantity: Vec<f64>,
    level: Vec<f64>,
    /// Whether an instrument's position is sized anew although its target has not changed.
    rebalances: Vec<bool>,
    bankrupt: bool,
}

impl Ledger {
    /// Opens an account without positions. It closes for good once equity falls to `bankruptcy_level * starting_equity`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no instrument, `starting_equity` is not positive,
    /// `bankruptcy_level` is not in `[0, 1)`, or the costs are out of range or those of another number of instruments.
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
        if !costs.spread_bps.is_empty() && costs.spread_bps.len() != instruments {
            let reason = format!("{} spreads for {instruments} instruments", costs.spread_bps.len());
            return Err(Error::config("spread_bps", reason));
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
            max_leverage: None,
            floor: bankruptcy_level * starting_equity,
            equity: starting_equity,
            quantity: vec![0.0; instruments],
            level: vec![0.0; instruments],
            rebalances: vec![false; instruments],
            bankrupt: false,
        })
    }

    /// Limits the gross exposure that orders may lead to: `max_leverage` times the equity at the fill.
    ///
    /// # Errors
    /// [`Error::Config`] if the limit is not positive.
    pub fn with_max_leverage(self, max_leverage: Option<f64>) -> Result<Self> {
        match max_leverage {
            Some(limit) if !(limit.is_finite() && limit > 0.0) => Err(Error::config(
                "max_leverage",
                format!("{limit} is not a positive multiple of the equity"),
            )),
            _ => Ok(Self { max_leverage, ..self }),
        }
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

    /// Checks an account as [`Ledger::reconcile`] takes it.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of instruments, [`Error::Data`] for a number that is not finite, or beyond 1e30.
    pub fn check_holdings(&self, equity: f64, units: &[f64]) -> Result<()> {
        if units.len() != self.quantity.len() {
            return Err(Error::shape(
                "units held",
                format!("{} instruments", self.quantity.len()),
                units.len(),
            ));
        }
        match std::iter::once(&equity)
            .chain(units)
            .position(|value| !value.is_finite() || value.abs() > MOST_HELD)
        {
            None => Ok(()),
            Some(0) => Err(Error::Data(format!(
                "the equity of the account is {equity}, expected a finite number up to {MOST_HELD:e}"
            ))),
            Some(at) => {
                let i = at - 1;
                Err(Error::Data(format!(
                    "units of instrument {i} are {}, expected a finite number up to {MOST_HELD:e}",
                    units[i]
                )))
            }
        }
    }

    /// Sets the account to what it really holds: `equity` at the last close, in account currency, and signed `units` per instrument.
    /// A position without units, or on the other side than its level, gets the level of `held`, one per instrument: an order that did
    /// not fill leaves no level behind.
    ///
    /// # Errors
    /// As [`Ledger::check_holdings`].
    pub fn reconcile(&mut self, equity: f64, units: &[f64], held: &[f64]) -> Result<()> {
        self.check_holdings(equity, units)?;
        self.equity = equity;
        self.quantity.copy_from_slice(units);
        for ((level, units), held) in self.level.iter_mut().zip(units).zip(held) {
            if *units * *level <= 0.0 {
                *level = *held;
            }
        }
        self.bankrupt |= equity <= self.floor;
        Ok(())
    }

    /// Starts an account of `equity` instead: the bankruptcy level is a fraction of it.
    #[cfg(feature = "market")]
    pub(crate) fn rebase(&mut self, starting_equity: f64, equity: f64) {
        self.floor *= equity / starting_equity;
    }

    /// Has every position that is held sized anew at the instrument's next fill, also where its target does not change.
    #[cfg(feature = "market")]
    pub(crate) fn rebalance(&mut self) {
        self.rebalances
            .iter_mut()
            .zip(&self.level)
            .for_each(|(rebalances, level)| *rebalances = *level != 0.0);
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
            contributions: Vec::with_capacity(count),
            trades: Vec::new(),
            financing: Financing::default(),
            bankrupt: self.bankrupt,
        };
        if self.bankrupt {
            step.contributions.resize(count, Contribution::default());
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
        let factor = self.affordable(targets, bar, stake);
        let rate = self.interest_rate(bar);

        let mut after = at_open;
        for (instrument, (gap, own)) in gaps.iter().zip(&mut step.own_log_return).enumerate() {
            let (open, close, target) = (bar.open[instrument], bar.close[instrument], targets[instrument]);
            let (held, level) = (self.quantity[instrument], self.level[instrument]);
            let held_value = held * bar.last_close[instrument];
            let mut part = Contribution { gap: *gap, ..Contribution::default() };
            if self.trades(instrument, target, bar) {
                let wanted = sized(target * stake, held, open, factor);
                let trade = fill(&self.costs, instrument, wanted - held, open, (level, target));
                (part.commission, part.slippage) = (trade.commission, trade.slippage);
                if trade.quantity != 0.0 {
                    step.trades.push(trade);
                }
                self.quantity[instrument] = wanted;
                self.level[instrument] = target;
                self.rebalances[instrument] = false;
            }
            let quantity = self.quantity[instrument];
            let financing = Financing {
                borrow: self.costs.borrow_rate * bar.years * (-held_value).max(0.0),
                interest: rate * (before / count as f64 - held_value.max(0.0)),
                funding: bar.funding_of(instrument) * quantity * open,
            };
            step.financing += financing;
            let (earned, cost) = (quantity * (close - open), part.commission + part.slippage);
            step.contributions.push(Contribution { units: quantity, session: earned, financing, ..part });
            after += earned - cost;
            after += financing.total();
            let change = gap + earned - cost + financing.total();
            *own = (1.0 + count as f64 * change / before).max(MIN_RATIO).ln();
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

    /// Whether an order is placed and fills.
    fn trades(&self, instrument: usize, target: f64, bar: &NextBar<'_>) -> bool {
        (target != self.level[instrument] || self.rebalances[instrument]) && !bar.is_filled(instrument)
    }

    /// Factor on the parts of the orders that raise the gross exposure, from the leverage limit.
    fn affordable(&self, targets: &[f64], bar: &NextBar<'_>, stake: f64) -> f64 {
        let Some(limit) = self.max_leverage else { return 1.0 };
        let (mut kept, mut added) = (0.0, 0.0);
        for (instrument, (&target, &quantity)) in targets.iter().zip(&self.quantity).enumerate() {
            let held = quantity * bar.open[instrument];
            let wanted = if self.trades(instrument, target, bar) { target * stake } else { held };
            let part = kept_part(held, wanted);
            kept += part;
            added += wanted.abs() - part;
        }
        let room = limit * stake * targets.len() as f64 - kept;
        // Without an order that raises the exposure there is nothing to cut, even above the limit.
        if added == 0.0 || added <= room {
            return 1.0;
        }
        let factor = room.max(0.0) / added;
        if factor < MIN_FRACTION { 0.0 } else { factor }
    }

    /// Interest on one unit of cash over this bar.
    fn interest_rate(&self, bar: &NextBar<'_>) -> f64 {
        let longs =
            self.quantity.iter().zip(bar.last_close).map(|(quantity, close)| quantity.max(0.0) * close);
        let cash = self.equity - longs.sum::<f64>();
        bar.years * if cash > 0.0 { self.costs.cash_rate } else { self.costs.margin_rate }
    }

    fn check(&self, targets: &[f64], bar: &NextBar<'_>) -> Result<()> {
        let count = self.quantity.len();
        if targets.len() != count {
            return Err(Error::shape("targets", format!("{count} instruments"), targets.len()));
        }
        bar.check(count)?;
        match targets.iter().enumerate().find(|(_, t)| !t.is_finite()) {
            Some((i, target)) => {
                Err(Error::Data(format!("target of instrument {i} is {target}, not finite")))
            }
            None => Ok(()),
        }
    }
}

/// Part of an exposure that an order leaves in place; 0 if it changes sides.
fn kept_part(held: f64, wanted: f64) -> f64 {
    if held * wanted > 0.0 { held.abs().min(wanted.abs()) } else { 0.0 }
}

/// Units to hold for the value `wanted`, of which the part beyond the value held is multiplied by `factor`.
fn sized(wanted: f64, held: f64, open: f64, factor: f64) -> f64 {
    let kept = kept_part(held * open, wanted);
    if factor == 1.0 || wanted.abs() <= kept {
        wanted / open
    } else if kept > 0.0 {
        held + wanted.signum() * factor * (wanted.abs() - kept) / open
    } else {
        factor * wanted / open
    }
}

fn fill(costs: &Costs, instrument: usize, quantity: f64, open: f64, levels: (f64, f64)) -> Trade {
    // `signum` of 0.0 is 1.0 in Rust; an empty order must not move the price.
    let side = if quantity == 0.0 { 0.0 } else { quantity.signum() };
    let slippage = costs.slippage_rate(instrument);
    let price = open * (1.0 + side * slippage);
    Trade {
        instrument,
        quantity,
        open,
        price,
        commission: costs.commission(quantity, price),
        slippage: quantity.abs() * open * slippage,
        level_before: levels.0,
        level_after: levels.1,
    }
}

#[cfg(test)]
mod tests;
