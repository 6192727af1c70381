//! Realised volatility: sample standard deviation of the last `period` logarithmic returns, times the square root of
//! `periods_per_year`.
//!
//! Output `realized_volatility` per year, first value at bar `period`; NaN if a close of the window is not positive. Source:
//! the close-to-close estimator (Hull, *Options, Futures, and Other Derivatives*, ch. 15) with divisor n - 1.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Value, Window, check, check_factor};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/realized_volatility");

/// Realised volatility.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, RealizedVolatility, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(RealizedVolatility::default()).compute(&series)?;
/// let last = values.get("realized_volatility").map(|realized_volatility| realized_volatility[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - 0.0).abs() < 0.2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RealizedVolatility {
    /// Number of returns in the window, 2 to 100000.
    pub period: u32,
    /// Bars per year, above 0 and at most 31536000: 252 for daily bars, 8760 for hourly bars round the clock, 1 for a
    /// volatility per bar.
    pub periods_per_year: f64,
}

impl Default for RealizedVolatility {
    fn default() -> Self {
        Self { period: 20, periods_per_year: 252.0 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "realized_volatility", unit: Unit::Plain }];

impl Indicator for RealizedVolatility {
    fn spec(&self) -> Result<Spec> {
        check("realized_volatility.period", self.period, 2)?;
        check_factor("realized_volatility.periods_per_year", self.periods_per_year, 31_536_000.0)?;
        let n = f64::from(self.period);
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period,
            complete: self.period,
            memory: Some(self.period + 1),
            ratio: false,
            constants: vec![
                ("count", Value::F32(n)),
                ("scale", Value::F32((self.periods_per_year * n / (n - 1.0)).sqrt())),
            ],
            averages: vec![],
            windows: vec![Window {
                name: "returns",
                length: self.period,
                needs: &[Need::Sum, Need::Squares],
            }],
            state: 1,
        })
    }
}
