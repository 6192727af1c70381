//! Running moments of the returns, with which the critic's output is scaled (ValueNorm of the MAPPO paper, arXiv
//! 2103.01955).
//!
//! `m <- b m + (1-b) E[x]; s <- b s + (1-b) E[x^2]; d <- b d + (1-b)`; mean = m / max(d, 1e-5);
//! var = max(s / max(d, 1e-5) - mean^2, floor). The batch moments come from [`super::moments`].

use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "ppo/value_norm", source: include_str!("../../shaders/ppo/value_norm.wgsl") };

/// Workgroups: a handful of numbers.
pub const GROUPS: [u32; 3] = [1, 1, 1];

/// Counterpart of `ValueNorm` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct ValueNorm {
    /// 1 - b.
    pub weight: f32,
    /// Least variance.
    pub floor: f32,
    /// 0: mean 0 and deviation 1 for good.
    pub enabled: u32,
    /// Fills up to 16 bytes.
    pub pad: u32,
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    Kernel::new(gpu, &SHADER, Variant::new(1), &[Access::Uniform, Access::Write], 0)
}

/// Binds parameters and scalars.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, parameters: &ValueNorm, scalars: &wgpu::Buffer) -> Result<BindGroup> {
    let uniform = gpu.uniform("value_norm", parameters)?;
    kernel.bind(gpu, &[&uniform, scalars])
}

#[cfg(test)]
mod tests {
    use super::super::harness::{close, gpu, run};
    use super::super::scalars;
    use super::*;

    #[test]
    fn three_batches_give_the_golden_values() {
        let gpu = gpu();
        let kernel = kernel(&gpu).unwrap();
        let buffer = gpu.upload("scalars", &[0f32; 12]).unwrap();
        let parameters = ValueNorm { weight: 1e-5, floor: 1e-6, enabled: 1, pad: 0 };
        let group = bind(&gpu, &kernel, &parameters, &buffer).unwrap();
        let golden = [
            ([1.0f32, 2.0, 3.0, 4.0], 2.5, 1.25),
            ([10.0, 12.0, 14.0, 16.0], 7.7500263, 30.6875094),
            ([-5.0, 0.0, 5.0, 10.0], 6.0, 37.0001),
        ];
        for (batch, mean, variance) in golden {
            let moments = [batch.iter().sum::<f32>() / 4.0, batch.iter().map(|x| x * x).sum::<f32>() / 4.0];
            gpu.write(&buffer, scalars::RETURN_MEAN as u64 * 4, bytemuck::cast_slice(&moments)).unwrap();
            run(&gpu, &kernel, &group, GROUPS);
            let got: Vec<f32> = gpu.read(&buffer).unwrap();
            let deviation = got[scalars::DEVIATION];
            close("moments", &[got[scalars::MEAN], deviation * deviation], &[mean, variance], 1e-5);
        }
    }

    #[test]
    fn switched_off_it_leaves_values_alone_and_the_floor_holds() {
        let gpu = gpu();
        let kernel = kernel(&gpu).unwrap();
        let mut start = [0f32; 12];
        start[scalars::RETURN_MEAN] = 3.0;
        start[scalars::RETURN_SQUARE] = 9.0;
        for (enabled, expected) in [(0, [0.0, 1.0]), (1, [3.0, 0.5])] {
            let buffer = gpu.upload("scalars", &start).unwrap();
            let parameters = ValueNorm { weight: 0.5, floor: 0.25, enabled, pad: 0 };
            run(&gpu, &kernel, &bind(&gpu, &kernel, &parameters, &buffer).unwrap(), GROUPS);
            let got: Vec<f32> = gpu.read(&buffer).unwrap();
            assert_eq!([got[scalars::MEAN], got[scalars::DEVIATION]], expected);
        }
    }
}
