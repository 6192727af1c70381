//! Costs of an account: of orders, and of positions over time.

use serde::{Deserialize, Serialize};

use crate::ranges::{check as range, number};
use crate::{Error, Result};

/// Largest amount: that of an account. Beyond f32 the device would calculate with infinity.
const MOST: f64 = 1e15;

/// Costs of an account. Basis points are 1e-4 of the traded value, amounts are in account currency, rates are fractions a year (0.03:
/// 3 %) and accrue by the time that passes between two bars.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Costs {
    /// Commission on the value at the fill price, in basis points.
    pub commission_bps: f64,
    /// Slippage in basis points: distance between the fill price and the open, always against the trader.
    pub slippage_bps: f64,
    /// Commission per unit traded, in addition to `commission_bps`.
    pub commission_per_unit: f64,
    /// Least commission of an order.
    pub min_commission: f64,
    /// Spread between bid and ask in basis points, `[instrument]`: a fill is half of it away from the open, in addition to the
    /// slippage. Empty: no spread.
    pub spread_bps: Vec<f64>,
    /// Rate a year paid on the value of short positions.
    pub borrow_rate: f64,
    /// Rate a year earned on cash: the equity less the long positions. The proceeds of short sales are collateral and earn nothing.
    pub cash_rate: f64,
    /// Rate a year paid on borrowed cash: long positions beyond the equity.
    pub margin_rate: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Self { commission_bps: 5.0, slippage_bps: 2.0, ..Self::NONE }
    }
}

impl Costs {
    /// An account without costs.
    pub const NONE: Self = Self {
        commission_bps: 0.0,
        slippage_bps: 0.0,
        commission_per_unit: 0.0,
        min_commission: 0.0,
        spread_bps: Vec::new(),
        borrow_rate: 0.0,
        cash_rate: 0.0,
        margin_rate: 0.0,
    };

    /// Commission as a fraction of the value at the fill price.
    pub fn commission_rate(&self) -> f64 {
        self.commission_bps * 1e-4
    }

    /// Distance between the fill price and the open of an instrument as a fraction of the open: the slippage and half the spread.
    pub fn slippage_rate(&self, instrument: usize) -> f64 {
        let spread = self.spread_bps.get(instrument).copied().unwrap_or(0.0);
        (self.slippage_bps + 0.5 * spread) * 1e-4
    }

    /// Commission of an order for `quantity` units at `price`; 0 for an empty order.
    pub fn commission(&self, quantity: f64, price: f64) -> f64 {
        if quantity == 0.0 {
            return 0.0;
        }
        let value = quantity.abs() * price * self.commission_rate();
        (value + quantity.abs() * self.commission_per_unit).max(self.min_commission)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Config`] that names the setting and its range. Basis points are in `[0, 10000)`: at 10000 a sale would pay nothing.
    pub fn validate(&self) -> Result<()> {
        let spreads = self.spread_bps.iter().map(|spread| ("spread_bps", *spread));
        let points = [("commission_bps", self.commission_bps), ("slippage_bps", self.slippage_bps)];
        for (key, value) in points.into_iter().chain(spreads) {
            if !(0.0..10_000.0).contains(&value) {
                return Err(Error::config(
                    key,
                    format!("{} is not in [0, 10000) basis points", number(value)),
                ));
            }
        }
        if let Some(spread) =
            self.spread_bps.iter().find(|spread| self.slippage_bps + 0.5 * **spread >= 10_000.0)
        {
            let reason =
                format!("half of {spread} and `slippage_bps` have to stay below 10000 basis points together");
            return Err(Error::config("spread_bps", reason));
        }
        for (key, value) in
            [("commission_per_unit", self.commission_per_unit), ("min_commission", self.min_commission)]
        {
            range(key, value, 0.0, MOST)?;
        }
        // Cash may cost interest; loans pay none.
        let rates = [("borrow_rate", self.borrow_rate, 0.0), ("margin_rate", self.margin_rate, 0.0)];
        for (key, value, least) in rates.into_iter().chain([("cash_rate", self.cash_rate, -1.0)]) {
            if !(least..=10.0).contains(&value) {
                let reason = format!(
                    "{} is out of range: from {least} to 10 a year, where 0.03 is 3 %",
                    number(value)
                );
                return Err(Error::config(key, reason));
            }
        }
        Ok(())
    }

    /// Whether positions cost or earn anything over time.
    pub fn accrues(&self) -> bool {
        self.borrow_rate != 0.0 || self.cash_rate != 0.0 || self.margin_rate != 0.0
    }
}

/// Interest, borrow fees and funding of positions and cash, in account currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Financing {
    /// Paid for borrowed instruments (short positions).
    pub borrow: f64,
    /// Earned on cash, less what was paid on borrowed cash.
    pub interest: f64,
    /// Paid as funding of perpetual contracts, less what was received.
    pub funding: f64,
}

impl Financing {
    /// Change of the equity.
    pub fn total(&self) -> f64 {
        self.interest - self.borrow - self.funding
    }
}

impl std::ops::AddAssign for Financing {
    fn add_assign(&mut self, other: Self) {
        self.borrow += other.borrow;
        self.interest += other.interest;
        self.funding += other.funding;
    }
}
