//! On-balance volume: the volume of the first bar, plus the volume of every bar that closed higher, minus that of every bar
//! that closed lower.
//!
//! Output `obv` in the unit of the volume, first value at bar 0; it restarts after a missing bar. Source: Granville (1963),
//! `ta-lib` 0.8. Its memory is unlimited, so a series is processed in one piece, or on GPUs in chunks that start from the sums over those
//! before them (`obv_sums`).

use serde::{Deserialize, Serialize};

use super::indicator::{Indicator, Input, Output, Spec, Unit};
use crate::Result;
use crate::gpu::Shader;

/// The source of the `step` function.
pub const SHADER: Shader = crate::shaders::shader!("indicators/obv");

/// On-balance volume.
///
/// ```
/// # use ndarray::Array2;
/// # use phalanx::gpu::{Gpu, GpuOptions};
/// use phalanx::indicators::{Indicators, Obv, Series};
///
/// # fn main() -> phalanx::Result<()> {
/// # let gpu = Gpu::open(&GpuOptions::default())?;
/// // One series that rises by 1 every bar, from 1 to 60.
/// let close = Array2::from_shape_fn((1, 60), |(_, bar)| 1.0 + bar as f64);
/// let (high, low) = (&close + 0.5, &close - 0.5);
/// let volume = Array2::from_elem((1, 60), 100.0);
/// let series = Series::with_volume(&gpu, high.view(), low.view(), close.view(), volume.view())?;
/// let values = Indicators::new(&gpu).with(Obv::default()).compute(&series)?;
/// let last = values.get("obv").map(|obv| obv[[0, 59]]);
/// assert!((last.unwrap_or(f64::NAN) - (60.0 * 100.0)).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
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
            ratio: false,
            constants: vec![],
            averages: vec![],
            windows: vec![],
            state: 2,
        })
    }
}
