//! Bollinger bands: the mean of the last `period` closes, and that mean plus and minus multiples of their population
//! standard deviation.
//!
//! Outputs `bb_upper`, `bb_middle`, `bb_lower`, prices, first values at bar period - 1. The deviation is computed from closes
//! relative to the current one. Source: Bollinger (2001); population deviation as in `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Value, Window, check, check_factor};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/bbands");

/// Bollinger bands.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Bbands, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Bbands::default()).compute(&series)?;
/// let last = values.get("bb_middle").map(|bb_middle| bb_middle[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (60.0 - 9.5)).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bbands {
    /// Window in bars, 2 to 100000.
    pub period: u32,
    /// Distance of the upper band from the middle in standard deviations, above 0 and at most 100.
    pub deviations_up: f64,
    /// Distance of the lower band from the middle in standard deviations, above 0 and at most 100.
    pub deviations_down: f64,
}

impl Default for Bbands {
    fn default() -> Self {
        Self { period: 20, deviations_up: 2.0, deviations_down: 2.0 }
    }
}

const OUTPUTS: &[Output] = &[
    Output { name: "bb_upper", unit: Unit::Price },
    Output { name: "bb_middle", unit: Unit::Price },
    Output { name: "bb_lower", unit: Unit::Price },
];

impl Indicator for Bbands {
    fn spec(&self) -> Result<Spec> {
        check("bbands.period", self.period, 2)?;
        check_factor("bbands.deviations_up", self.deviations_up, 100.0)?;
        check_factor("bbands.deviations_down", self.deviations_down, 100.0)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(self.period),
            ratio: false,
            constants: vec![
                ("deviations_up", Value::F32(self.deviations_up)),
                ("deviations_down", Value::F32(self.deviations_down)),
            ],
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
