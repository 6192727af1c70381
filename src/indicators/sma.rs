//! Simple moving average: the mean of the last `period` closes.
//!
//! Output `sma`, a price, first value at bar period - 1. Source: `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Value, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "indicators/sma", source: include_str!("../../shaders/indicators/sma.wgsl") };

/// Simple moving average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sma {
    /// Window in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Sma {
    fn default() -> Self {
        Self { period: 30 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "sma", unit: Unit::Price }];

impl Indicator for Sma {
    fn spec(&self) -> Result<Spec> {
        check("sma.period", self.period, 2)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(self.period),
            constants: vec![("count", Value::F32(f64::from(self.period)))],
            averages: vec![],
            windows: vec![Window { name: "closes", length: self.period, needs: &[Need::Sum] }],
            state: 0,
        })
    }
}
