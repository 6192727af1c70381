//! Donchian channel: the highest high and the lowest low of the last `period` bars, and their mean.
//!
//! Outputs `dc_upper`, `dc_middle`, `dc_lower`, prices, first values at bar period - 1. The window includes the current bar.
//! Source: TA-Lib's MAX of the high and MIN of the low.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/donchian");

/// Donchian channel.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Donchian, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Donchian { period: 20 }).compute(&series)?;
/// let last = values.get("dc_lower").map(|dc_lower| dc_lower[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (41.0 - 0.5)).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Donchian {
    /// Window in bars, 1 to 100000.
    pub period: u32,
}

impl Default for Donchian {
    fn default() -> Self {
        Self { period: 20 }
    }
}

const OUTPUTS: &[Output] = &[
    Output { name: "dc_upper", unit: Unit::Price },
    Output { name: "dc_middle", unit: Unit::Price },
    Output { name: "dc_lower", unit: Unit::Price },
];

impl Indicator for Donchian {
    fn spec(&self) -> Result<Spec> {
        check("donchian.period", self.period, 1)?;
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
