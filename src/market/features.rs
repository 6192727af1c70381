//! Stationary features of a bar, computed from candles and indicators up to and including that bar.
//!
//! Shapes: sources f32 `[section][instrument][stride]` (sections in the order of the shader's constants, then the caller's
//! features), result f32 `[bar][instrument][feature]`. Price differences are computed in f64 on the CPU, so that they
//! have full f32 precision at any price level.
//!
//! For candles with filled bars, the rows of all sections but the caller's hold the instrument's real bars only, one after the other.
//! A filled bar has the features of the last real one. One more section at the end holds, per bar, the number of filled bars up to
//! and including it.

use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};
/// Sections of the sources: eight computed on the CPU, ten indicator outputs, then the caller's features.
pub use crate::shaders::constants::sections;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("market/features");

/// Names of the built-in features, in order.
pub const FEATURES: [&str; sections::FEATURES] = [
    "return_1",
    "return_5",
    "return_20",
    "gap",
    "range",
    "close_in_range",
    "rsi",
    "macd",
    "macd_hist",
    "bollinger_position",
    "bollinger_width",
    "atr",
    "momentum",
    "stoch_k",
    "stoch_d",
    "volume",
];

/// Name of the feature that marks filled bars: 1 where an instrument has no bar of its own, else 0. It exists only for candles that
/// have such bars, comes after the caller's features, and is not scaled.
pub const FILLED: &str = "filled";

/// Longest look-back, in bars, of a feature that does not come from an indicator.
pub const LOOK_BACK: usize = 20;

/// Bars before the first one at which every feature has a value, the slowest indicator included. Where bars were filled it takes more.
pub const FEATURE_HISTORY: usize = 33;

/// Counterpart of `Features` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    /// Bars.
    pub bars: u32,
    /// Instruments.
    pub instruments: u32,
    /// Features of the caller.
    pub extra: u32,
    /// Distance between two rows of a section, in values.
    pub stride: u32,
    /// 1: indicators and prices are those of real bars only, and the last section says where.
    pub filled: u32,
    /// Padding to a multiple of 16 bytes.
    pub pad: [u32; 3],
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::trusted(gpu, &SHADER, Variant::wide(gpu.class()), &[Uniform, Read, Write], 0)
}

/// Workgroups: bars in x and y, instruments in z.
#[must_use]
pub fn groups(variant: &Variant, parameters: &Parameters) -> [u32; 3] {
    let [x, y] = variant.rows(parameters.bars);
    [x, y, parameters.instruments]
}

/// Binds the kernel to its buffers. The caller guarantees their sizes: the kernel runs without bounds checks.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    parameters: &Parameters,
    sources: &wgpu::Buffer,
    data: &wgpu::Buffer,
) -> Result<BindGroup> {
    let uniform = gpu.uniform("features", parameters)?;
    kernel.bind(gpu, &[&uniform, sources, data])
}
