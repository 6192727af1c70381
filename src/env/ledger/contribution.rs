//! One instrument's part in the change of an account.

use super::Financing;

/// One instrument's part in the change of the account over a bar, in account currency.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Contribution {
    /// Signed units held from the open, after a fill, to the close.
    pub units: f64,
    /// Profit from the last close to the open, on the position before a fill: q (open' - close).
    pub gap: f64,
    /// Profit from the open to the close, on the position after a fill: q' (close' - open').
    pub session: f64,
    /// Commission paid.
    pub commission: f64,
    /// Cost of slippage and spread.
    pub slippage: f64,
    /// Borrowing and funding of its position, and interest on its N-th of the equity less its own position.
    pub financing: Financing,
}

impl Contribution {
    /// Change of the equity.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.gap + self.session - self.commission - self.slippage + self.financing.total()
    }
}
