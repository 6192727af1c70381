//! Global gradient norm of every network, the factor that clips it (`torch.nn.utils.clip_grad_norm_`: min(1, max_norm /
//! (norm + 1e-6))), the learning rate with linear decay, and the bias corrections that [`super::adamw`] needs.
//!
//! The kernel divides the loss scale out of the gradient. A gradient that is not finite skips the step of its network: weights,
//! moments and step count stay as they are, and the skip is counted.

use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/clip");

/// f32s of optimizer state per network.
pub const STATE: u64 = 8;

/// f32s of the optimizer state of `nets` networks.
#[must_use]
pub fn state_words(nets: usize) -> u64 {
    nets as u64 * STATE
}

/// One network. Counterpart of `NetworkSlice` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct NetworkSlice {
    /// First vec4 of its parameters.
    pub first: u32,
    /// vec4s.
    pub length: u32,
    /// Learning rate at iteration 0.
    pub rate: f32,
    /// The agent it belongs to, from 1; 0: shared by all agents.
    pub agent: u32,
}

/// Counterpart of `Clip` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Clip {
    /// Largest norm; 0 does not clip.
    pub max_norm: f32,
    /// ln(beta1)
    pub log_beta1: f32,
    /// ln(beta2)
    pub log_beta2: f32,
    /// 1 / iterations until the learning rate is 0; 0: the learning rate stays.
    pub decay: f32,
    /// HAPPO: the agent that learns, from 1; 0: all agents.
    pub agent_step: u32,
    /// Fills up to 16 bytes.
    pub pad: [u32; 3],
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    let access = [Uniform, Read, Read, Read, Write, Read];
    Kernel::trusted(gpu, &SHADER, Variant::reducing(gpu.class()), &access, 0)
}

/// Workgroups: one per network.
#[must_use]
pub fn groups(nets: u32) -> [u32; 3] {
    [nets, 1, 1]
}

/// Binds nets, gradient, iteration, optimizer state and scalars, whose loss scale must not be 0 ([`super::loss_scale::start`]).
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    clip: &Clip,
    [nets, gradient, iteration, optimizer, scalars]: [&wgpu::Buffer; 5],
) -> Result<BindGroup> {
    let uniform = gpu.uniform("clip", clip)?;
    kernel.bind(gpu, &[&uniform, nets, gradient, iteration, optimizer, scalars])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, gpu, run, scaled};
    use super::*;

    fn state(gradient: &[f32], max_norm: f32, iteration: u32) -> Vec<f32> {
        scaled_state(gradient, max_norm, iteration, 1.0)
    }

    fn scaled_state(gradient: &[f32], max_norm: f32, iteration: u32, scale: f32) -> Vec<f32> {
        let gpu = gpu();
        let kernel = kernel(&gpu).unwrap();
        let length = gradient.len() as u32 / 4;
        let nets = [
            NetworkSlice { first: 0, length: length - 1, rate: 0.5, agent: 0 },
            NetworkSlice { first: length - 1, length: 1, rate: 0.25, agent: 0 },
        ];
        let clip = Clip {
            max_norm,
            log_beta1: 0.9f64.ln() as f32,
            log_beta2: 0.999f64.ln() as f32,
            decay: 0.1,
            ..Clip::default()
        };
        let optimizer = gpu.upload("optimizer", &[0f32; 16]).unwrap();
        let buffers = [
            &gpu.upload("nets", &nets).unwrap(),
            &gpu.upload("gradient", gradient).unwrap(),
            &gpu.upload("iteration", &[iteration, 0]).unwrap(),
            &optimizer,
            &gpu.upload("scalars", &scaled(scale)).unwrap(),
        ];
        run(&gpu, &kernel, &bind(&gpu, &kernel, &clip, buffers).unwrap(), groups(2));
        gpu.read(&optimizer).unwrap()
    }

    #[test]
    fn norm_factor_rate_and_corrections() {
        let gradient: Vec<f32> = (0..1004).map(|i| ((i * 29) % 83) as f32 / 41.0 - 1.0).collect();
        let norm = |of: &[f32]| of.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let (first, second) = (norm(&gradient[..1000]), norm(&gradient[1000..]));
        let got = state(&gradient, 3.0, 2);
        close("first", &got[..6], &[1.0, first, 3.0 / first, 0.4, 0.1, 0.001], 2e-6);
        close("second", &got[8..14], &[1.0, second, (3.0 / second).min(1.0), 0.2, 0.1, 0.001], 2e-6);
        assert!((f64::from(got[5]) / 0.001 - 1.0).abs() < 1e-5, "1 - beta2 without cancellation: {}", got[5]);
        assert_eq!(state(&gradient, 0.0, 0)[2], 1.0, "0 does not clip");
        assert_eq!(state(&gradient, 3.0, 50)[3], 0.0, "the rate ends at zero");
    }

    #[test]
    fn the_loss_scale_is_taken_out() {
        let gradient: Vec<f32> = (0..36).map(|i| ((i * 29) % 83) as f32 / 41.0 - 1.0).collect();
        let scaled: Vec<f32> = gradient.iter().map(|g| g * 4096.0).collect();
        let (plain, scaled) = (state(&gradient, 3.0, 2), scaled_state(&scaled, 3.0, 2, 4096.0));
        for (i, (plain, scaled)) in plain.iter().zip(&scaled).enumerate() {
            // Only the factor of either network contains the scale.
            let factor = if i % 8 == 2 { 4096.0 } else { 1.0 };
            assert_eq!(*plain, scaled * factor, "{i}");
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_skips_only_its_network() {
        for poison in [f32::NAN, f32::INFINITY, 3e38] {
            let mut gradient = vec![1f32; 40];
            gradient[7] = poison;
            let got = state(&gradient, 1.0, 0);
            assert_eq!([got[0], got[6], got[7]], [0.0, -1.0, 1.0], "{poison}");
            assert_eq!([got[8], got[14], got[15]], [1.0, 1.0, 0.0], "{poison}");
        }
    }
}
