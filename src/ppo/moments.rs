//! Moments over the whole rollout: mean and population deviation of the advantages, mean and mean square of the returns.
//!
//! Advantages enter the loss as (A - mean) / (deviation + 1e-5). The deviation is computed about the mean in a second
//! pass. One workgroup, fixed order.

use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader =
    Shader { name: "ppo/moments", source: include_str!("../../shaders/ppo/moments.wgsl") };

/// Workgroups: one reduces everything.
pub const GROUPS: [u32; 3] = [1, 1, 1];

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::trusted(gpu, &SHADER, Variant::reducing(gpu.class()), &[Uniform, Read, Write], 0)
}

/// Binds targets of `size` values a section, and scalars.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    size: u32,
    targets: &wgpu::Buffer,
    scalars: &wgpu::Buffer,
) -> Result<BindGroup> {
    let uniform = gpu.uniform("moments", &[size, 0, 0, 0])?;
    kernel.bind(gpu, &[&uniform, targets, scalars])
}

#[cfg(test)]
mod tests {
    use super::super::harness::{close, gpu, run};
    use super::*;

    #[test]
    fn moments_agree_with_f64_also_far_from_zero() {
        let gpu = gpu();
        let kernel = kernel(&gpu).unwrap();
        for (size, centre) in [(1usize, 0.0), (1003, 0.0), (1003, 1000.0)] {
            let a: Vec<f32> =
                (0..size).map(|i| (centre + ((i * 37) % 101) as f64 / 50.0 - 1.0) as f32).collect();
            let r: Vec<f32> = (0..size).map(|i| ((i * 53) % 97) as f32 / 40.0 - 0.5).collect();
            let targets = gpu.upload("targets", &[vec![0.0; size], a.clone(), r.clone()].concat()).unwrap();
            let scalars = gpu.upload("scalars", &[0f32; 12]).unwrap();
            let group = bind(&gpu, &kernel, size as u32, &targets, &scalars).unwrap();
            run(&gpu, &kernel, &group, GROUPS);
            let got: Vec<f32> = gpu.read(&scalars).unwrap();
            let mean = |f: &dyn Fn(f64) -> f64, of: &[f32]| {
                of.iter().map(|x| f(f64::from(*x))).sum::<f64>() / size as f64
            };
            let average = mean(&|x| x, &a);
            let deviation = mean(&|x| (x - average).powi(2), &a).sqrt();
            let expected = [average, 1.0 / (deviation + 1e-5), mean(&|x| x, &r), mean(&|x| x * x, &r)];
            close("moments", &got[5..9], &expected, if centre == 0.0 { 2e-6 } else { 1e-4 });
        }
    }
}
