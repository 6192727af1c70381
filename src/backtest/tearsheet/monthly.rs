//! Returns by month.

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

/// Returns of a calendar year. A bar, and the return that ends with it, belongs to the month of its timestamp.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct YearReturns {
    /// The year.
    pub year: i16,
    /// Return of every month from January on, compounded over its bars: equity at the last close of the month / equity at the last
    /// close before the month - 1. `None` for a month without a return, and for one that begins with a closed account.
    pub months: [Option<f64>; 12],
    /// Return of the year, compounded over its months. `None` if it begins with a closed account.
    pub total: Option<f64>,
}

/// The months in which the account has returns; `closed` is the bar at which it was closed.
pub(super) fn months(timestamps: &[DateTime], equity: &[f64], closed: Option<usize>) -> Vec<YearReturns> {
    let mut years: Vec<YearReturns> = Vec::new();
    // Bars of the year and of the month at hand begin after these closes.
    let (mut year_from, mut month_from) = (0, 0);
    let date = |bar: usize| timestamps.get(bar).map(|date| (date.year(), date.month()));
    let growth = |from: usize, to: usize| {
        let open = closed.is_none_or(|closed| from < closed);
        let (before, after) =
            equity.get(from).zip(equity.get(to)).filter(|(before, _)| open && **before > 0.0)?;
        Some(after / before - 1.0)
    };
    for bar in 1..equity.len().min(timestamps.len()) {
        let Some((year, month)) = date(bar) else { break };
        let (_, before) = date(bar - 1).unwrap_or_default();
        if years.last().is_none_or(|row| row.year != year) {
            years.push(YearReturns { year, months: [None; 12], total: None });
            (year_from, month_from) = (bar - 1, bar - 1);
        } else if before != month {
            month_from = bar - 1;
        }
        let Some(row) = years.last_mut() else { break };
        row.total = growth(year_from, bar);
        let slot = usize::try_from(month - 1).ok().and_then(|index| row.months.get_mut(index));
        slot.into_iter().for_each(|slot| *slot = growth(month_from, bar));
    }
    years
}
