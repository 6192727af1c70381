//! The mean of several policies' outputs: logits, or means and logarithms of standard deviations.
//!
//! Formula: m_1 = x_1, m_k = m_(k-1) + (x_k - m_(k-1)) / k, a dispatch for every policy after the first, whose outputs become the mean.
//! The mean of equal outputs is exactly that output, for any number of policies.
//!
//! Shapes: f32 `[output][agent][env]` of every policy, whose outputs may lie at different distances.

use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/ensemble");

/// Counterpart of `Ensemble` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Ensemble {
    /// Quads of rows.
    pub rows: u32,
    /// Outputs of a row.
    pub outputs: u32,
    /// vec4s from one output of a row to the next, of the mean.
    pub stride: u32,
    /// The same of the other policy.
    pub other_stride: u32,
    /// Weight of the other policy: 1 / k for the k-th.
    pub weight: f32,
    /// Fills up to 32 bytes.
    pub pad: [u32; 3],
}

/// The variant for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::wide(class)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Write};
    let access = [DynamicUniform, Read, Write];
    Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &access, size_of::<Ensemble>())
}

/// Workgroups: one invocation per output of a quad of rows.
#[must_use]
pub fn groups(variant: &Variant, parameters: &Ensemble) -> [u32; 3] {
    let [x, y] = variant.rows(parameters.rows * parameters.outputs);
    [x, y, 1]
}

/// Binds a table of parameters, another policy's outputs, and the mean.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: [&wgpu::Buffer; 3]) -> Result<BindGroup> {
    kernel.bind(gpu, &buffers)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, gpu};
    use super::*;
    use crate::gpu::{Command, Recorder};
    use crate::random::Stream;

    /// The mean of the outputs of several policies, each `[output][row]` with a stride of its own.
    fn mean(all: &[Vec<f32>], strides: &[u32], [rows, outputs]: [u32; 2]) -> Vec<f32> {
        let gpu = gpu();
        let kernel = kernel(&gpu).unwrap();
        let parameters: Vec<_> = (1..all.len())
            .map(|index| Ensemble {
                rows,
                outputs,
                stride: strides[0],
                other_stride: strides[index],
                weight: 1.0 / (index + 1) as f32,
                ..Ensemble::default()
            })
            .collect();
        let table = gpu.uniform_table("ensemble", &parameters).unwrap();
        let result = gpu.upload("mean", &all[0]).unwrap();
        let mut recorder = Recorder::new(&gpu);
        for (index, (other, parameters)) in (0..).zip(all[1..].iter().zip(&parameters)) {
            let other = gpu.upload("other", other).unwrap();
            let group = bind(&gpu, &kernel, [&table, &other, &result]).unwrap();
            let stride = gpu.uniform_stride::<Ensemble>();
            let grid = groups(&kernel.variant, parameters);
            recorder.run(&[Command::dispatch_at(&kernel, &group, index, stride, grid)]).unwrap();
        }
        gpu.read(&result).unwrap()
    }

    #[test]
    fn outputs_at_any_distance_are_averaged() {
        let (rows, outputs, strides) = (13u32, 5u32, [16u32, 13, 20]);
        let mut random = Stream::new(3, 1);
        let mut draw = |stride: u32| -> Vec<f32> {
            (0..outputs * stride * 4).map(|_| 10.0 * random.normal() as f32).collect()
        };
        let all = strides.map(&mut draw);
        let found = mean(&all, &strides, [rows, outputs]);
        for output in 0..outputs as usize {
            for at in 0..rows as usize * 4 {
                let values =
                    (0..3).map(|policy| f64::from(all[policy][output * strides[policy] as usize * 4 + at]));
                close("mean", &[found[output * 64 + at]], &[values.sum::<f64>() / 3.0], 1e-6);
            }
            // Room behind the rows is left alone.
            let room = output * 64 + rows as usize * 4..(output + 1) * 64;
            assert_eq!(found[room.clone()], all[0][room]);
        }
    }

    #[test]
    fn the_mean_of_equal_outputs_is_the_output() {
        let mut random = Stream::new(4, 1);
        let one: Vec<f32> = (0..3 * 8 * 4).map(|_| 100.0 * random.normal() as f32).collect();
        for count in 2..8 {
            assert_eq!(mean(&vec![one.clone(); count], &vec![8; count], [8, 3]), one, "{count} policies");
        }
    }
}
