//! Rolling volume-weighted average price: sum(p volume) / sum(volume) of the typical prices p = (high + low + close) / 3 of the
//! last `period` bars.
//!
//! Output `vwap`, a price, first value at bar period - 1; NaN if the window has no volume.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/vwap");

/// Rolling volume-weighted average price.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Vwap, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let volume = Array2::from_elem((1, 60), 100.0);
/// let series = Series::with_volume(&gpu, high.view(), low.view(), close.view(), volume.view())?;
/// let values = Indicators::new(&gpu).with(Vwap { period: 20 }).compute(&series)?;
/// let last = values.get("vwap").map(|vwap| vwap[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (60.0 - 9.5)).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
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
            ratio: false,
            constants: vec![],
            averages: vec![],
            windows: vec![
                Window { name: "prices", length: self.period, needs: &[Need::Prices, Need::Each] },
                Window { name: "volumes", length: self.period, needs: &[Need::Sum, Need::Each] },
            ],
            state: 0,
        })
    }
}
