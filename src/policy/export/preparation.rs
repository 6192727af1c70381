//! The way of a raw observation to the networks: scaling of a market's features, and normalisation by running statistics.

use super::Policy;
#[cfg(feature = "market")]
use crate::market::{FEATURE_LIMIT, FILLED};

/// Largest absolute value of the weight of a position in an observation (`shaders/env/market.wgsl`).
#[cfg(feature = "market")]
const WEIGHT_LIMIT: f32 = 5.0;

/// `clamp((x - mean) / deviation, -limit, limit)`, each `[agent][feature]`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scaling {
    pub mean: Vec<f32>,
    pub deviation: Vec<f32>,
    /// 0 for a feature that was constant in training.
    pub limit: Vec<f32>,
    /// Whether a feature that is not finite counts as 0, `[feature]`: those of a bar, but not those of the position.
    pub of_bar: Vec<bool>,
}

/// `clamp((x - mean - remainder) * scale, -10, 10)`, each `[agent][feature]` or `[number]`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Normalization {
    pub mean: Vec<f32>,
    pub remainder: Vec<f32>,
    /// 1 / deviation, or 0 for a constant.
    pub scale: Vec<f32>,
}

/// Scaling of a market's features; `None` for other environments, whose observations have none.
#[cfg(feature = "market")]
pub(super) fn scaling(policy: &Policy) -> Option<Scaling> {
    let statistics = &policy.metadata().market.as_ref()?.scaling;
    let features = statistics.features.len();
    let filled = statistics.features.last().is_some_and(|name| name == FILLED);
    let mut scaling = Scaling { of_bar: vec![true; features], ..Scaling::default() };
    scaling.of_bar.extend([false; 2]);
    let mut push = |mean: f32, deviation: f32, limit: f32| {
        scaling.mean.push(mean);
        scaling.deviation.push(deviation);
        scaling.limit.push(limit);
    };
    for own in statistics.moments.chunks_exact(features.max(1)) {
        for (feature, [mean, deviation]) in own.iter().copied().enumerate() {
            if filled && feature + 1 == features {
                push(0.0, 1.0, f32::MAX);
            } else if deviation > 1e-6 * mean.abs() && deviation > 1e-20 {
                push(mean, deviation, FEATURE_LIMIT);
            } else {
                push(mean, 1.0, 0.0);
            }
        }
        // Target level, and weight of the position.
        push(0.0, 1.0, f32::MAX);
        push(0.0, 1.0, WEIGHT_LIMIT);
    }
    Some(scaling)
}

#[cfg(not(feature = "market"))]
pub(super) fn scaling(_: &Policy) -> Option<Scaling> {
    None
}

/// Normalisation of the columns from `first` on: of all agents' features, and behind them of the global state. `None` without
/// `observation_norm`.
pub(super) fn normalization(policy: &Policy, first: usize, columns: usize) -> Option<Normalization> {
    let statistics = policy.metadata().observation_moments.get(first..first + columns)?;
    let mut found = Normalization::default();
    for [mean, remainder, squares, count] in statistics.iter().copied() {
        let deviation = (squares / count.max(1.0)).sqrt();
        let useful = deviation > 1e-6 * mean.abs() && deviation > 1e-20;
        found.mean.push(mean);
        found.remainder.push(remainder);
        found.scale.push(if useful { 1.0 / deviation } else { 0.0 });
    }
    Some(found)
}
