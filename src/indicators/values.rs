//! Indicator values on the CPU.

use ndarray::{Array3, ArrayView2, ArrayView3, Axis, Zip, s};

use super::Series;
use super::indicator::Unit;
use super::panel::Column;
use crate::{Error, Result};

/// A price in f64, from its difference from the close and the price itself, each rounded to f32: the smaller of the two has the
/// smaller error. `price` is NaN where the device does not store it.
pub(super) fn more_precise(difference: f64, price: f64, close: f64) -> f64 {
    if price.abs() < difference.abs() { price } else { close + difference }
}

/// Indicator values on the CPU, NaN before an output's first valid bar. They have the precision of f32 (or f16); for prices,
/// that precision applies to the difference from the close, and for extremes of prices to the smaller of the difference and
/// the price.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    pub(super) columns: Vec<(String, Unit, Array3<f64>)>,
}

impl Values {
    pub(super) fn place(column: &Column, series: &Series, values: Vec<f64>) -> Result<Array3<f64>> {
        let shape = (column.combinations, series.series() as usize, series.stride() as usize);
        let length = shape.0 * shape.1 * shape.2;
        let part = |from: usize| {
            let found = values.get(from..from + length).map(<[f64]>::to_vec).unwrap_or_default();
            let all = Array3::from_shape_vec(shape, found)
                .map_err(|_| Error::shape("values read", from + length, values.len()))?;
            Ok(all.slice_move(s![.., .., ..series.bars() as usize]))
        };
        let mut all: Array3<f64> = part(0)?;
        if column.unit != Unit::Price {
            return Ok(all);
        }
        let prices = if column.prices { part(length)? } else { Array3::from_elem(all.dim(), f64::NAN) };
        for (mut values, prices) in all.outer_iter_mut().zip(prices.outer_iter()) {
            Zip::from(&mut values)
                .and(&prices)
                .and(series.close())
                .for_each(|value, price, close| *value = more_precise(*value, *price, *close));
        }
        Ok(all)
    }

    /// Names of the outputs, in the order of addition.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, ..)| name.as_str())
    }

    /// The unit of an output, [`Unit::Price`] for prices; `None` for an unknown name.
    #[must_use]
    pub fn unit(&self, name: &str) -> Option<Unit> {
        self.columns.iter().find(|(own, ..)| own == name).map(|(_, unit, _)| *unit)
    }

    /// An output, `[series][bars]`, for the first parameter set; `None` for an unknown name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<ArrayView2<'_, f64>> {
        self.grid(name).map(|values| values.index_axis_move(Axis(0), 0))
    }

    /// An output for all parameter sets, `[combination][series][bars]`; `None` for an unknown name.
    #[must_use]
    pub fn grid(&self, name: &str) -> Option<ArrayView3<'_, f64>> {
        self.columns.iter().find(|(own, ..)| own == name).map(|(.., values)| values.view())
    }
}
