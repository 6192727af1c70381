//! Money flow index: 100 x the part of the money that flowed on rising typical prices, of the last `period` bars.
//!
//! Money is typical price x volume; the typical price is (high + low + close) / 3. Output `mfi`, 0 to 100, first value at bar
//! `period`; 0 where no money flowed. Source: Quong and Soudack (1989), `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "indicators/mfi", source: include_str!("../../shaders/indicators/mfi.wgsl") };

/// Money flow index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mfi {
    /// Window in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Mfi {
    fn default() -> Self {
        Self { period: 14 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "mfi", unit: Unit::Plain }];

impl Indicator for Mfi {
    fn spec(&self) -> Result<Spec> {
        check("mfi.period", self.period, 2)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Trades,
            first: self.period,
            complete: self.period,
            memory: Some(self.period + 1),
            constants: vec![],
            averages: vec![],
            windows: vec![
                Window { name: "up", length: self.period, needs: &[Need::Sum] },
                Window { name: "down", length: self.period, needs: &[Need::Sum] },
            ],
            state: 1,
        })
    }
}
