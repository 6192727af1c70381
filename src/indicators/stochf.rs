//! Fast stochastic oscillator: %K = 100 (close - lowest low) / (highest high - lowest low) of the last `k` bars, %D = mean
//! of the last `d` %K.
//!
//! Outputs `stoch_k`, `stoch_d`, 0 to 100, first values at bar k + d - 2. %K is 0 if all prices of the window are equal.
//! Source: Lane (1984); TA-Lib's STOCHF, and `ta-lib` 0.8 where all prices are equal.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Value, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/stochf");

/// Fast stochastic oscillator.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Stochf, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Stochf::default()).compute(&series)?;
/// let last = values.get("stoch_k").map(|stoch_k| stoch_k[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (100.0 * 13.5 / 14.0)).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stochf {
    /// Window of the price range in bars, 1 to 100000.
    pub k: u32,
    /// Window of the mean in bars, 1 to 100000.
    pub d: u32,
}

impl Default for Stochf {
    fn default() -> Self {
        Self { k: 14, d: 3 }
    }
}

const OUTPUTS: &[Output] =
    &[Output { name: "stoch_k", unit: Unit::Plain }, Output { name: "stoch_d", unit: Unit::Plain }];

impl Indicator for Stochf {
    fn spec(&self) -> Result<Spec> {
        check("stochf.k", self.k, 1)?;
        check("stochf.d", self.d, 1)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Candle,
            first: self.k + self.d - 2,
            complete: self.k + self.d - 2,
            memory: Some(self.k + self.d),
            ratio: false,
            constants: vec![("share", Value::F32(1.0 / f64::from(self.d)))],
            averages: vec![],
            windows: vec![
                Window { name: "highs", length: self.k, needs: &[Need::Highest] },
                Window { name: "lows", length: self.k, needs: &[Need::Lowest] },
                Window { name: "percents", length: self.d, needs: &[Need::Sum] },
            ],
            state: 0,
        })
    }
}
