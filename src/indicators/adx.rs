//! Average directional index with +DI and -DI.
//!
//! +DI = 100 x (Wilder's sum of upward movements) / (Wilder's sum of true ranges); -DI uses downward movements. ADX is
//! Wilder's average of 100 |+DI - -DI| / (+DI + -DI). The sums are seeded with the first period - 1 values, the average with
//! the mean of the first `period` values.
//!
//! Outputs in 0 to 100: `adx` from bar 2 period - 1, `plus_di` and `minus_di` from bar `period`. Source: Wilder, *New
//! Concepts in Technical Trading Systems* (1978); seeds as in `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Output, Spec, Unit, Value, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/adx");

/// Average directional index with +DI and -DI.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Adx, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Adx { period: 14 }).compute(&series)?;
/// let last = values.get("adx").map(|adx| adx[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - 100.0).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adx {
    /// Wilder period in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Adx {
    fn default() -> Self {
        Self { period: 14 }
    }
}

const OUTPUTS: &[Output] = &[
    Output { name: "adx", unit: Unit::Plain },
    Output { name: "plus_di", unit: Unit::Plain },
    Output { name: "minus_di", unit: Unit::Plain },
];

impl Indicator for Adx {
    fn spec(&self) -> Result<Spec> {
        check("adx.period", self.period, 2)?;
        let average = Average::wilder("average", self.period);
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Candle,
            first: self.period,
            complete: 2 * self.period - 1,
            memory: Some(average.memory_of_ratio().saturating_mul(2)),
            ratio: true,
            constants: vec![
                ("count", Value::F32(f64::from(self.period))),
                ("first_average", Value::F32(f64::from(2 * self.period - 1))),
            ],
            averages: vec![average],
            windows: vec![],
            state: 7,
        })
    }
}
