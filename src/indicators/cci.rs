//! Commodity channel index: (p - mean) / (0.015 x mean absolute deviation), where p = (high + low + close) / 3 is the typical
//! price and the statistics cover the last `period` bars.
//!
//! Output `cci`, first value at bar period - 1; 0 if all typical prices are equal. Source: Lambert (1980), `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Value, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/cci");

/// Commodity channel index.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Cci, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Cci { period: 14 }).compute(&series)?;
/// let last = values.get("cci").map(|cci| cci[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (6.5 / (0.015 * 3.5))).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cci {
    /// Window in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Cci {
    fn default() -> Self {
        Self { period: 14 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "cci", unit: Unit::Plain }];

impl Indicator for Cci {
    fn spec(&self) -> Result<Spec> {
        check("cci.period", self.period, 2)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Candle,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(self.period),
            ratio: false,
            constants: vec![("share", Value::F32(1.0 / f64::from(self.period)))],
            averages: vec![],
            windows: vec![Window {
                name: "prices",
                length: self.period,
                needs: &[Need::Prices, Need::Sum, Need::Each],
            }],
            state: 0,
        })
    }
}
