//! Keltner channel: an exponential moving average of the close, plus and minus a multiple of the average true range.
//!
//! Outputs `kc_upper`, `kc_middle`, `kc_lower`, prices, first values at bar max(period - 1, atr_period). Source: Keltner (1960) as
//! revised by Raschke; averages as [`super::Ema`] and [`super::Atr`].

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Output, Spec, Unit, Value, check, check_factor};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/keltner");

/// Keltner channel.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Keltner, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Keltner::default()).compute(&series)?;
/// let last = values.get("kc_upper").map(|kc_upper| kc_upper[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (60.0 - 9.5 + 2.0 * 1.5)).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keltner {
    /// Period of the average in bars, 2 to 100000.
    pub period: u32,
    /// Wilder period of the true range, 1 to 100000.
    pub atr_period: u32,
    /// Distance of a band from the middle in average true ranges, above 0 and at most 100.
    pub multiplier: f64,
}

impl Default for Keltner {
    fn default() -> Self {
        Self { period: 20, atr_period: 10, multiplier: 2.0 }
    }
}

const OUTPUTS: &[Output] = &[
    Output { name: "kc_upper", unit: Unit::Price },
    Output { name: "kc_middle", unit: Unit::Price },
    Output { name: "kc_lower", unit: Unit::Price },
];

impl Indicator for Keltner {
    fn spec(&self) -> Result<Spec> {
        check("keltner.period", self.period, 2)?;
        check("keltner.atr_period", self.atr_period, 1)?;
        check_factor("keltner.multiplier", self.multiplier, 100.0)?;
        let average = Average::exponential("average", self.period);
        let range = Average::wilder("range", self.atr_period);
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Candle,
            first: (self.period - 1).max(self.atr_period),
            complete: (self.period - 1).max(self.atr_period),
            memory: Some(average.memory().max(range.memory().saturating_add(1))),
            ratio: false,
            constants: vec![("multiplier", Value::F32(self.multiplier))],
            averages: vec![average, range],
            windows: vec![],
            state: 0,
        })
    }
}
