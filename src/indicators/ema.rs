//! Exponential moving average: x <- x + 2 (close - x) / (period + 1), seeded with the mean of the first `period` closes.
//!
//! Output `ema`, a price, first value at bar period - 1. Source: `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Output, Spec, Unit, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/ema");

/// Exponential moving average.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Ema, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Ema { period: 30 }).compute(&series)?;
/// let last = values.get("ema").map(|ema| ema[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (60.0 - 14.5)).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ema {
    /// Period in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Ema {
    fn default() -> Self {
        Self { period: 30 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "ema", unit: Unit::Price }];

impl Indicator for Ema {
    fn spec(&self) -> Result<Spec> {
        check("ema.period", self.period, 2)?;
        let average = Average::exponential("average", self.period);
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(average.memory()),
            ratio: false,
            constants: vec![],
            averages: vec![average],
            windows: vec![],
            state: 0,
        })
    }
}
