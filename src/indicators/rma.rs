//! Running moving average (Wilder's, smoothed): x <- x + (close - x) / period, starting as the mean of the first `period`
//! closes.
//!
//! Output `rma`, a price, first value at bar period - 1. Source: Wilder, *New Concepts in Technical Trading Systems* (1978); the
//! average inside TA-Lib's RSI and ATR.

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Output, Spec, Unit, check};
use crate::Result;
use crate::gpu::Shader;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "indicators/rma", source: include_str!("../../shaders/indicators/rma.wgsl") };

/// Running moving average (Wilder's, smoothed).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rma {
    /// Wilder period in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Rma {
    fn default() -> Self {
        Self { period: 14 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "rma", unit: Unit::Price }];

impl Indicator for Rma {
    fn spec(&self) -> Result<Spec> {
        check("rma.period", self.period, 2)?;
        let average = Average::wilder("average", self.period);
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
