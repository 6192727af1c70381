//! Mean and population standard deviation of every column over the training bars, as a tree: sums over chunks of bars, then their
//! join ([`scale_join`]).
//!
//! A chunk's sums are of distances from a number near the chunk's mean, so that prices of 100,000 keep the digits of a deviation of
//! 0.01, or from 0 if the mean is small beside the values, so that it keeps its own digits.
//!
//! Shape of the sums: f32 `[column][chunk][4]`.

use super::scale_join::{self, CHUNK};
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Recording, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("market/scale_stats");

/// Counterpart of `Scaling` in the shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    /// Bars.
    pub bars: u32,
    /// Columns.
    pub columns: u32,
    /// First training bar.
    pub first: u32,
    /// One past the last training bar. Without training bars the statistics are given.
    pub end: u32,
    /// Largest absolute value of a scaled feature.
    pub limit: f32,
    /// 0; the shader explains why it is not a constant.
    pub zero: u32,
    /// Features per instrument if the last one marks filled bars, which is not scaled; 0 if none does.
    pub marked: u32,
    /// Fills up to 16 bytes.
    pub pad: u32,
}

/// The variant for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::wide(class).with("CHUNK", CHUNK)
}

/// Pairs of a chunk and a column.
fn sums(parameters: &Parameters) -> u32 {
    (parameters.end - parameters.first).div_ceil(CHUNK) * parameters.columns
}

/// The dispatches that write the statistics. There is at least one training bar.
///
/// # Errors
/// As [`Kernel::new`], [`Gpu::buffer`] and [`Kernel::bind`].
pub fn commands(
    gpu: &Gpu,
    parameters: &Parameters,
    uniform: &wgpu::Buffer,
    statistics: &wgpu::Buffer,
    data: &wgpu::Buffer,
) -> Result<Recording> {
    use Access::{Read, Uniform, Write};
    let chunks = gpu.buffer("sums of columns", u64::from(sums(parameters)) * 16, crate::gpu::STATE)?;
    let kernel = Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &[Uniform, Write, Read], 0)?;
    let group = kernel.bind(gpu, &[uniform, &chunks, data])?;
    let [x, y] = kernel.variant.rows(sums(parameters));
    let sum = Command::dispatch(&kernel, &group, [x, y, 1]);
    Ok(vec![sum, scale_join::command(gpu, parameters.columns, [uniform, &chunks, statistics])?])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two million bars: no invocation sums more than a chunk, and on GPUs none joins more than 32.
    #[test]
    fn chunks_cover_the_training_bars_and_no_invocation_walks_over_all() {
        let parameters =
            Parameters { bars: 2_000_000, columns: 19, first: 60, end: 1_999_999, ..Parameters::default() };
        let chunks = sums(&parameters) / 19;
        assert!(chunks * CHUNK >= 1_999_939 && (chunks - 1) * CHUNK < 1_999_939);
        let joined = chunks.div_ceil(scale_join::variant(Class::Hardware).workgroup);
        assert!(CHUNK <= 256 && joined <= 32, "{joined}");
        let one = Parameters { first: 7, end: 8, ..parameters };
        assert_eq!(sums(&one), 19);
    }
}
