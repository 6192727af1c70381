//! Rolling volume-weighted average price: sum(p volume) / sum(volume) of the typical prices p = (high + low + close) / 3 of the
//! last `period` bars.
//!
//! Output `vwap`, a price, first value at bar period - 1; NaN where nothing was traded.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "indicators/vwap", source: include_str!("../../shaders/indicators/vwap.wgsl") };

/// Rolling volume-weighted average price.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vwap {
    /// Window in bars, 1 to 100000.
    pub period: u32,
}

impl Default for Vwap {
    fn default() -> Self {
        Self { period: 20 }
    }
}

const OUTPUTS: &[Output] = &[Output { name: "vwap", unit: Unit::Price }];

impl Indicator for Vwap {
    fn spec(&self) -> Result<Spec> {
        check("vwap.period", self.period, 1)?;
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Trades,
            first: self.period - 1,
            complete: self.period - 1,
            memory: Some(self.period),
            constants: vec![],
            averages: vec![],
            windows: vec![
                Window { name: "prices", length: self.period, needs: &[Need::Each] },
                Window { name: "volumes", length: self.period, needs: &[Need::Sum, Need::Each] },
            ],
            state: 0,
        })
    }
}
