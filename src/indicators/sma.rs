//! Simple moving average: the mean of the last `period` closes.
//!
//! Output `sma`, a price, first value at bar period - 1. Source: `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Value, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/sma");

/// Simple moving average.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Sma, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Sma { period: 30 }).compute(&series)?;
/// let last = values.get("sma").map(|sma| sma[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (60.0 - 14.5)).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sma {
    /// Window in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Sma {
    fn default() -> Self {
        Self { period: 30 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "sma", unit: Unit::Price }];

impl Indicator for Sma {
    fn spec(&self) -> Result<Spec> {
        check("sma.period", self.period, 2)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(self.period),
            ratio: false,
            constants: vec![("share", Value::F32(1.0 / f64::from(self.period)))],
            averages: vec![],
            windows: vec![Window { name: "closes", length: self.period, needs: &[Need::Prices, Need::Sum] }],
            state: 0,
        })
    }
}
