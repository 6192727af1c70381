//! Checks of returns and settings that the statistics share.

use ndarray::ArrayView2;

use crate::{Error, Result};

/// Standard deviations up to this share of the largest return, or of 1, are rounding errors and count as zero: a return is
/// the quotient of two equities minus one.
pub(super) const ROUNDING: f64 = 1e-14;

/// Whether the deviation of values of magnitude `peak` is a rounding error.
pub(super) fn is_constant(deviation: f64, peak: f64) -> bool {
    deviation <= ROUNDING * peak.max(1.0)
}

/// The largest absolute value.
pub(super) fn peak<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().fold(0.0, |peak, value| f64::max(peak, value.abs()))
}

/// Refuses fewer than `least` returns, and returns that are not finite.
pub(super) fn returns(what: &str, returns: &[f64], least: usize) -> Result<()> {
    if returns.len() < least {
        return Err(Error::Data(format!("{what}: fewer than {least} returns, got {}", returns.len())));
    }
    match returns.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((bar, value)) => {
            Err(Error::Data(format!("{what}: the return of bar {bar} is {value}, not finite")))
        }
        None => Ok(()),
    }
}

/// Refuses fewer than `bars` rows or `columns` columns, and values that are not finite. `column` names one column.
pub(super) fn matrix(
    what: &str,
    column: &str,
    values: &ArrayView2<f64>,
    bars: usize,
    columns: usize,
) -> Result<()> {
    let (rows, width) = values.dim();
    if width < columns {
        return Err(Error::Data(format!("{what}: fewer than {columns} {column}s, got {width}")));
    }
    if rows < bars {
        return Err(Error::Data(format!("{what}: fewer than {bars} bars, got {rows}")));
    }
    match values.indexed_iter().find(|(_, value)| !value.is_finite()) {
        Some(((bar, index), value)) => {
            Err(Error::Data(format!("{what}: {column} {index} is {value} at bar {bar}, not finite")))
        }
        None => Ok(()),
    }
}

/// Refuses a value that is not finite.
pub(super) fn finite(key: &str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::config(key, format!("{value} is not finite"))) }
}

/// The error for a series without variance.
pub(super) fn zero_variance(what: &str, undefined: &str) -> Error {
    Error::Data(format!("{what}: the returns have zero variance, so {undefined} is undefined"))
}

/// The error for a result that overflowed.
pub(super) fn too_large(what: &str) -> Error {
    Error::Data(format!("{what}: the returns are too large for f64 arithmetic"))
}
