//! Probability of backtest overfitting, by combinatorially symmetric cross-validation (CSCV).
//!
//! The bars are cut into S blocks. Each of the C(S, S/2) splits takes one half of the blocks as the sample, in which the best
//! trial is selected, and the other half as new bars, on which that trial is ranked among all.
//!
//! Source: Bailey, Borwein, Lopez de Prado & Zhu [2017, "The probability of backtest overfitting"].

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::checks;
use crate::{Error, Result};

/// C(22, 11) splits take seconds; two blocks more take four times as long.
const MAX_BLOCKS: usize = 22;

/// The measure by which trials are selected and ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Measure {
    /// Sharpe ratio of a bar: mean / standard deviation with ddof 1.
    #[default]
    Sharpe,
    /// Mean return per bar.
    Mean,
}

/// The result of [`probability_of_overfitting`]. Splits are in lexicographic order of the blocks of their sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Overfitting {
    /// Number of bars, T.
    pub bars: usize,
    /// Number of trials, N.
    pub trials: usize,
    /// Number of blocks, S.
    pub blocks: usize,
    /// Probability of backtest overfitting: the share of splits with a logit of at most 0, whose selected trial is not above
    /// the median on the new bars.
    pub probability: f64,
    /// The share of splits whose selected trial has a negative measure on the new bars.
    pub probability_of_loss: f64,
    /// Regression of the selected trial's measure on the new bars on that in the sample. `None` if the latter does not vary.
    pub degradation: Option<Degradation>,
    /// ln(w / (1 - w)) with w = rank / (N + 1) of the selected trial on the new bars, rank 1 being the worst and equal trials
    /// sharing their mean rank, `[split]`.
    pub logits: Vec<f64>,
    /// The trial selected in the sample, the first of equal ones, `[split]`.
    pub selected: Vec<usize>,
    /// Measure of the selected trial in the sample, `[split]`.
    pub in_sample: Vec<f64>,
    /// Measure of the selected trial on the new bars, `[split]`.
    pub out_of_sample: Vec<f64>,
}

/// Performance degradation: the line out_of_sample = intercept + slope in_sample through the splits, by least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Degradation {
    /// The slope: at zero or below, a better sample promises nothing.
    pub slope: f64,
    /// The intercept, in the unit of the measure.
    pub intercept: f64,
    /// Coefficient of determination. `None` if the measure on the new bars does not vary.
    pub r_squared: Option<f64>,
}

impl Overfitting {
    /// The default number of blocks, with 12,870 splits, as in the paper.
    pub const BLOCKS: usize = 16;
}

/// Probability of backtest overfitting of `returns`, simple returns per bar, `[bar][trial]`.
///
/// `blocks`, S, is even, [`Overfitting::BLOCKS`] by default; each block needs two bars. Bars that do not divide by S are all
/// used: the first T mod S blocks have one bar more, as in the Python package holdout-backtest, so that the halves of a split
/// may differ in length. Trials that are all equal share the median rank, which counts as overfitted.
///
/// ```
/// use ndarray::Array2;
/// use phalanx::research::{Measure, probability_of_overfitting};
///
/// let returns = Array2::from_shape_fn((64, 5), |(bar, trial)| ((bar * (trial + 3)) as f64).sin() / 100.0);
/// let overfitting = probability_of_overfitting(returns.view(), 8, Measure::Sharpe)?;
/// assert_eq!(overfitting.logits.len(), 70);
/// # Ok::<(), phalanx::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] if `blocks` is odd, below 2 or above 22; [`Error::Data`] for fewer than two trials or 2 S bars, a return
/// that is not finite, and a trial without variance over half of the bars, which has no Sharpe ratio there.
pub fn probability_of_overfitting(
    returns: ArrayView2<f64>,
    blocks: usize,
    measure: Measure,
) -> Result<Overfitting> {
    if !(2..=MAX_BLOCKS).contains(&blocks) || blocks % 2 == 1 {
        let reason = format!("{blocks} is not an even number from 2 to {MAX_BLOCKS}");
        return Err(Error::config("blocks", reason));
    }
    checks::matrix("overfitting", "trial", &returns, 2 * blocks, 2)?;
    let (bars, trials) = returns.dim();
    let moments = BlockMoments::new(returns, blocks);
    let mut halves = Halves::first(blocks);
    let (mut inside, mut outside) = (vec![0.0; trials], vec![0.0; trials]);
    let mut scratch = vec![0.0; trials];
    let (mut logits, mut selected) = (Vec::new(), Vec::new());
    let (mut in_sample, mut out_of_sample) = (Vec::new(), Vec::new());
    loop {
        moments.measure(&halves.sample, measure, &mut scratch, &mut inside)?;
        moments.measure(&halves.rest(), measure, &mut scratch, &mut outside)?;
        let (mut best, mut value) = (0, f64::NEG_INFINITY);
        for (trial, score) in inside.iter().enumerate() {
            if *score > value {
                (best, value) = (trial, *score);
            }
        }
        let new = outside.get(best).copied().unwrap_or_default();
        let below = outside.iter().filter(|score| **score < new).count() as f64;
        let equal = outside.iter().filter(|score| **score == new).count() as f64;
        let rank = below + (equal + 1.0) / 2.0;
        logits.push((rank / (trials as f64 + 1.0 - rank)).ln());
        selected.push(best);
        in_sample.push(value);
        out_of_sample.push(new);
        if !halves.advance() {
            break;
        }
    }
    let splits = logits.len() as f64;
    Ok(Overfitting {
        bars,
        trials,
        blocks,
        probability: logits.iter().filter(|logit| **logit <= 0.0).count() as f64 / splits,
        probability_of_loss: out_of_sample.iter().filter(|score| **score < 0.0).count() as f64 / splits,
        degradation: Degradation::new(&in_sample, &out_of_sample),
        logits,
        selected,
        in_sample,
        out_of_sample,
    })
}

impl Degradation {
    fn new(x: &[f64], y: &[f64]) -> Option<Self> {
        let count = x.len() as f64;
        let (mean_x, mean_y) = (x.iter().sum::<f64>() / count, y.iter().sum::<f64>() / count);
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (x, y) in x.iter().zip(y) {
            let (dx, dy) = (x - mean_x, y - mean_y);
            xx += dx * dx;
            xy += dx * dy;
            yy += dy * dy;
        }
        let varies =
            |sum: f64, values: &[f64]| !checks::is_constant((sum / count).sqrt(), checks::peak(values));
        if !varies(xx, x) {
            return None;
        }
        let slope = xy / xx;
        let r_squared = varies(yy, y).then(|| xy / xx * (xy / yy)).filter(|value| value.is_finite());
        let line = Self { slope, intercept: mean_y - slope * mean_x, r_squared };
        (line.slope.is_finite() && line.intercept.is_finite()).then_some(line)
    }
}

/// Means and sums of squared deviations of each block. A half of the bars is put together from them, without the cancellation
/// of sums of squares: Chan, Golub & LeVeque [1983, "Algorithms for computing the sample variance: analysis
/// and recommendations"].
struct BlockMoments {
    /// Bars of each block.
    counts: Vec<f64>,
    /// Means, `[block][trial]`.
    means: Vec<Vec<f64>>,
    /// Sums of squared deviations from the block's mean, `[block][trial]`.
    squares: Vec<Vec<f64>>,
    /// Largest absolute return of each trial.
    peaks: Vec<f64>,
}

impl BlockMoments {
    fn new(returns: ArrayView2<f64>, blocks: usize) -> Self {
        let (bars, trials) = returns.dim();
        let (mut counts, mut means, mut squares) = (Vec::new(), Vec::new(), Vec::new());
        let mut rows = returns.rows().into_iter();
        for block in 0..blocks {
            let length = bars / blocks + usize::from(block < bars % blocks);
            let rows: Vec<_> = rows.by_ref().take(length).collect();
            let count = length as f64;
            let (mut mean, mut square) = (vec![0.0; trials], vec![0.0; trials]);
            for row in &rows {
                mean.iter_mut().zip(row).for_each(|(mean, r)| *mean += r / count);
            }
            for row in &rows {
                for ((square, mean), r) in square.iter_mut().zip(&mean).zip(row) {
                    *square += (r - mean).powi(2);
                }
            }
            counts.push(count);
            means.push(mean);
            squares.push(square);
        }
        let peaks = returns.columns().into_iter().map(checks::peak).collect();
        Self { counts, means, squares, peaks }
    }

    /// The measure of every trial over `blocks`, written to `measures`; `squares` is scratch.
    fn measure(
        &self,
        blocks: &[usize],
        measure: Measure,
        squares: &mut [f64],
        measures: &mut [f64],
    ) -> Result<()> {
        let chosen = || {
            blocks
                .iter()
                .filter_map(|block| Some((self.counts.get(*block)?, self.means.get(*block)?, *block)))
        };
        let bars: f64 = chosen().map(|(count, ..)| count).sum();
        measures.fill(0.0);
        squares.fill(0.0);
        for (count, means, _) in chosen() {
            let share = count / bars;
            measures.iter_mut().zip(means).for_each(|(total, mean)| *total += share * mean);
        }
        if measure == Measure::Sharpe {
            for (count, means, block) in chosen() {
                let inner = self.squares.get(block).map_or(&[][..], Vec::as_slice);
                for (((square, mean), whole), inner) in
                    squares.iter_mut().zip(means).zip(measures.iter()).zip(inner)
                {
                    let shift = mean - whole;
                    *square += inner + count * shift * shift;
                }
            }
            for (trial, ((value, square), peak)) in
                measures.iter_mut().zip(squares.iter()).zip(&self.peaks).enumerate()
            {
                let deviation = (square / (bars - 1.0)).sqrt();
                if checks::is_constant(deviation, *peak) {
                    return Err(Error::Data(format!(
                        "overfitting: trial {trial} has zero variance over half of the bars, so its Sharpe ratio is undefined; \
                         leave the trial out, or rank by the mean"
                    )));
                }
                *value /= deviation;
            }
        }
        if measures.iter().any(|value| !value.is_finite()) || squares.iter().any(|square| !square.is_finite())
        {
            return Err(checks::too_large("overfitting"));
        }
        Ok(())
    }
}

/// One split of the blocks into halves.
struct Halves {
    blocks: usize,
    /// Blocks of the sample, ascending.
    sample: Vec<usize>,
}

impl Halves {
    fn first(blocks: usize) -> Self {
        Self { blocks, sample: (0..blocks / 2).collect() }
    }

    /// The blocks that are not in the sample, ascending.
    fn rest(&self) -> Vec<usize> {
        (0..self.blocks).filter(|block| !self.sample.contains(block)).collect()
    }

    /// Goes to the next split in lexicographic order; false after the last.
    fn advance(&mut self) -> bool {
        let half = self.sample.len();
        // The last block that can still move to the right.
        let movable =
            self.sample.iter().enumerate().rev().find(|(place, block)| **block < self.blocks - half + place);
        let Some((place, block)) = movable.map(|(place, block)| (place, *block)) else { return false };
        for (step, moved) in self.sample.iter_mut().skip(place).enumerate() {
            *moved = block + 1 + step;
        }
        true
    }
}

#[cfg(test)]
mod tests;
