//! Average true range: Wilder's average of the true range, the greatest of high - low, |high - close before| and |low -
//! close before|.
//!
//! Output `atr` in the unit of the price, first value at bar `period`: the mean of the true ranges of bars 1 to `period`.
//! Source: Wilder, *New Concepts in Technical Trading Systems* (1978); seed as `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Average, Indicator, Input, Output, Spec, Unit, check};
use crate::Result;
use crate::gpu::Shader;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "indicators/atr", source: include_str!("../../shaders/indicators/atr.wgsl") };

/// Average true range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Atr {
    /// Wilder period in bars, 1 to 100000.
    pub period: u32,
}

impl Default for Atr {
    fn default() -> Self {
        Self { period: 14 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "atr", unit: Unit::Plain }];

impl Indicator for Atr {
    fn spec(&self) -> Result<Spec> {
        check("atr.period", self.period, 1)?;
        let range = Average::wilder("range", self.period);
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Candle,
            first: self.period,
            complete: self.period,
            memory: Some(range.memory().saturating_add(1)),
            constants: vec![],
            averages: vec![range],
            windows: vec![],
            state: 0,
        })
    }
}
