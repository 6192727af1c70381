//! Running moving average (Wilder's, smoothed): x <- x + (close - x) / period, seeded with the mean of the first `period`
//! closes.
//!
//! Output `rma`, a price, first value at bar period - 1. Source: Wilder, *New Concepts in Technical Trading Systems* (1978); the
//! average inside TA-Lib's RSI and ATR.

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Output, Spec, Unit, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/rma");

/// Running moving average (Wilder's, smoothed).
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Rma, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Rma { period: 2 }).compute(&series)?;
/// let last = values.get("rma").map(|rma| rma[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - 59.0).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rma {
    /// Wilder period in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Rma {
    fn default() -> Self {
        Self { period: 14 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "rma", unit: Unit::Price }];

impl Indicator for Rma {
    fn spec(&self) -> Result<Spec> {
        check("rma.period", self.period, 2)?;
        let average = Average::wilder("average", self.period);
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
