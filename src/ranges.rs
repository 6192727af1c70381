//! Ranges of settings and of numbers read from files.

use crate::{Error, Result};

/// Checks that `value` lies within `low..=high`.
///
/// # Errors
/// [`Error::Config`] if it does not, or is NaN.
pub fn check(key: &str, value: impl Into<f64>, low: f64, high: f64) -> Result<()> {
    let value = value.into();
    if value.is_finite() && (low..=high).contains(&value) {
        return Ok(());
    }
    let [value, low, high] = [value, low, high].map(number);
    Err(Error::config(key, format!("{value} is out of range: from {low} to {high}")))
}

/// A number as it is usually written, without hundreds of digits.
pub fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() || (1e-10..1e16).contains(&value.abs()) {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_written_shortly() {
        check("a", 2.5, 1.0, 2.5).unwrap();
        for (value, wanted) in [
            (f64::NAN, "setting `a`: NaN is out of range: from 0.5 to 1000000000"),
            (f64::INFINITY, "inf is out"),
            (-1.0, "-1 is out"),
            (1e300, "1e300 is out"),
            (-4.5e-300, "-4.5e-300 is out"),
            (0.0, "`a`: 0 is out"),
        ] {
            let error = check("a", value, 0.5, 1e9).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
