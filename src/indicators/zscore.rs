//! Rolling z-score: (close - mean) / population standard deviation of the last `period` closes.
//!
//! Output `zscore`, first value at bar period - 1; 0 if all closes of the window are equal.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/zscore");

/// Rolling z-score.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Zscore, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Zscore { period: 3 }).compute(&series)?;
/// let last = values.get("zscore").map(|zscore| zscore[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (1.5f64.sqrt())).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Zscore {
    /// Window in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Zscore {
    fn default() -> Self {
        Self { period: 20 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "zscore", unit: Unit::Plain }];

impl Indicator for Zscore {
    fn spec(&self) -> Result<Spec> {
        check("zscore.period", self.period, 2)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(self.period),
            ratio: false,
            constants: vec![],
            averages: vec![],
            windows: vec![Window {
                name: "closes",
                length: self.period,
                needs: &[Need::Prices, Need::Sum, Need::Squares],
            }],
            state: 0,
        })
    }
}
