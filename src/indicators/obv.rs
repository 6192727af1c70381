//! On-balance volume: the volume of the first bar, plus the volume of every bar that closed higher, minus that of every bar
//! that closed lower.
//!
//! Output `obv` in the unit of the volume, first value at bar 0; it starts anew after a missing bar. Source: Granville (1963),
//! `ta-lib` 0.8. It never forgets its start, so that a series is walked in one piece.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Output, Spec, Unit};
use crate::Result;
use crate::gpu::Shader;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "indicators/obv", source: include_str!("../../shaders/indicators/obv.wgsl") };

/// On-balance volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Obv {}

const OUTPUTS: &[Output] = &[Output { name: "obv", unit: Unit::Plain }];

impl Indicator for Obv {
    fn spec(&self) -> Result<Spec> {
        Ok(Spec {
            shader: SHADER,
            outputs: OUTPUTS,
            input: Input::Trades,
            first: 0,
            complete: 0,
            memory: None,
            constants: vec![],
            averages: vec![],
            windows: vec![],
            state: 2,
        })
    }
}
