//! Exponential moving average: x <- x + 2 (close - x) / (period + 1), starting as the mean of the first `period` closes.
//!
//! Output `ema`, a price, first value at bar period - 1. Source: `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Output, Spec, Unit, check};
use crate::Result;
use crate::gpu::Shader;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "indicators/ema", source: include_str!("../../shaders/indicators/ema.wgsl") };

/// Exponential moving average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ema {
    /// Period in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Ema {
    fn default() -> Self {
        Self { period: 30 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "ema", unit: Unit::Price }];

impl Indicator for Ema {
    fn spec(&self) -> Result<Spec> {
        check("ema.period", self.period, 2)?;
        let average = Average::exponential("average", self.period);
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(average.memory()),
            constants: vec![],
            averages: vec![average],
            windows: vec![],
            state: 0,
        })
    }
}
