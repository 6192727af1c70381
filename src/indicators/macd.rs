//! Moving average convergence divergence: line = fast average - slow average, signal = average of the line, histogram =
//! line - signal.
//!
//! The averages are exponential with weight 2 / (period + 1). The slow one is seeded with the mean of the first `slow`
//! closes, the fast one with the mean of the last `fast` of these, so that both start at the same bar. The signal is seeded
//! with the mean of the first `signal` values of the line.
//!
//! Outputs `macd`, `macd_signal`, `macd_hist` in the unit of the price, first values at bar slow + signal - 2. Source: Appel
//! (1979); seeds as in `ta-lib` 0.8. The averages are stored relative to the close to keep f32 precision.

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Output, Spec, Unit, Value, check};
use crate::gpu::Shader;
use crate::{Error, Result};

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/macd");

/// Moving average convergence divergence.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Macd, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Macd::default()).compute(&series)?;
/// let last = values.get("macd").map(|macd| macd[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - 7.0).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Macd {
    /// Period of the fast average in bars, 2 to 100000 and below `slow`.
    pub fast: u32,
    /// Period of the slow average in bars, 2 to 100000.
    pub slow: u32,
    /// Period of the signal line in bars, 1 to 100000.
    pub signal: u32,
}

impl Default for Macd {
    fn default() -> Self {
        Self { fast: 12, slow: 26, signal: 9 }
    }
}

const OUTPUTS: &[Output] = &[
    Output { name: "macd", unit: Unit::Plain },
    Output { name: "macd_signal", unit: Unit::Plain },
    Output { name: "macd_hist", unit: Unit::Plain },
];

impl Indicator for Macd {
    fn spec(&self) -> Result<Spec> {
        check("macd.fast", self.fast, 2)?;
        check("macd.slow", self.slow, 2)?;
        check("macd.signal", self.signal, 1)?;
        if self.fast >= self.slow {
            let reason = format!("{} is not below macd.slow, which is {}", self.fast, self.slow);
            return Err(Error::config("macd.fast", reason));
        }
        let slow = Average::exponential("slow", self.slow);
        let signal = Average::exponential("signal", self.signal);
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.slow + self.signal - 2,
            complete: self.slow + self.signal - 2,
            memory: Some(slow.memory().saturating_add(signal.memory())),
            ratio: false,
            constants: vec![
                ("late", Value::F32(f64::from(self.slow - self.fast))),
                ("first_line", Value::F32(f64::from(self.slow - 1))),
            ],
            averages: vec![Average::exponential("fast", self.fast), slow, signal],
            windows: vec![],
            state: 0,
        })
    }
}
