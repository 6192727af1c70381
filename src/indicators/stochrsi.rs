//! Stochastic RSI: the fast stochastic of the RSI.
//!
//! Outputs `stochrsi_k`, `stochrsi_d`, 0 to 100, first values at bar period + k + d - 2. %K is 0 if all RSI values of the
//! window are equal. Source: Chande and Kroll (1993), TA-Lib's STOCHRSI.

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Need, Output, Spec, Unit, Value, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/stochrsi");

/// Stochastic RSI.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Stochrsi, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Stochrsi::default()).compute(&series)?;
/// let last = values.get("stochrsi_k").map(|stochrsi_k| stochrsi_k[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - 0.0).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stochrsi {
    /// Wilder period of the RSI in bars, 2 to 100000.
    pub period: u32,
    /// Window of the RSI's range in bars, 1 to 100000.
    pub k: u32,
    /// Window of the mean in bars, 1 to 100000.
    pub d: u32,
}

impl Default for Stochrsi {
    fn default() -> Self {
        Self { period: 14, k: 5, d: 3 }
    }
}

const OUTPUTS: &[Output] =
    &[Output { name: "stochrsi_k", unit: Unit::Plain }, Output { name: "stochrsi_d", unit: Unit::Plain }];

impl Indicator for Stochrsi {
    fn spec(&self) -> Result<Spec> {
        check("stochrsi.period", self.period, 2)?;
        check("stochrsi.k", self.k, 1)?;
        check("stochrsi.d", self.d, 1)?;
        let gain = Average::wilder("gain", self.period);
        let windows = self.k + self.d;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period + windows - 2,
            complete: self.period + windows - 2,
            memory: Some(gain.memory_of_ratio().saturating_add(windows)),
            ratio: true,
            constants: vec![("share", Value::F32(1.0 / f64::from(self.d)))],
            averages: vec![gain, Average { name: "loss", ..gain }],
            windows: vec![
                Window { name: "highest", length: self.k, needs: &[Need::Highest] },
                Window { name: "lowest", length: self.k, needs: &[Need::Lowest] },
                Window { name: "percents", length: self.d, needs: &[Need::Sum] },
            ],
            state: 0,
        })
    }
}
