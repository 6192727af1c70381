//! The plots of the report.

use anyhow::Result;
use phalanx::backtest::Backtest;

use super::axis::{self, Tick};
use super::format;
use super::plot::{Axes, Canvas, Ink, draw};

/// Height of a plot in canvas units.
pub const HEIGHT: u32 = 880;
/// Maximum number of points of a line and of columns of a position strip, more than a screen can show.
const POINTS: usize = 900;

/// Largest magnitude on a training curve.
const LARGEST: f64 = 1e100;

/// Equity of the strategy and of buy-and-hold.
pub fn equity(backtest: &Backtest) -> Result<String> {
    let curves = [&backtest.benchmark_equity, &backtest.equity];
    let y = axis::range(curves.into_iter().flatten().copied()).unwrap_or((0.0, 1.0));
    let axes = Axes {
        x: bars(backtest),
        y,
        x_ticks: axis::calendar(&backtest.timestamps),
        y_ticks: axis::numeric(y.0, y.1, 5, format::tick),
        baseline: Some(backtest.starting_equity),
    };
    let end = |curve: &[f64]| format::money(curve.last().copied().unwrap_or(f64::NAN));
    let label = format!(
        "Line plot of the account value. The agents went from {} to {}, buy-and-hold to {}.",
        format::money(backtest.starting_equity),
        end(&backtest.equity),
        end(&backtest.benchmark_equity)
    );
    draw(HEIGHT, &axes, &label, |canvas| {
        canvas.line(&thin(indexed(&backtest.benchmark_equity)), Ink::Benchmark)?;
        canvas.line(&thin(indexed(&backtest.equity)), Ink::Strategy)
    })
}

/// Drawdown of the strategy and of buy-and-hold.
pub fn drawdown(backtest: &Backtest) -> Result<String> {
    let curves = [&backtest.benchmark_drawdown, &backtest.drawdown];
    let deepest = curves.into_iter().flatten().copied().fold(0.0, f64::min);
    let y = (if deepest < 0.0 { deepest * 1.06 } else { -0.01 }, 0.0);
    let axes = Axes {
        x: bars(backtest),
        y,
        x_ticks: axis::calendar(&backtest.timestamps),
        y_ticks: axis::percents(y.0, y.1, 4),
        baseline: Some(0.0),
    };
    let label = format!(
        "Line plot of the drawdown. The agents’ maximum drawdown was {}, buy-and-hold’s {}.",
        format::percent(backtest.metrics.max_drawdown),
        format::percent(backtest.benchmark.max_drawdown)
    );
    draw(HEIGHT * 3 / 4, &axes, &label, |canvas| {
        let strategy = thin(indexed(&backtest.drawdown));
        canvas.area(&strategy, 0.0, Ink::Strategy)?;
        canvas.line(&thin(indexed(&backtest.benchmark_drawdown)), Ink::Benchmark)?;
        canvas.line(&strategy, Ink::Strategy)
    })
}

/// A strip per instrument: long, short or flat at each close.
pub fn positions(backtest: &Backtest) -> Result<String> {
    const ROW: i32 = 152;
    const STRIP: i32 = 72;
    const HEAD: i32 = 34;
    let count = i32::try_from(backtest.symbols.len())?;
    let axes = Axes {
        x: bars(backtest),
        y: (0.0, 1.0),
        x_ticks: axis::calendar(&backtest.timestamps),
        y_ticks: Vec::new(),
        baseline: None,
    };
    let largest = backtest.positions.iter().fold(0.0, |largest: f64, level| largest.max(level.abs()));
    let shares: Vec<String> = (0..backtest.symbols.len()).map(|i| shares(backtest, i)).collect();
    let spoken: Vec<String> =
        backtest.symbols.iter().zip(&shares).map(|(symbol, share)| format!("{symbol}: {share}")).collect();
    let label = format!("Position strips. {}.", spoken.join("; "));
    let height = u32::try_from(HEAD + count * ROW + 84)?;
    draw(height, &axes, &label, |canvas| {
        for (row, (symbol, share)) in (0..).zip(backtest.symbols.iter().zip(&shares)) {
            let bottom = HEAD + (row + 1) * ROW - 14;
            canvas.heading(symbol, share, bottom - STRIP - 4)?;
            let levels: Vec<f64> = backtest.positions.column(row as usize).to_vec();
            strip(canvas, &levels, largest, (bottom - STRIP, bottom))?;
        }
        Ok(())
    })
}

/// Text for the fraction of bars in which an instrument was held.
fn shares(backtest: &Backtest, instrument: usize) -> String {
    let levels = backtest.positions.column(instrument);
    // The first close precedes the first decision.
    let bars = levels.len().saturating_sub(1).max(1) as f64;
    let share =
        |held: &dyn Fn(f64) -> bool| levels.iter().filter(|level| held(**level)).count() as f64 / bars;
    let (long, short) = (share(&|level| level > 0.0), share(&|level| level < 0.0));
    let whole = |share: f64| format!("{}%", format::number(share * 100.0, 0));
    match (long > 0.0, short > 0.0) {
        (false, false) => "always flat".into(),
        (true, false) => format!("long {}", whole(long)),
        (false, true) => format!("short {}", whole(short)),
        (true, true) => format!("long {}, short {}", whole(long), whole(short)),
    }
}

/// Draws consecutive bars of one level as a rectangle, long in the upper half of `y` and short in the lower; the level at
/// close b covers the bar that ends with it.
fn strip(canvas: &Canvas<'_>, levels: &[f64], largest: f64, y: (i32, i32)) -> Result<()> {
    let last = levels.len().saturating_sub(1) as f64;
    canvas.bar((0.0, last), y, Ink::Flat, 1.0)?;
    let width = levels.len().div_ceil(POINTS / 2).max(1);
    let columns: Vec<f64> = levels
        .get(1..)
        .unwrap_or_default()
        .chunks(width)
        // A column of several bars shows their mean, rounded to tenths so that equal neighbours join.
        .map(|chunk| chunk.iter().sum::<f64>() / chunk.len() as f64 / largest.max(f64::MIN_POSITIVE))
        .map(|level| (level * 10.0).round() / 10.0)
        .collect();
    let mut start = 0;
    for run in columns.chunk_by(|a, b| a == b) {
        let place = |column: usize| ((column * width) as f64).min(last);
        if let Some(level) = run.first().filter(|level| **level != 0.0) {
            let middle = (y.0 + y.1) / 2;
            let (ink, half) =
                if *level > 0.0 { (Ink::Long, (y.0, middle)) } else { (Ink::Short, (middle, y.1)) };
            canvas.bar((place(start), place(start + run.len())), half, ink, level.abs().clamp(0.25, 1.0))?;
        }
        start += run.len();
    }
    Ok(())
}

/// One training curve over environment steps; `None` if it has no finite value.
pub fn training(env_steps: &[f64], name: &str, values: &[f64]) -> Result<Option<String>> {
    let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
    // Differences of larger numbers may be infinite; a plot shows them no better than NaN.
    let plotted = |value: f64| if value.abs() <= LARGEST { value } else { f64::NAN };
    let points: Vec<(f64, f64)> =
        env_steps.iter().copied().zip(values.iter().map(|value| plotted(*value))).collect();
    let known: Vec<(f64, f64)> = points.iter().copied().filter(finite).collect();
    let (Some(y), Some(first), Some(last)) =
        (axis::range(known.iter().map(|point| point.1)), known.first(), known.last())
    else {
        return Ok(None);
    };
    let steps = env_steps.iter().copied().filter(|x| x.is_finite());
    let x = steps.fold((first.0, first.0), |(low, high), x| (low.min(x), high.max(x)));
    let axes = Axes {
        x,
        y,
        x_ticks: step_ticks(x),
        y_ticks: axis::numeric(y.0, y.1, 4, format::tick),
        baseline: (y.0 < 0.0 && y.1 > 0.0).then_some(0.0),
    };
    let label = format!(
        "Line plot of {name} over environment steps, from {} to {}.",
        significant(first.1),
        significant(last.1)
    );
    draw(HEIGHT * 3 / 4, &axes, &label, |canvas| canvas.line(&thin(points), Ink::Strategy)).map(Some)
}

fn step_ticks(x: (f64, f64)) -> Vec<Tick> {
    let ticks = axis::numeric(x.0, x.1, 4, format::tick);
    if ticks.is_empty() { vec![(x.0, format::number(x.0, 0))] } else { ticks }
}

/// Four significant digits.
pub fn significant(value: f64) -> String {
    let size = value.abs();
    if size.is_finite() && size != 0.0 && !(1e-4..1e6).contains(&size) {
        return format!("{value:.2e}").replace('-', "−");
    }
    let decimals =
        if size == 0.0 || !size.is_finite() { 0 } else { (3.0 - size.log10().floor()).max(0.0) as usize };
    format::number(value, decimals)
}

/// The range of the axis of time, in bars.
pub fn bars(backtest: &Backtest) -> (f64, f64) {
    (0.0, backtest.timestamps.len().saturating_sub(1) as f64)
}

/// Values at their index.
pub fn indexed(values: &[f64]) -> Vec<(f64, f64)> {
    (0..).map(f64::from).zip(values.iter().copied()).collect()
}

/// Thins a curve to about [`POINTS`] points: the minimum and the maximum of each column, so that no spike is lost. A
/// column with a non-finite value keeps one, so that no gap is lost.
pub fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points;
    }
    let width = points.len().div_ceil(POINTS / 2);
    let column = |chunk: &[(f64, f64)]| {
        let finite = || (0..chunk.len()).filter(|i| chunk[*i].1.is_finite());
        let low = finite().min_by(|a, b| chunk[*a].1.total_cmp(&chunk[*b].1));
        let high = finite().max_by(|a, b| chunk[*a].1.total_cmp(&chunk[*b].1));
        let gap = chunk.iter().position(|point| !point.1.is_finite());
        let mut kept: Vec<usize> = [low, high, gap].into_iter().flatten().collect();
        kept.sort_unstable();
        kept.dedup();
        kept.into_iter().map(|i| chunk[i]).collect::<Vec<_>>()
    };
    points.chunks(width).flat_map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_spikes_ends_and_gaps() {
        let mut points: Vec<(f64, f64)> = (0..50_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        points[12_345].1 = 1e6;
        points[30_000].1 = f64::NAN;
        let thinned = thin(points.clone());
        assert!(thinned.len() <= POINTS + 2, "{}", thinned.len());
        assert!(thinned.contains(&(12_345.0, 1e6)));
        assert!(thinned.iter().any(|point| point.1.is_nan()));
        assert!(thinned.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(thin(points[..10].to_vec()), points[..10]);
    }

    #[test]
    fn digits_that_matter() {
        assert_eq!(significant(1234.5678), "1,235");
        assert_eq!(significant(-0.012345), "−0.01235");
        assert_eq!(significant(2.5e-7), "2.50e−7");
        assert_eq!(significant(0.0), "0");
        assert_eq!(significant(f64::NAN), format::UNDEFINED);
    }

    #[test]
    fn a_curve_without_a_number_is_no_plot() {
        assert!(training(&[1.0, 2.0], "x", &[f64::NAN; 2]).unwrap().is_none());
        assert!(training(&[], "x", &[]).unwrap().is_none());
        let svg = training(&[1.0, 2.0, 3.0, 4.0], "x", &[1.0, f64::NAN, 2.0, 3.0]).unwrap().unwrap();
        assert!(svg.contains("<circle") && svg.contains("<polyline") && !svg.contains("NaN"), "{svg}");
    }
}
