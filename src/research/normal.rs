//! The standard normal distribution: its distribution function and quantiles, in f64.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

/// Distribution function, Phi(x) = erfc(-x / sqrt(2)) / 2: accurate in the lower tail too.
pub(super) fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// Quantile, the x with Phi(x) = `p`: infinite for 0 and 1, NaN outside of \[0, 1\].
///
/// Starts from formula 26.2.23 of Abramowitz & Stegun [1964, "Handbook of Mathematical Functions"], which is within 4.5e-4,
/// and takes three of Halley's steps, each of which triples the number of right digits.
pub(super) fn quantile(p: f64) -> f64 {
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    if p <= 0.0 || p.is_nan() {
        return if p == 0.0 { f64::NEG_INFINITY } else { f64::NAN };
    }
    let t = (-2.0 * p.ln()).sqrt();
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let denominator = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let mut x = numerator / denominator - t;
    for _ in 0..3 {
        // (Phi(x) - p) / phi(x), with the quotient by `p` first: in the far tail both are tiny.
        let error = (cdf(x) / p - 1.0) * (p.ln() + 0.5 * x * x).exp() * TAU.sqrt();
        x -= error / (1.0 + 0.5 * x * error);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of scipy.special.ndtr and ndtri.
    #[test]
    fn values_of_scipy() {
        let pairs = [
            (-37.0, 5.725571222523927e-300),
            (-8.0, 6.22096057427174e-16),
            (-1.0, 0.15865525393145707),
            (-0.7079415883176665, 0.2394907659575829),
            (0.0, 0.5),
            (1.959963984540054, 0.975),
            (3.0, 0.9986501019683699),
        ];
        for (x, p) in pairs {
            // Rounding of x / sqrt(2) weighs x^2 times as much.
            assert!((cdf(x) / p - 1.0).abs() < 1e-15 * (x * x).max(10.0), "{x}: {}", cdf(x));
            assert!((quantile(p) - x).abs() < 1e-13 * f64::abs(x).max(1.0), "{p}: {}", quantile(p));
        }
    }

    #[test]
    fn quantiles_invert_the_distribution_function() {
        for step in 1..4000 {
            let p = f64::from(step) / 4000.0;
            assert!((cdf(quantile(p)) / p - 1.0).abs() < 1e-14, "{p}");
            let tail = 10f64.powf(-f64::from(step) / 14.0);
            assert!((cdf(quantile(tail)) / tail - 1.0).abs() < 1e-11, "{tail}");
        }
        assert_eq!((quantile(0.0), quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(quantile(f64::NAN).is_nan() && quantile(-0.1).is_nan() && quantile(1.1).is_nan());
    }
}
