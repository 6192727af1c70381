//! Relative strength index: 100 G / (G + L), in 0 to 100.
//!
//! G and L are Wilder's averages of the gains max(d, 0) and losses max(-d, 0) of d = close\[t\] - close\[t-1\], seeded with
//! the mean of the first `period` values and updated by x <- x + (new - x) / period. The RSI is 50 if G + L = 0.
//!
//! Output `rsi`, first value at bar `period`. Source: Wilder, *New Concepts in Technical Trading Systems* (1978); seed and
//! constant prices as in `ta-lib` 0.8. After about a thousand bars without change, both averages underflow in f32 and the
//! RSI becomes 50.

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Output, Spec, Unit, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/rsi");

/// Relative strength index.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Rsi, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let values = Indicators::new(&gpu).with(Rsi { period: 14 }).compute(&series)?;
/// let last = values.get("rsi").map(|rsi| rsi[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - 100.0).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rsi {
    /// Wilder period in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Rsi {
    fn default() -> Self {
        Self { period: 14 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "rsi", unit: Unit::Plain }];

impl Indicator for Rsi {
    fn spec(&self) -> Result<Spec> {
        check("rsi.period", self.period, 2)?;
        let gain = Average::wilder("gain", self.period);
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period,
            complete: self.period,
            memory: Some(gain.memory_of_ratio().saturating_add(1)),
            ratio: true,
            constants: vec![],
            averages: vec![gain, Average { name: "loss", ..gain }],
            windows: vec![],
            state: 0,
        })
    }
}
