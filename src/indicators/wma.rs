//! Weighted moving average: weights 1 (the oldest of the last `period` closes) to `period`.
//!
//! Output `wma`, a price, first value at bar period - 1. Source: `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Value, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "indicators/wma", source: include_str!("../../shaders/indicators/wma.wgsl") };

/// Weighted moving average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wma {
    /// Window in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Wma {
    fn default() -> Self {
        Self { period: 30 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "wma", unit: Unit::Price }];

impl Indicator for Wma {
    fn spec(&self) -> Result<Spec> {
        check("wma.period", self.period, 2)?;
        let n = f64::from(self.period);
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(self.period),
            constants: vec![("weights", Value::F32(n * (n + 1.0) / 2.0))],
            averages: vec![],
            windows: vec![Window {
                name: "closes",
                length: self.period,
                needs: &[Need::Sum, Need::Weighted],
            }],
            state: 0,
        })
    }
}
