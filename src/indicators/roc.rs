//! Rate of change in per cent: 100 (close\[t\] / close\[t - period\] - 1).
//!
//! Output `roc`, first value at bar `period`; 0 if the earlier close is 0. Source: `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/roc");

/// Rate of change in per cent.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Roc, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Roc { period: 10 }).compute(&series)?;
/// let last = values.get("roc").map(|roc| roc[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (100.0 * 10.0 / 50.0)).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roc {
    /// Distance of the two closes in bars, 1 to 100000.
    pub period: u32,
}

impl Default for Roc {
    fn default() -> Self {
        Self { period: 10 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "roc", unit: Unit::Plain }];

impl Indicator for Roc {
    fn spec(&self) -> Result<Spec> {
        check("roc.period", self.period, 1)?;
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
