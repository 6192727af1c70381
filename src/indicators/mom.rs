//! Momentum: close\[t\] - close\[t - period\].
//!
//! Output `mom` in the unit of the price, first value at bar `period`. Source: `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "indicators/mom", source: include_str!("../../shaders/indicators/mom.wgsl") };

/// Momentum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mom {
    /// Distance of the two closes in bars, 1 to 100000.
    pub period: u32,
}

impl Default for Mom {
    fn default() -> Self {
        Self { period: 10 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "mom", unit: Unit::Plain }];

impl Indicator for Mom {
    fn spec(&self) -> Result<Spec> {
        check("mom.period", self.period, 1)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Close,
            first: self.period,
            complete: self.period,
            memory: Some(self.period + 1),
            constants: vec![],
            averages: vec![],
            windows: vec![Window { name: "closes", length: self.period + 1, needs: &[] }],
            state: 0,
        })
    }
}
