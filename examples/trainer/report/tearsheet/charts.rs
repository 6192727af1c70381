//! The plots of the tear sheet.

use anyhow::Result;
use phalanx::backtest::{Backtest, Exposure, RollingSharpe};

use super::super::axis;
use super::super::charts::{HEIGHT, bars, indexed, thin};
use super::super::format;
use super::super::plot::{Axes, Ink, draw};

/// The rolling Sharpe ratio; `None` if no window has one.
pub fn rolling(backtest: &Backtest, rolling: &RollingSharpe) -> Result<Option<String>> {
    let Some([low, high, last]) = rolling.range() else { return Ok(None) };
    let Some(y) = axis::range([low, high, 0.0].into_iter()) else { return Ok(None) };
    let axes = Axes {
        x: bars(backtest),
        y,
        x_ticks: axis::calendar(&backtest.timestamps),
        y_ticks: axis::numeric(y.0, y.1, 5, format::tick),
        baseline: Some(0.0),
    };
    let label = format!(
        "Line plot of the Sharpe ratio of the last {} returns, from {} to {}, at the end {}.",
        rolling.window,
        format::number(low, 2),
        format::number(high, 2),
        format::number(last, 2)
    );
    let values = std::iter::repeat_n(f64::NAN, rolling.window)
        .chain(rolling.values.iter().map(|value| value.unwrap_or(f64::NAN)));
    let points = thin(indexed(&values.collect::<Vec<_>>()));
    draw(HEIGHT, &axes, &label, |canvas| canvas.line(&points, Ink::Strategy)).map(Some)
}

/// Gross and net exposure.
pub fn exposure(backtest: &Backtest, exposure: &Exposure) -> Result<String> {
    let y = axis::range([0.0, exposure.min_net, exposure.max_gross].into_iter()).unwrap_or((0.0, 1.0));
    let axes = Axes {
        x: bars(backtest),
        y,
        x_ticks: axis::calendar(&backtest.timestamps),
        y_ticks: axis::percents(y.0, y.1, 5),
        baseline: Some(0.0),
    };
    let label = format!(
        "Line plot of the exposure. Gross {} on average, net {}.",
        format::percent(exposure.mean_gross),
        format::percent(exposure.mean_net)
    );
    draw(HEIGHT, &axes, &label, |canvas| {
        canvas.line(&thin(indexed(&exposure.gross)), Ink::Benchmark)?;
        canvas.line(&thin(indexed(&exposure.net)), Ink::Strategy)
    })
}
