//! One large matrix product on the matrix units: C = A B, the yardstick of the networks' kernels.
//!
//! Shapes: A `[rows][inputs]` and B `[inputs][columns]` in f16, C `[rows][columns]` in f32, all row after row, sizes multiples
//! of eight matrices.

use super::cooperative::Cooperative;
use crate::gpu::{Access, Command, Gpu, Kernel, Shader, Variant};
use crate::{Error, Result};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("nn/matmul");

/// Counterpart of `Sizes` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Sizes {
    pub(super) columns: u32,
    pub(super) inputs: u32,
    pub(super) pad: [u32; 2],
}

/// The variant for these matrices: four subgroups.
#[must_use]
pub fn variant(matrices: Cooperative) -> Variant {
    let Cooperative { size, subgroup } = matrices;
    let shape = if size == 16 { "matrix16" } else { "matrix8" };
    let variant = Variant::new(4 * subgroup).with("SIZE", size).with("SUBGROUP", subgroup).with("TILE", 1);
    variant.when("native", true).when("cooperative", true).when(shape, true)
}

/// The product of `a` and `b` into `c`, for `[rows, columns, inputs]`.
///
/// # Errors
/// [`Error::Shape`] for sizes that are no multiples of eight matrices, and as [`Kernel::new`].
#[cfg_attr(not(any(test, feature = "bench")), allow(dead_code, reason = "called by tests and benchmarks"))]
pub fn command(
    gpu: &Gpu,
    matrices: Cooperative,
    [rows, columns, inputs]: [u32; 3],
    [a, b, c]: [&wgpu::Buffer; 3],
) -> Result<Command> {
    let tile = 8 * matrices.size;
    if [rows, columns, inputs].iter().any(|size| *size == 0 || !size.is_multiple_of(tile)) {
        let found = format!("{rows} x {inputs} times {inputs} x {columns}");
        return Err(Error::shape("matrix product", format!("multiples of {tile}"), found));
    }
    use Access::{Read, Uniform, Write};
    let kernel = Kernel::trusted(gpu, &SHADER, variant(matrices), &[Uniform, Read, Read, Write], 0)?;
    let sizes = gpu.uniform("sizes", &Sizes { columns, inputs, pad: [0; 2] })?;
    let group = kernel.bind(gpu, &[&sizes, a, b, c])?;
    Ok(Command::dispatch(&kernel, &group, [columns / tile, rows / tile, 1]))
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::gpu::Recorder;

    #[test]
    fn agrees_with_f64() {
        let gpu = crate::testing::unchecked_gpu();
        let listed = Cooperative::listed(&gpu);
        if listed.is_empty() {
            crate::testing::skip("the adapter has no cooperative matrices");
        }
        for matrices in listed {
            let tile = 8 * matrices.size;
            let [rows, columns, inputs] = [2 * tile, 3 * tile, tile].map(|n| n as usize);
            let mut next = super::super::reference::noise(4);
            let mut random =
                |count: usize| -> Vec<f16> { (0..count).map(|_| f16::from_f64(next())).collect() };
            let (a, b) = (random(rows * inputs), random(inputs * columns));
            let upload =
                |values: &[f16]| gpu.upload("factor", bytemuck::cast_slice::<f16, u16>(values)).unwrap();
            let c = gpu.upload("product", &vec![0f32; rows * columns]).unwrap();
            let buffers = [&upload(&a), &upload(&b), &c];
            let command = command(&gpu, matrices, [2 * tile, 3 * tile, tile], buffers).unwrap();
            Recorder::new(&gpu).run(&[command]).unwrap();
            let found: Vec<f32> = gpu.read(&c).unwrap();
            for i in 0..rows {
                for j in 0..columns {
                    let terms = (0..inputs).map(|k| a[i * inputs + k].to_f64() * b[k * columns + j].to_f64());
                    let expected: f64 = terms.sum();
                    let found = f64::from(found[i * columns + j]);
                    assert!((found - expected).abs() < 1e-4, "[{i}][{j}]: {found} for {expected}");
                }
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let gpu = crate::testing::unchecked_gpu();
        let buffer = gpu.upload("unused", &[0f32; 4]).unwrap();
        let matrices = Cooperative { size: 16, subgroup: 32 };
        for sizes in [[128, 128, 100], [0, 128, 128]] {
            let error = command(&gpu, matrices, sizes, [&buffer; 3]).unwrap_err();
            assert!(error.to_string().contains("multiples of 128"), "{error}");
        }
    }
}
