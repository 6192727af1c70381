//! Logarithmic return: ln(close\[t\] / close\[t - period\]).
//!
//! Output `log_return`, first value at bar `period`; NaN if one of the closes is not positive.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/log_return");

/// Logarithmic return.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, LogReturn, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(LogReturn { period: 1 }).compute(&series)?;
/// let last = values.get("log_return").map(|log_return| log_return[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - ((60f64 / 59.0).ln())).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogReturn {
    /// Distance of the two closes in bars, 1 to 100000.
    pub period: u32,
}

impl Default for LogReturn {
    fn default() -> Self {
        Self { period: 1 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "log_return", unit: Unit::Plain }];

impl Indicator for LogReturn {
    fn spec(&self) -> Result<Spec> {
        check("log_return.period", self.period, 1)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period,
            complete: self.period,
            memory: Some(self.period + 1),
            ratio: false,
            constants: vec![],
            averages: vec![],
            windows: vec![Window { name: "closes", length: self.period, needs: &[Need::Lag] }],
            state: 0,
        })
    }
}
