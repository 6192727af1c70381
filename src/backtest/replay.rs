//! Replays a policy's decisions through the [`Ledger`], together with buy-and-hold on the same bars.

use std::ops::Range;

use jiff::civil::DateTime;
use ndarray::{Array2, ArrayView2};

use super::attribution::InstrumentProfit;
use super::holdings::{Holding, Holdings};
use super::metrics::{Account, Metrics, drawdown, returns};
use super::periods::{PeriodsPerYear, years};
use crate::env::ledger::{Costs, Financing, Ledger, NextBar, Trade};
use crate::market::Candles;
use crate::{Error, Result};

/// Settings of a backtest's account.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayOptions {
    /// Costs of orders and positions.
    pub costs: Costs,
    /// Largest gross exposure that orders may lead to, as a multiple of the equity; larger ones are cut.
    pub max_leverage: Option<f64>,
    /// Account value at the first close, in account currency.
    pub starting_equity: f64,
    /// The account is closed permanently at or below this fraction of `starting_equity`.
    pub bankruptcy_level: f64,
    /// Bars per year: inferred by [`super::infer_periods_per_year`], or [`PeriodsPerYear::given`].
    pub periods_per_year: PeriodsPerYear,
}

/// A [`Trade`] with its time and symbol.
#[derive(Debug, Clone, PartialEq)]
pub struct DatedTrade {
    /// Index within the backtest of the bar at whose open the order filled; the decision was made one bar earlier.
    pub bar: usize,
    /// Timestamp of that bar.
    pub timestamp: DateTime,
    /// Symbol of the instrument.
    pub symbol: String,
    /// The fill.
    pub trade: Trade,
}

/// Result of a replay of B bars with N instruments.
#[derive(Debug, Clone, PartialEq)]
pub struct Backtest {
    /// Symbols of the instruments, `[N]`.
    pub symbols: Vec<String>,
    /// Timestamps of the bars, `[B]`.
    pub timestamps: Vec<DateTime>,
    /// Account value at each close, starting equity first, `[bar]`.
    pub equity: Vec<f64>,
    /// Drawdown, equity / running maximum - 1: 0 or negative, `[bar]`.
    pub drawdown: Vec<f64>,
    /// Account value of equal-weight buy-and-hold (target +1 from the first decision on) with the same
    /// costs, `[bar]`.
    pub benchmark_equity: Vec<f64>,
    /// Drawdown of buy-and-hold, `[bar]`.
    pub benchmark_drawdown: Vec<f64>,
    /// Target position at each close, `[bar][instrument]`; 0 in the first row. An order that a leverage limit cut counts as reached:
    /// the exposure is smaller then.
    pub positions: Array2<f64>,
    /// Signed value of each position at each close, units x close in account currency, `[bar][instrument]`; 0 in the first row, and
    /// once the account is closed.
    pub values: Array2<f64>,
    /// Positions of the strategy in the order in which they were opened.
    pub holdings: Vec<Holding>,
    /// Profit of each instrument and its parts, `[instrument]`.
    pub profits: Vec<InstrumentProfit>,
    /// Trades of the strategy in order of time.
    pub trades: Vec<DatedTrade>,
    /// Time at which the strategy's account was closed permanently, if it was.
    pub bankrupt_at: Option<DateTime>,
    /// Metrics of the strategy.
    pub metrics: Metrics,
    /// Metrics of buy-and-hold.
    pub benchmark: Metrics,
    /// Number of bars per year used for annualised metrics, and how it was found.
    pub periods_per_year: PeriodsPerYear,
    /// Years from the first bar to the last, as in [`Account::years`].
    pub years: f64,
    /// Costs of orders and positions.
    pub costs: Costs,
    /// Interest, borrow fees and funding of the strategy's positions and cash.
    pub financing: Financing,
    /// The same for buy-and-hold.
    pub benchmark_financing: Financing,
    /// Account value at the first close, in account currency.
    pub starting_equity: f64,
}

impl Backtest {
    /// Simple returns of the strategy, `[bar - 1]`.
    #[must_use]
    pub fn returns(&self) -> Vec<f64> {
        returns(&self.equity)
    }

    /// Replays the target positions `targets` on the bars `bars` of `candles`.
    ///
    /// `targets` is `[bars - 1][instrument]`. Row b is decided after the close of the b-th bar and
    /// fills at the open of the next bar. There is no decision after the last bar. A target that meets a filled
    /// bar ([`Candles::filled`]) waits: the one that stands at the instrument's next real bar fills there.
    ///
    /// # Errors
    /// [`Error::Data`] for a range of fewer than two bars or outside the candles, or a price that is not positive;
    /// [`Error::Shape`] for targets of another shape; [`Error::Config`] for options out of range.
    pub fn replay(
        candles: &Candles,
        bars: Range<usize>,
        targets: ArrayView2<f64>,
        options: &ReplayOptions,
    ) -> Result<Self> {
        Self::replay_rebalanced(candles, bars, targets, options, |_| false)
    }

    /// The same, where positions are also sized anew after the decisions at bars of the candles for which `rebalances` is true.
    pub(crate) fn replay_rebalanced(
        candles: &Candles,
        bars: Range<usize>,
        targets: ArrayView2<f64>,
        options: &ReplayOptions,
        rebalances: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let timestamps = window(candles, &bars)?;
        check_targets(candles, &bars, targets)?;
        let strategy = Run::replay(candles, &bars, targets, options, &rebalances)?;
        let hold = Array2::ones(targets.raw_dim());
        let benchmark = Run::replay(candles, &bars, hold.view(), options, &|_| false)?;
        let (years, periods) = (years(timestamps), options.periods_per_year);
        let date = |bar: usize| timestamps.get(bar).copied().unwrap_or_default();
        let symbol = |instrument: usize| candles.symbols.get(instrument).cloned().unwrap_or_default();
        let dated = |&(bar, trade): &(usize, Trade)| DatedTrade {
            bar,
            timestamp: date(bar),
            symbol: symbol(trade.instrument),
            trade,
        };
        Ok(Self {
            symbols: candles.symbols.clone(),
            timestamps: timestamps.to_vec(),
            drawdown: drawdown(&strategy.equity),
            benchmark_drawdown: drawdown(&benchmark.equity),
            trades: strategy.trades.iter().map(dated).collect(),
            bankrupt_at: strategy.bankrupt_at.map(date),
            metrics: strategy.metrics(periods, years)?,
            benchmark: benchmark.metrics(periods, years)?,
            equity: strategy.equity,
            benchmark_equity: benchmark.equity,
            positions: strategy.positions,
            values: strategy.values,
            holdings: strategy.holdings,
            profits: strategy.profits,
            periods_per_year: periods,
            years,
            costs: options.costs.clone(),
            financing: strategy.financing,
            benchmark_financing: benchmark.financing,
            starting_equity: options.starting_equity,
        })
    }
}

/// The metrics of an account that trades `targets`, as in [`Backtest::replay`], without buy-and-hold beside it.
pub(crate) fn account(
    candles: &Candles,
    bars: &Range<usize>,
    targets: ArrayView2<f64>,
    options: &ReplayOptions,
) -> Result<Metrics> {
    let timestamps = window(candles, bars)?;
    check_targets(candles, bars, targets)?;
    let run = Run::replay(candles, bars, targets, options, &|_| false)?;
    run.metrics(options.periods_per_year, years(timestamps))
}

fn check_targets(candles: &Candles, bars: &Range<usize>, targets: ArrayView2<f64>) -> Result<()> {
    let count = candles.symbols.len();
    if targets.dim() == (bars.len() - 1, count) {
        return Ok(());
    }
    let expected = format!("{} decisions x {count} instruments", bars.len() - 1);
    Err(Error::shape("targets", expected, format!("{:?}", targets.dim())))
}

/// Timestamps of `bars`; an error if the candles do not have these bars.
pub(crate) fn window<'a>(candles: &'a Candles, bars: &Range<usize>) -> Result<&'a [DateTime]> {
    let shape = (candles.symbols.len(), candles.timestamps.len());
    for (what, array) in [("open", &candles.open), ("close", &candles.close)] {
        if array.dim() != shape {
            let expected = format!("{} instruments x {} bars", shape.0, shape.1);
            return Err(Error::shape(what, expected, format!("{:?}", array.dim())));
        }
    }
    if let Some(funding) = candles.funding.as_ref().filter(|funding| funding.dim() != shape) {
        let expected = format!("{} instruments x {} bars", shape.0, shape.1);
        return Err(Error::shape("funding", expected, format!("{:?}", funding.dim())));
    }
    if let Some(filled) = candles.filled.as_ref().filter(|filled| filled.dim() != shape) {
        let expected = format!("{} instruments x {} bars", shape.0, shape.1);
        return Err(Error::shape("filled", expected, format!("{:?}", filled.dim())));
    }
    match candles.timestamps.get(bars.clone()) {
        Some(timestamps) if timestamps.len() >= 2 => Ok(timestamps),
        _ => Err(Error::Data(format!(
            "cannot backtest bars {}..{}: the range needs at least two bars and has to end at {} or before",
            bars.start, bars.end, shape.1
        ))),
    }
}

/// The history of one account.
struct Run {
    equity: Vec<f64>,
    gross_book: Vec<f64>,
    traded_value: Vec<f64>,
    invested: Vec<f64>,
    positions: Array2<f64>,
    values: Array2<f64>,
    holdings: Vec<Holding>,
    profits: Vec<InstrumentProfit>,
    trades: Vec<(usize, Trade)>,
    financing: Financing,
    bankrupt_at: Option<usize>,
}

impl Run {
    fn replay(
        candles: &Candles,
        bars: &Range<usize>,
        targets: ArrayView2<f64>,
        options: &ReplayOptions,
        rebalances: &dyn Fn(usize) -> bool,
    ) -> Result<Self> {
        let count = candles.symbols.len();
        let mut ledger =
            Ledger::new(count, options.starting_equity, options.bankruptcy_level, options.costs.clone())?
                .with_max_leverage(options.max_leverage)?;
        let mut run = Self {
            equity: vec![options.starting_equity],
            gross_book: vec![0.0],
            traded_value: vec![0.0],
            invested: vec![0.0],
            positions: Array2::zeros((bars.len(), count)),
            values: Array2::zeros((bars.len(), count)),
            holdings: Vec::new(),
            profits: vec![InstrumentProfit::default(); count],
            trades: Vec::new(),
            financing: Financing::default(),
            bankrupt_at: None,
        };
        let mut holdings = Holdings::new(count);
        for (decision, wanted) in targets.outer_iter().enumerate() {
            let bar = bars.start + decision;
            let column = |prices: &Array2<f64>, bar: usize| prices.column(bar).to_vec();
            let (close, open) = (column(&candles.close, bar), column(&candles.open, bar + 1));
            let next = column(&candles.close, bar + 1);
            let filled = candles.filled.as_ref().map(|filled| filled.column(bar + 1).to_vec());
            let funding = candles.funding.as_ref().map(|funding| funding.column(bar + 1).to_vec());
            let mut prices = NextBar::new(&close, &open, &next).years(candles.years_before(bar + 1));
            if let Some(filled) = &filled {
                prices = prices.filled(filled);
            }
            if let Some(funding) = &funding {
                prices = prices.funding(funding);
            }
            if rebalances(bar) {
                ledger.rebalance();
            }
            let step = ledger.step(&wanted.to_vec(), &prices).map_err(|error| at(candles, bar, error))?;
            run.equity.push(ledger.equity());
            run.financing += step.financing;
            run.gross_book.push(ledger.quantity().iter().zip(&next).map(|(q, c)| (q * c).abs()).sum());
            run.traded_value.push(step.trades.iter().map(|t| t.quantity.abs() * t.price).sum());
            let invested = ledger.quantity().iter().filter(|quantity| **quantity != 0.0).count();
            run.invested.push(invested as f64 / count as f64);
            run.positions.row_mut(decision + 1).iter_mut().zip(ledger.level()).for_each(|(p, l)| *p = *l);
            let held = ledger.quantity().iter().zip(&next);
            run.values.row_mut(decision + 1).iter_mut().zip(held).for_each(|(v, (q, c))| *v = q * c);
            holdings.step(decision + 1, &step.contributions, step.bankrupt);
            run.profits.iter_mut().zip(&step.contributions).for_each(|(sum, part)| sum.add(part));
            run.trades.extend(step.trades.into_iter().map(|trade| (decision + 1, trade)));
            if step.bankrupt && run.bankrupt_at.is_none() {
                run.bankrupt_at = Some(decision + 1);
            }
        }
        run.holdings = holdings.finish(bars.len());
        Ok(run)
    }

    fn metrics(&self, periods_per_year: PeriodsPerYear, years: f64) -> Result<Metrics> {
        let account = Account {
            equity: &self.equity,
            gross_book: &self.gross_book,
            traded_value: &self.traded_value,
            invested: &self.invested,
            years,
            trades: self.trades.len(),
            commission: self.trades.iter().map(|(_, trade)| trade.commission).sum(),
            slippage: self.trades.iter().map(|(_, trade)| trade.slippage).sum(),
        };
        Metrics::new(&account, periods_per_year.value())
    }
}

/// Adds the date and the order of the symbols to an error of the ledger.
fn at(candles: &Candles, bar: usize, error: Error) -> Error {
    match (error, candles.timestamps.get(bar)) {
        (Error::Data(reason), Some(date)) => {
            let symbols = candles.symbols.join(", ");
            Error::Data(format!("decision after {date}: {reason} (instruments, from 0: {symbols})"))
        }
        (error, _) => error,
    }
}

#[cfg(test)]
mod tests;
