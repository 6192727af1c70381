//! Drawdowns as periods: peak, trough and recovery.

use jiff::civil::DateTime;

use super::super::metrics::drawdown;

/// A drawdown: consecutive bars at which the equity is below an earlier maximum.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct DrawdownPeriod {
    /// Time of the close with the maximum, the last before the equity fell.
    pub peak: DateTime,
    /// Time of the lowest close, the first of equal ones.
    pub trough: DateTime,
    /// Time of the first close at or above the maximum. `None` if the account did not recover.
    pub recovered: Option<DateTime>,
    /// Equity at the trough / equity at the peak - 1: negative.
    pub depth: f64,
    /// Number of bars below the maximum, up to the last bar of the account if it did not recover.
    pub bars: usize,
}

/// The deepest `count` drawdowns, deepest first, earlier ones first among equals.
pub(super) fn worst(timestamps: &[DateTime], equity: &[f64], count: usize) -> Vec<DrawdownPeriod> {
    let depths = drawdown(equity);
    let mut periods = Vec::new();
    let mut next = 0;
    for run in depths.chunk_by(|a, b| (*a < 0.0) == (*b < 0.0)) {
        let start = next;
        next += run.len();
        let lowest = run.iter().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
        let Some((offset, depth)) = lowest.filter(|(_, depth)| **depth < 0.0) else { continue };
        let date = |bar: usize| timestamps.get(bar).copied();
        // A drawdown begins after a maximum: never at the first bar.
        if let Some((peak, trough)) = start.checked_sub(1).and_then(date).zip(date(start + offset)) {
            periods.push(DrawdownPeriod {
                peak,
                trough,
                recovered: date(next),
                depth: *depth,
                bars: run.len(),
            });
        }
    }
    periods.sort_by(|a, b| a.depth.total_cmp(&b.depth));
    periods.truncate(count);
    periods
}
