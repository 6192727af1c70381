//! Money flow index: 100 x (money flow of bars with a rising typical price) / (total money flow) over the last `period` bars.
//!
//! Money flow is typical price x volume; the typical price is (high + low + close) / 3. Output `mfi`, 0 to 100, first value at
//! bar `period`; 0 if there was no money flow. Source: Quong and Soudack (1989), `ta-lib` 0.8.

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Need, Output, Spec, Unit, Window, check};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/mfi");

/// Money flow index.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Mfi, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let volume = Array2::from_elem((1, 60), 100.0);
/// let series = Series::with_volume(&gpu, high.view(), low.view(), close.view(), volume.view())?;
/// let values = Indicators::new(&gpu).with(Mfi { period: 14 }).compute(&series)?;
/// let last = values.get("mfi").map(|mfi| mfi[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - 100.0).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
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
            ratio: false,
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
