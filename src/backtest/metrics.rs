//! Performance metrics of one account.
//!
//! Definitions follow `empyrical`, with simple returns per bar, a risk-free rate of zero and an explicit
//! number of bars per year; growth per year is counted by the time that passed, not by the number of bars. The win rate
//! follows `quantstats`, the turnover `pyfolio`. Undefined values, such as a ratio with zero deviation, are `None`.

use serde::{Deserialize, Serialize};

use super::periods::PeriodsPerYear;
use crate::{Error, Result};

/// Standard deviations of returns up to this value are rounding errors and count as zero: a return is the quotient of two
/// equities minus one, with an error of a few `f64::EPSILON`.
const ROUNDING: f64 = 1e-14;

/// The history of one account, the input of [`Metrics::new`].
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// Account value at each close in account currency, starting value first, `[bar]`.
    pub equity: &'a [f64],
    /// Gross book at each close: the sum of |units| x close over the instruments, in account currency, `[bar]`.
    pub gross_book: &'a [f64],
    /// Traded value of each bar: the sum of |units| x fill price over its fills, in account currency, `[bar]`.
    pub traded_value: &'a [f64],
    /// Fraction of instruments with an open position at each close, in \[0, 1\], `[bar]`.
    pub invested: &'a [f64],
    /// Years that the account covers: calendar days from the first bar's date to the last bar's, both included, divided
    /// by 365.25.
    pub years: f64,
    /// Number of trades.
    pub trades: usize,
    /// Commission paid, in account currency.
    pub commission: f64,
    /// Cost of slippage, in account currency.
    pub slippage: f64,
}

/// Performance metrics. In the formulas, r are the simple returns of the N bars after the first, E is the equity, P is the
/// number of bars per year, and Y is the number of years that the account covers.
///
/// ```
/// use phalanx::backtest::{Account, Metrics};
///
/// let (equity, none) = ([100.0, 110.0, 99.0], [0.0; 3]);
/// let account = Account {
///     equity: &equity,
///     gross_book: &none,
///     traded_value: &none,
///     invested: &none,
///     years: 3.0 / 365.25,
///     trades: 0,
///     commission: 0.0,
///     slippage: 0.0,
/// };
/// let metrics = Metrics::new(&account, 252.0)?;
/// assert!((metrics.max_drawdown + 0.1).abs() < 1e-12);
/// # Ok::<(), phalanx::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// E_N / E_0 - 1.
    pub total_return: f64,
    /// Compound annual growth rate, (E_N / E_0)^(1/Y) - 1. `None` if the account ended below zero.
    pub cagr: Option<f64>,
    /// Annualised volatility, std(r, ddof 1) sqrt(P). `None` for a single return.
    pub volatility: Option<f64>,
    /// Sharpe ratio, mean(r) / std(r, ddof 1) sqrt(P). `None` if the deviation is zero.
    pub sharpe: Option<f64>,
    /// Sortino ratio, mean(r) / sqrt(sum(min(r, 0)^2) / N) sqrt(P). `None` without a negative return.
    pub sortino: Option<f64>,
    /// Maximum drawdown, min(E / running maximum of E) - 1, starting equity included: 0 or negative.
    pub max_drawdown: f64,
    /// Length in bars of the longest drawdown: the most consecutive bars below an earlier maximum of the equity.
    pub max_drawdown_bars: usize,
    /// Calmar ratio, cagr / |max_drawdown|. `None` without a drawdown.
    pub calmar: Option<f64>,
    /// Fraction of gains among the bars with a nonzero return, #(r > 0) / #(r != 0). `None` if there are none.
    pub win_rate: Option<f64>,
    /// Mean over the N bars of the traded value divided by the mean of the gross books at the previous and the current
    /// close; bars without a book count as 0. `None` if the account never held a position.
    pub turnover: Option<f64>,
    /// Mean fraction of instruments with an open position at the close, over the N bars.
    pub exposure: f64,
    /// Number of trades.
    pub trades: usize,
    /// Commission paid, in account currency.
    pub commission: f64,
    /// Cost of slippage, in account currency.
    pub slippage: f64,
    /// N, the number of returns.
    pub bars: usize,
}

impl Metrics {
    /// Computes all metrics.
    ///
    /// # Errors
    /// [`Error::Data`] for fewer than two bars, a starting equity that is not positive or an equity that is not finite;
    /// [`Error::Shape`] for series of different lengths; [`Error::Config`] if `periods_per_year` or `years` is not positive.
    pub fn new(account: &Account, periods_per_year: f64) -> Result<Self> {
        account.check()?;
        PeriodsPerYear::given(periods_per_year)?;
        if !(account.years.is_finite() && account.years > 0.0) {
            let reason = format!("{} is not positive; give the years from first to last bar", account.years);
            return Err(Error::config("years", reason));
        }
        let returns = returns(account.equity);
        let bars = returns.len();
        let count = bars as f64;
        let annual = periods_per_year.sqrt();
        let mean = returns.iter().sum::<f64>() / count;
        let deviation = (bars > 1)
            .then(|| (returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt());
        let downside = (returns.iter().map(|r| r.min(0.0).powi(2)).sum::<f64>() / count).sqrt();
        let growth = match (account.equity.first(), account.equity.last()) {
            (Some(first), Some(last)) => last / first,
            _ => 1.0,
        };
        let cagr = defined(growth.powf(account.years.recip()) - 1.0).filter(|_| growth >= 0.0);
        let drawdown = drawdown(account.equity);
        let max_drawdown = drawdown.iter().copied().fold(0.0, f64::min);
        let moved = returns.iter().filter(|r| **r != 0.0).count();
        let gained = returns.iter().filter(|r| **r > 0.0).count();
        Ok(Self {
            total_return: growth - 1.0,
            cagr,
            volatility: deviation.map(|deviation| deviation * annual),
            sharpe: deviation.and_then(|deviation| ratio(mean, deviation)).map(|ratio| ratio * annual),
            sortino: ratio(mean, downside).map(|ratio| ratio * annual),
            max_drawdown,
            max_drawdown_bars: longest_run(&drawdown),
            calmar: cagr.and_then(|cagr| ratio(cagr, -max_drawdown)),
            win_rate: (moved > 0).then(|| gained as f64 / moved as f64),
            turnover: turnover(account.traded_value, account.gross_book),
            exposure: account.invested.iter().skip(1).sum::<f64>() / count,
            trades: account.trades,
            commission: account.commission,
            slippage: account.slippage,
            bars,
        })
    }
}

impl Account<'_> {
    fn check(&self) -> Result<()> {
        let bars = self.equity.len();
        for (what, got) in [
            ("gross_book", self.gross_book.len()),
            ("traded_value", self.traded_value.len()),
            ("invested", self.invested.len()),
        ] {
            if got != bars {
                return Err(Error::shape(what, format!("{bars} bars, like `equity`"), got));
            }
        }
        if bars < 2 {
            return Err(Error::Data(format!("metrics need at least two bars, got {bars}")));
        }
        match self.equity.iter().enumerate().find(|(i, e)| !e.is_finite() || (*i == 0 && **e <= 0.0)) {
            Some((bar, equity)) => Err(Error::Data(format!(
                "equity at bar {bar} is {equity}; it has to start above 0 and to be finite at every bar"
            ))),
            None => Ok(()),
        }
    }
}

/// Drawdown at each bar, equity / running maximum - 1: 0 or negative, `[bar]`.
pub(super) fn drawdown(equity: &[f64]) -> Vec<f64> {
    let mut peak = f64::NEG_INFINITY;
    equity
        .iter()
        .map(|e| {
            peak = peak.max(*e);
            e / peak - 1.0
        })
        .collect()
}

/// Simple returns of an account, `[bar - 1]`; 0 once the equity is zero or negative, because the account is closed then.
#[must_use]
pub fn returns(equity: &[f64]) -> Vec<f64> {
    equity
        .iter()
        .zip(equity.iter().skip(1))
        .map(|(before, after)| if *before > 0.0 { after / before - 1.0 } else { 0.0 })
        .collect()
}

fn longest_run(drawdown: &[f64]) -> usize {
    let (mut run, mut longest) = (0, 0);
    for value in drawdown {
        run = if *value < 0.0 { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

fn turnover(traded: &[f64], book: &[f64]) -> Option<f64> {
    let bars = book.len().checked_sub(1).filter(|bars| *bars > 0)?;
    book.iter().any(|gross| *gross > 0.0).then(|| {
        let means = book.iter().zip(book.iter().skip(1)).map(|(last, this)| (last + this) / 2.0);
        let shares = traded.iter().skip(1).zip(means).filter(|(_, mean)| *mean > 0.0);
        shares.map(|(value, mean)| value / mean).sum::<f64>() / bars as f64
    })
}

/// The quotient; `None` where the deviation is a rounding error.
pub(super) fn ratio(value: f64, deviation: f64) -> Option<f64> {
    if deviation > ROUNDING { defined(value / deviation) } else { None }
}

fn defined(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests;
