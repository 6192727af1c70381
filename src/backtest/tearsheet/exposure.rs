//! Position values as fractions of the equity.

use ndarray::ArrayView2;

/// Position values at each close as fractions of the equity at that close; 0 without a position, and once the account is closed. Means and
/// extremes leave out the first close, which precedes the first decision.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Exposure {
    /// Gross exposure, the sum of |units| x close over the instruments / equity, `[bar]`.
    pub gross: Vec<f64>,
    /// Net exposure, the sum of units x close / equity: long less short, `[bar]`.
    pub net: Vec<f64>,
    /// Mean gross exposure.
    pub mean_gross: f64,
    /// Largest gross exposure.
    pub max_gross: f64,
    /// Mean net exposure.
    pub mean_net: f64,
    /// Smallest net exposure.
    pub min_net: f64,
    /// Largest net exposure.
    pub max_net: f64,
    /// Fraction of bars with a position in at least one instrument at the close.
    pub invested: f64,
}

impl Exposure {
    /// `values` are those of the positions, `[bar][instrument]`.
    pub(super) fn new(values: ArrayView2<'_, f64>, equity: &[f64]) -> Self {
        let fraction = |value: f64, equity: f64| if value == 0.0 { 0.0 } else { value / equity };
        let of = |part: fn(f64) -> f64| -> Vec<f64> {
            let sums = values.outer_iter().map(|row| row.iter().map(|value| part(*value)).sum());
            sums.zip(equity).map(|(sum, equity)| fraction(sum, *equity)).collect()
        };
        let (gross, net) = (of(f64::abs), of(|value| value));
        let after = |series: &[f64]| series.get(1..).unwrap_or_default().to_vec();
        let (held, sides) = (after(&gross), after(&net));
        let count = held.len().max(1) as f64;
        let largest = |series: &[f64]| series.iter().copied().reduce(f64::max).unwrap_or(0.0);
        Self {
            mean_gross: held.iter().sum::<f64>() / count,
            max_gross: largest(&held),
            mean_net: sides.iter().sum::<f64>() / count,
            min_net: sides.iter().copied().reduce(f64::min).unwrap_or(0.0),
            max_net: largest(&sides),
            invested: held.iter().filter(|gross| **gross > 0.0).count() as f64 / count,
            gross,
            net,
        }
    }
}
