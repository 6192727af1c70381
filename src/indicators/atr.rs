//! Average true range: Wilder's average of the true range, which is the largest of high - low, |high - previous close| and
//! |low - previous close|.
//!
//! Output `atr` in the unit of the price, first value at bar `period`: the mean of the true ranges of bars 1 to `period`.
//! Source: Wilder, *New Concepts in Technical Trading Systems* (1978); seed as in `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Output, Spec, Unit, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/atr");

/// Average true range.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Atr, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Atr { period: 14 }).compute(&series)?;
/// let last = values.get("atr").map(|atr| atr[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - 1.5).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Atr {
    /// Wilder period in bars, 1 to 100000.
    pub period: u32,
}

impl Default for Atr {
    fn default() -> Self {
        Self { period: 14 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "atr", unit: Unit::Plain }];

impl Indicator for Atr {
    fn spec(&self) -> Result<Spec> {
        check("atr.period", self.period, 1)?;
        let range = Average::wilder("range", self.period);
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Candle,
            first: self.period,
            complete: self.period,
            memory: Some(range.memory().saturating_add(1)),
            ratio: false,
            constants: vec![],
            averages: vec![range],
            windows: vec![],
            state: 0,
        })
    }
}
