//! Williams %R: -100 (highest high - close) / (highest high - lowest low) of the last `period` bars.
//!
//! Output `willr`, -100 to 0, first value at bar period - 1; 0 if all prices of the window are equal. Source: `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/willr");

/// Williams %R.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Willr, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Willr { period: 14 }).compute(&series)?;
/// let last = values.get("willr").map(|willr| willr[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (-100.0 * 0.5 / 14.0)).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Willr {
    /// Window in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Willr {
    fn default() -> Self {
        Self { period: 14 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "willr", unit: Unit::Plain }];

impl Indicator for Willr {
    fn spec(&self) -> Result<Spec> {
        check("willr.period", self.period, 2)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Candle,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(self.period),
            ratio: false,
            constants: vec![],
            averages: vec![],
            windows: vec![
                Window { name: "highs", length: self.period, needs: &[Need::Highest] },
                Window { name: "lows", length: self.period, needs: &[Need::Lowest] },
            ],
            state: 0,
        })
    }
}
