//! Tests whether the best of several models beats a benchmark after so many tries, and which models do.
//!
//! Sources: White [2000, "A reality check for data snooping"]; Hansen [2005, "A test for superior predictive ability"];
//! Romano & Wolf [2005, "Stepwise multiple testing as formalized data snooping"], with adjusted p-values as in Romano & Wolf
//! [2016, "Efficient computation of adjusted p-values for resampling-based stepdown multiple testing"].

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use super::bootstrap::{Resampling, StationaryBootstrap};
use super::{block_length, checks};
use crate::{Error, Result};

/// Fewer bars have too few blocks.
const LEAST: usize = 16;

/// The result of [`superiority()`]. A p-value is (1 + #(resampled statistic >= statistic)) / (1 + resamples): it is never zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Superiority {
    /// Number of bars, T.
    pub bars: usize,
    /// The model with the largest t statistic, the first of equal ones.
    pub best: usize,
    /// White's reality check.
    pub reality_check: RealityCheck,
    /// Hansen's test of superior predictive ability (SPA).
    pub spa: Spa,
    /// t = sqrt(T) mean(d) / omega of each model, `[model]`.
    pub t_statistics: Vec<f64>,
    /// Step-down p-value of each model, adjusted for their number, `[model]`: the models with one of at most alpha beat the
    /// benchmark, with a probability of at most alpha that one of them is there by luck.
    pub adjusted_p_values: Vec<f64>,
    /// Mean block length in bars.
    pub block_length: f64,
    /// Number of resamples.
    pub resamples: u32,
}

/// White's reality check: not studentised, every model recentred.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RealityCheck {
    /// max sqrt(T) mean(d) over the models.
    pub statistic: f64,
    /// p-value of no model being better than the benchmark.
    pub p_value: f64,
}

/// Hansen's test: studentised, and models that are clearly worse than the benchmark do not count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Spa {
    /// max(0, max t) over the models.
    pub statistic: f64,
    /// Lower bound: no model worse than the benchmark is recentred.
    pub lower: f64,
    /// The p-value to report: models with t >= -sqrt(2 ln ln T) are recentred.
    pub consistent: f64,
    /// Upper bound: every model is recentred, the studentised reality check.
    pub upper: f64,
}

/// Tests of `differentials`, the return of each model minus that of the benchmark (or the loss of the benchmark minus that of
/// the model), `[bar][model]`: larger is better, and the hypothesis is that no model has a positive mean.
///
/// All models are resampled with the same bars by the stationary bootstrap, by default with the mean of their automatic block
/// lengths. omega^2 is the variance of sqrt(T) mean(d) under that bootstrap, which has a closed form: the autocovariance of
/// lag i has the weight (1 - i/T) q^i + (i/T) q^(T-i), q = 1 - 1 / block length, of Politis & Romano (1994). The resamples are
/// studentised with the same omega.
///
/// ```
/// use ndarray::Array2;
/// use phalanx::research::{Resampling, superiority};
///
/// let differentials = Array2::from_shape_fn((250, 4), |(bar, model)| (((bar + 9) * (model + 3)) as f64).sin());
/// let test = superiority(differentials.view(), &Resampling::default())?;
/// assert!(test.spa.consistent > 0.05);
/// # Ok::<(), phalanx::Error>(())
/// ```
///
/// # Errors
/// [`Error::Data`] without a model, for fewer than 16 bars, a value that is not finite, and a model whose differential has zero
/// variance; [`Error::Config`] for settings out of range.
pub fn superiority(differentials: ArrayView2<f64>, resampling: &Resampling) -> Result<Superiority> {
    checks::matrix("superiority", "model", &differentials, LEAST, 1)?;
    let (bars, models) = differentials.dim();
    let automatic = || {
        let mut total = 0.0;
        for column in differentials.columns() {
            total += block_length::estimate(&column.to_vec())?.unwrap_or(1.0);
        }
        Ok(total / models as f64)
    };
    let bootstrap = resampling.bootstrap(bars, automatic)?;
    let sample = Sample::new(differentials, bootstrap.block_length())?;
    let counts = sample.count(&bootstrap, resampling.resamples);
    let p_value = |count: u32| f64::from(1 + count) / f64::from(1 + resampling.resamples);
    let mut adjusted_p_values = vec![1.0; models];
    let mut largest = 0.0;
    for (model, count) in sample.order.iter().zip(&counts.step_down) {
        largest = f64::max(largest, p_value(*count));
        if let Some(adjusted) = adjusted_p_values.get_mut(*model) {
            *adjusted = largest;
        }
    }
    Ok(Superiority {
        bars,
        best: sample.order.first().copied().unwrap_or_default(),
        reality_check: RealityCheck {
            statistic: sample.largest_mean,
            p_value: p_value(counts.reality_check),
        },
        spa: Spa {
            statistic: sample.largest_t,
            lower: p_value(counts.lower),
            consistent: p_value(counts.consistent),
            upper: p_value(counts.upper),
        },
        t_statistics: sample.models.iter().map(|model| model.t).collect(),
        adjusted_p_values,
        block_length: bootstrap.block_length(),
        resamples: resampling.resamples,
    })
}

/// One model. Values are in units of the mean of its differential times sqrt(T).
struct Model {
    /// sqrt(T) mean.
    mean: f64,
    omega: f64,
    t: f64,
    /// Studentised mean that a resample keeps, because the model is not recentred: 0 or negative.
    kept_lower: f64,
    kept_consistent: f64,
}

/// The differentials with their statistics.
struct Sample {
    /// Differentials minus their means, `[bar][model]`.
    centred: Array2<f64>,
    models: Vec<Model>,
    /// Models by descending t.
    order: Vec<usize>,
    largest_mean: f64,
    largest_t: f64,
}

/// Resamples whose statistic is at least that of the sample.
#[derive(Default)]
struct Counts {
    reality_check: u32,
    lower: u32,
    consistent: u32,
    upper: u32,
    /// In the order of descending t: maxima over the model and all weaker ones.
    step_down: Vec<u32>,
}

impl Sample {
    fn new(differentials: ArrayView2<f64>, block_length: f64) -> Result<Self> {
        let count = differentials.nrows() as f64;
        let threshold = -(2.0 * count.ln().ln()).sqrt();
        let mut centred = differentials.to_owned();
        let mut models = Vec::new();
        for (index, mut column) in centred.columns_mut().into_iter().enumerate() {
            let peak = checks::peak(&column);
            let mean = column.iter().sum::<f64>() / count;
            column.iter_mut().for_each(|d| *d -= mean);
            let deviation = (column.iter().map(|d| d * d).sum::<f64>() / count).sqrt();
            // Relative: all results are free of scale, and differences of losses may be minute.
            if deviation <= checks::ROUNDING * peak {
                return Err(Error::Data(format!(
                    "superiority: the differential of model {index} has zero variance, so its t statistic is undefined; leave \
                     the model out"
                )));
            }
            let omega = kernel_variance(column.view(), block_length).sqrt();
            let mean = count.sqrt() * mean;
            let t = mean / omega;
            if !(omega.is_finite() && t.is_finite()) {
                return Err(checks::too_large("superiority"));
            }
            let kept_consistent = if t >= threshold { 0.0 } else { t };
            models.push(Model { mean, omega, t, kept_lower: t.min(0.0), kept_consistent });
        }
        let mut order: Vec<usize> = (0..models.len()).collect();
        order.sort_by(|a, b| {
            let t = |model: &usize| models.get(*model).map_or(0.0, |model| model.t);
            t(b).total_cmp(&t(a))
        });
        let largest_mean = models.iter().fold(f64::NEG_INFINITY, |largest, model| largest.max(model.mean));
        let largest_t = models.iter().fold(0.0, |largest, model| f64::max(largest, model.t));
        Ok(Self { centred, models, order, largest_mean, largest_t })
    }

    fn count(&self, bootstrap: &StationaryBootstrap, resamples: u32) -> Counts {
        let bars = self.centred.nrows();
        let mut counts = Counts { step_down: vec![0; self.models.len()], ..Counts::default() };
        let mut indices = Vec::new();
        // Means of many resamples at a time are one product of matrices: how often each bar is drawn, times the differentials.
        let batch = (4_000_000 / bars).clamp(1, 64) as u32;
        for first in (0..resamples).step_by(batch as usize) {
            let names = first..resamples.min(first + batch);
            let mut drawn = Array2::<f64>::zeros((names.len(), bars));
            for (resample, mut drawn) in names.zip(drawn.rows_mut()) {
                bootstrap.write_indices(resample, &mut indices);
                for bar in &indices {
                    if let Some(times) = drawn.get_mut(*bar) {
                        *times += 1.0;
                    }
                }
            }
            let means = drawn.dot(&self.centred) / (bars as f64).sqrt();
            means.axis_iter(Axis(0)).for_each(|means| self.count_one(means, &mut counts));
        }
        counts
    }

    /// `means` are sqrt(T) times the resampled means of the centred differentials, `[model]`.
    fn count_one(&self, means: ArrayView1<f64>, counts: &mut Counts) {
        let (mut mean, mut upper, mut lower, mut consistent) = (f64::NEG_INFINITY, 0.0, 0.0, 0.0);
        for (resampled, model) in means.iter().zip(&self.models) {
            let z = resampled / model.omega;
            mean = f64::max(mean, *resampled);
            upper = f64::max(upper, z);
            lower = f64::max(lower, z + model.kept_lower);
            consistent = f64::max(consistent, z + model.kept_consistent);
        }
        counts.reality_check += u32::from(mean >= self.largest_mean);
        counts.upper += u32::from(upper >= self.largest_t);
        counts.lower += u32::from(lower >= self.largest_t);
        counts.consistent += u32::from(consistent >= self.largest_t);
        let mut largest = f64::NEG_INFINITY;
        for (index, count) in self.order.iter().zip(&mut counts.step_down).rev() {
            if let (Some(model), Some(resampled)) = (self.models.get(*index), means.get(*index)) {
                largest = largest.max(resampled / model.omega);
                *count += u32::from(largest >= model.t);
            }
        }
    }
}

/// Variance of sqrt(T) times the mean of a centred series under the stationary bootstrap.
///
/// With circular autocovariances c_i, the weighted sum of [`superiority()`] is c_0 + 2 sum (1 - i/T) q^i c_i. The sums
/// over lags `near` = sum q^i d_(t-i) and `far` = sum i q^i d_(t-i), for i from 1 to T - 1, follow from those of the bar
/// before, so that the whole takes time proportional to T.
fn kernel_variance(centred: ArrayView1<f64>, block_length: f64) -> f64 {
    let bars = centred.len();
    let count = bars as f64;
    let q = 1.0 - block_length.recip();
    // Of the oldest bar, t - (T - 1), which is the bar t + 1 in the circle.
    let oldest = q.powf(count - 1.0);
    let (mut near, mut far, mut power) = (0.0, 0.0, 1.0);
    for (lag, d) in (1..bars).zip(centred.iter().rev()) {
        power *= q;
        near += power * d;
        far += lag as f64 * power * d;
    }
    let mut total = 0.0;
    for (bar, d) in centred.iter().enumerate() {
        total += d * (d + 2.0 * (near - far / count));
        let next = centred.get(bar + 1).copied().unwrap_or_default();
        far = q * (far + near + d - count * oldest * next);
        near = q * (near + d - oldest * next);
    }
    total / count
}

#[cfg(test)]
mod tests;
