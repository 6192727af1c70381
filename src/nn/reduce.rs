//! Adds the splits of [`super::weight_gradient`], and micro-batch to micro-batch: gradient accumulation.

use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/reduce");

/// Counterpart of `Reduce` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Reduce {
    /// vec4s of the parameter buffer.
    pub length: u32,
    /// Shares.
    pub splits: u32,
    /// 1 overwrites the gradient, 0 adds to it.
    pub first: u32,
    /// Fills up to 16 bytes.
    pub pad: u32,
}

/// The kernel_config for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::wide(class)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Write], 0)
}

/// Workgroups for `length` vec4s of parameters.
#[must_use]
pub fn groups(variant: &Variant, length: u32) -> [u32; 3] {
    let [x, y] = variant.rows(length);
    [x, y, 1]
}

/// Binds parameters, splits and the accumulated gradient.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    reduce: &Reduce,
    partials: &wgpu::Buffer,
    gradient: &wgpu::Buffer,
) -> Result<BindGroup> {
    let uniform = gpu.uniform("reduce", reduce)?;
    kernel.bind(gpu, &[&uniform, partials, gradient])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Command, Recorder};

    #[test]
    fn shares_are_added_and_micro_batches_accumulate() {
        for gpu in crate::testing::both_classes() {
            // A whole iteration of eight splits and a rest.
            let (length, splits) = (37u32, 11u32);
            let partials: Vec<f32> =
                (0..length * 4 * splits).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
            let source = gpu.upload("partials", &partials).unwrap();
            let target = gpu.upload("gradient", &vec![1e9f32; length as usize * 4]).unwrap();
            let kernel = kernel(&gpu).unwrap();
            let mut recorder = Recorder::new(&gpu);
            for first in [1, 0] {
                let group =
                    bind(&gpu, &kernel, &Reduce { length, splits, first, pad: 0 }, &source, &target).unwrap();
                recorder.run(&[Command::dispatch(&kernel, &group, groups(&kernel.variant, length))]).unwrap();
            }
            let got: Vec<f32> = gpu.read(&target).unwrap();
            for (i, got) in got.iter().enumerate() {
                let sum: f32 = (0..splits as usize).map(|s| partials[s * length as usize * 4 + i]).sum();
                assert_eq!(*got, 2.0 * sum, "element {i}");
            }
        }
    }
}
