//! AdamW (Loshchilov and Hutter, arXiv 1711.05101; the step of `torch.optim.AdamW`) over the flat parameter buffer.
//!
//! m <- b1 m + (1-b1) g, v <- b2 v + (1-b2) g^2, p <- p - r d p - r (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps), with g
//! scaled by the clip factor and the rate r from [`super::clip`]. It also moves the loss scale ([`super::loss_scale`]).

use super::loss_scale::LossScale;
use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/adamw");

/// Counterpart of `AdamW` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// 1 - beta1.
    pub weight1: f32,
    /// 1 - beta2.
    pub weight2: f32,
    /// Epsilon, added to the root of the second moment.
    pub epsilon: f32,
    /// Weight decay.
    pub decay: f32,
    /// Networks.
    pub nets: u32,
    /// Good steps in a row before the loss scale grows; 0: it stays.
    pub interval: f32,
    /// Factor on the loss scale when it grows.
    pub growth: f32,
    /// Factor on the loss scale after a step whose gradient was not finite.
    pub backoff: f32,
    /// Fills up to 16 bytes.
    pub pad: [u32; 2],
}

impl AdamW {
    /// Takes the decays in f64, so that 1 - beta is rounded only once.
    #[must_use]
    pub fn new(beta1: f64, beta2: f64, epsilon: f64, decay: f64) -> Self {
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            weight1: (1.0 - beta1) as f32,
            weight2: (1.0 - beta2) as f32,
            epsilon: epsilon as f32,
            decay: decay as f32,
            ..Self::default()
        }
    }

    /// The same step, which also moves the loss scale of `nets` networks.
    #[must_use]
    pub fn with_loss_scale(self, scale: &LossScale, nets: u32) -> Self {
        let LossScale { growth, backoff, interval } = *scale;
        Self { nets, interval: interval as f32, growth, backoff, ..self }
    }
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    let access = [Uniform, Read, Read, Read, Write, Write, Write, Write];
    Kernel::trusted(gpu, &SHADER, Variant::wide(gpu.class()), &access, 0)
}

/// Workgroups: vec4s of the longest network in x and y, networks in z.
#[must_use]
pub fn groups(variant: &Variant, longest: u32, nets: u32) -> [u32; 3] {
    let [x, y] = variant.rows(longest);
    [x, y, nets]
}

/// Binds nets, optimizer state, gradient, first moments, second moments, parameters and scalars.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    parameters: &AdamW,
    [nets, optimizer, gradient, first, second, params, scalars]: [&wgpu::Buffer; 7],
) -> Result<BindGroup> {
    let uniform = gpu.uniform("adamw", parameters)?;
    kernel.bind(gpu, &[&uniform, nets, optimizer, gradient, first, second, params, scalars])
}

#[cfg(test)]
mod tests {
    use super::super::clip;
    use super::super::testing::{close, gpu, scaled};
    use super::*;
    use crate::gpu::{Command, Recorder};

    #[test]
    fn ten_clipped_steps_agree_with_f64_and_a_bad_gradient_changes_nothing() {
        let gpu = gpu();
        let (beta1, beta2, epsilon, decay, rate, max_norm) = (0.9f64, 0.999f64, 1e-5, 0.01, 0.02, 1.5);
        let count = 44usize;
        let mut params: Vec<f64> =
            (0..count).map(|i| f64::from(((i * 31) % 17) as f32 / 8.0 - 1.0)).collect();
        let (mut m, mut v) = (vec![0.0; count], vec![0.0; count]);
        let upload = |name: &str, of: &[f64]| {
            gpu.upload(name, &of.iter().map(|x| *x as f32).collect::<Vec<_>>()).unwrap()
        };
        let buffers = [upload("m", &m), upload("v", &v), upload("p", &params)];
        let gradient = upload("gradient", &m);
        let nets = gpu
            .upload("nets", &[clip::NetworkSlice { first: 0, length: 11, rate: rate as f32, agent: 0 }])
            .unwrap();
        let iteration = gpu.upload("iteration", &[0u32; 2]).unwrap();
        let optimizer = gpu.upload("optimizer", &[0f32; 8]).unwrap();
        let norms = clip::kernel(&gpu).unwrap();
        let clipping = clip::Clip {
            max_norm: max_norm as f32,
            log_beta1: beta1.ln() as f32,
            log_beta2: beta2.ln() as f32,
            decay: 0.0,
            ..clip::Clip::default()
        };
        let scalars = gpu.upload("scalars", &scaled(1.0)).unwrap();
        let norms_group =
            clip::bind(&gpu, &norms, &clipping, [&nets, &gradient, &iteration, &optimizer, &scalars])
                .unwrap();
        let step = kernel(&gpu).unwrap();
        let [first, second, weights] = &buffers;
        let parameters = AdamW::new(beta1, beta2, epsilon, decay);
        let all = [&nets, &optimizer, &gradient, first, second, weights, &scalars];
        let step_group = bind(&gpu, &step, &parameters, all).unwrap();
        let mut recorder = Recorder::new(&gpu);
        let mut taken = 0;
        for t in 0..11 {
            let mut g: Vec<f32> =
                (0..count).map(|i| (((i + 3 * t) * 13) % 29) as f32 / 20.0 - 0.7 + t as f32 * 0.1).collect();
            if t == 5 {
                g[9] = f32::NAN;
            }
            gpu.write(&gradient, 0, bytemuck::cast_slice(&g)).unwrap();
            recorder
                .run(&[
                    Command::dispatch(&norms, &norms_group, clip::groups(1)),
                    Command::dispatch(&step, &step_group, groups(&step.variant, 11, 1)),
                ])
                .unwrap();
            if t == 5 {
                continue;
            }
            taken += 1;
            let norm = g.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let factor = (max_norm / (norm + 1e-6)).min(1.0);
            for i in 0..count {
                let g = f64::from(g[i]) * factor;
                m[i] = beta1 * m[i] + (1.0 - beta1) * g;
                v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
                params[i] -= rate * decay * params[i];
                let corrected = m[i] / (1.0 - beta1.powi(taken));
                params[i] -= rate * corrected / ((v[i] / (1.0 - beta2.powi(taken))).sqrt() + epsilon);
            }
        }
        close("parameters", &gpu.read(weights).unwrap(), &params, 2e-6);
        close("second moments", &gpu.read(second).unwrap(), &v, 1e-6);
    }
}
