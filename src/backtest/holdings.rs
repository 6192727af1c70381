//! Positions from the fill that opens them to the fill that closes them: how long they were held, and what they earned.

use serde::{Deserialize, Serialize};

use crate::env::ledger::Contribution;

/// A position in one instrument on one side, from the fill that opens it to the one that closes or reverses it. Fills in between that
/// make it larger or smaller belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Holding {
    /// Index of the instrument.
    pub instrument: usize,
    /// Whether it is long; short otherwise.
    pub long: bool,
    /// Index within the backtest of the bar at whose open it was opened.
    pub opened: usize,
    /// The bar at whose open it was closed or reversed, or at whose close the account went bankrupt. `None` if it was open at the
    /// last close.
    pub closed: Option<usize>,
    /// Number of bars that it was held.
    pub bars: usize,
    /// Profit in account currency less commission, slippage, borrowing and funding; a position that is still open is valued at the last
    /// close. The costs of a fill that reverses it are split by units. Interest on cash belongs to no position.
    pub profit: f64,
}

/// Holding times of positions. Those that are still open count up to the last bar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HoldingTimes {
    /// Number of positions.
    pub count: usize,
    /// Those among them that were open at the last close.
    pub open: usize,
    /// Median number of bars. `None` without a position, as below.
    pub median_bars: Option<f64>,
    /// Mean number of bars.
    pub mean_bars: Option<f64>,
    /// Largest number of bars.
    pub longest_bars: Option<usize>,
    /// Fraction of the positions with a profit above 0 ([`Holding::profit`]).
    pub winners: Option<f64>,
}

impl HoldingTimes {
    /// Measures `holdings`.
    #[must_use]
    pub fn new(holdings: &[Holding]) -> Self {
        let count = holdings.len();
        let mut bars: Vec<usize> = holdings.iter().map(|holding| holding.bars).collect();
        bars.sort_unstable();
        let (below, above) = (bars.get(count.saturating_sub(1) / 2), bars.get(count / 2));
        let share = |sum: f64| (count > 0).then(|| sum / count as f64);
        Self {
            count,
            open: holdings.iter().filter(|holding| holding.closed.is_none()).count(),
            median_bars: below.zip(above).map(|(below, above)| (*below as f64 + *above as f64) / 2.0),
            mean_bars: share(bars.iter().map(|bars| *bars as f64).sum()),
            longest_bars: bars.last().copied(),
            winners: share(holdings.iter().filter(|holding| holding.profit > 0.0).count() as f64),
        }
    }
}

/// Follows the positions of an account from bar to bar.
pub(super) struct Holdings {
    /// Signed units at the last close, `[instrument]`.
    units: Vec<f64>,
    /// Positions that are held, `[instrument]`.
    held: Vec<Option<Holding>>,
    closed: Vec<Holding>,
}

impl Holdings {
    pub(super) fn new(instruments: usize) -> Self {
        Self { units: vec![0.0; instruments], held: vec![None; instruments], closed: Vec::new() }
    }

    /// Goes on by one bar, whose changes are `parts`, `[instrument]`. A bankrupt account closes everything at the close.
    pub(super) fn step(&mut self, bar: usize, parts: &[Contribution], bankrupt: bool) {
        let accounts = self.units.iter_mut().zip(&mut self.held).zip(parts);
        for (instrument, ((units, held), part)) in accounts.enumerate() {
            let (before, after) = (std::mem::replace(units, part.units), part.units);
            let cost = part.commission + part.slippage;
            // Share of the costs that closed a position; a fill that does not reverse it belongs to one position alone.
            let closing = match () {
                () if before * after < 0.0 => before.abs() / (after - before).abs(),
                () if after == 0.0 => 1.0,
                () => 0.0,
            };
            if let Some(holding) = held {
                holding.profit += part.gap - part.financing.borrow - cost * closing;
                if closing > 0.0 {
                    let done = Holding { closed: Some(bar), bars: bar - holding.opened, ..*holding };
                    self.closed.push(done);
                    *held = None;
                }
            }
            if after != 0.0 {
                let (long, opened) = (after > 0.0, bar);
                let new = Holding { instrument, long, opened, closed: None, bars: 0, profit: 0.0 };
                let holding = held.get_or_insert(new);
                holding.profit += part.session - part.financing.funding - cost * (1.0 - closing);
            }
            if bankrupt {
                *units = 0.0;
                let closed =
                    held.take().map(|it| Holding { closed: Some(bar), bars: bar + 1 - it.opened, ..it });
                self.closed.extend(closed);
            }
        }
    }

    /// All positions of an account of `bars` bars, in the order in which they were opened.
    pub(super) fn finish(self, bars: usize) -> Vec<Holding> {
        let open = self.held.into_iter().flatten().map(|it| Holding { bars: bars - it.opened, ..it });
        let mut all = self.closed;
        all.extend(open);
        all.sort_unstable_by_key(|holding| (holding.opened, holding.instrument));
        all
    }
}

#[cfg(test)]
mod tests;
