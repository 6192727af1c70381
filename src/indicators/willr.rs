//! Williams %R: -100 (highest high - close) / (highest high - lowest low) of the last `period` bars.
//!
//! Output `willr`, -100 to 0, first value at bar period - 1; 0 where all prices of the window are the same. Source: `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "indicators/willr", source: include_str!("../../shaders/indicators/willr.wgsl") };

/// Williams %R.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Willr {
    /// Window in bars, 2 to 100000.
    pub period: u32,
}

impl Default for Willr {
    fn default() -> Self {
        Self { period: 14 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "willr", unit: Unit::Plain }];

impl Indicator for Willr {
    fn spec(&self) -> Result<Spec> {
        check("willr.period", self.period, 2)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Candle,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(self.period),
            constants: vec![],
            averages: vec![],
            windows: vec![
                Window { name: "highs", length: self.period, needs: &[Need::Extremes] },
                Window { name: "lows", length: self.period, needs: &[Need::Extremes] },
            ],
            state: 0,
        })
    }
}
