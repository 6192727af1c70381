//! AdamW (Loshchilov and Hutter, arXiv 1711.05101; the step of `torch.optim.AdamW`) over the flat parameter buffer, with the
//! gradient clipped to a largest global norm per network (`torch.nn.utils.clip_grad_norm_`).
//!
//! g is scaled by min(1, max_norm / (norm + 1e-6)), with the norm from the sums of [`crate::nn::reduce`];
//! m <- b1 m + (1-b1) g, v <- b2 v + (1-b2) g^2, p <- p - r d p - r (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps).
//!
//! The kernel divides the loss scale out of the gradient. A gradient that is not finite skips the step of its network: weights,
//! moments and step count stay as they are, and the skip is counted. The kernel reads the optimizer state and writes the next one
//! beside it; [`super::end_step`] takes that over, and moves the loss scale.

use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/adamw");

/// f32s of optimizer state per network; `shaders/lib/optimizer_step.wgsl` names them.
pub const STATE: u64 = crate::shaders::constants::optimizer::STATE as u64;

/// f32s of the optimizer state of `nets` networks.
#[must_use]
pub fn state_words(nets: usize) -> u64 {
    nets as u64 * STATE
}

/// Most workgroups a network, each of which adds the sums of squares of all tiles again.
const MOST_GROUPS: u32 = 256;

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
    /// ln(beta1)
    pub log_beta1: f32,
    /// ln(beta2)
    pub log_beta2: f32,
    /// Epsilon, added to the root of the second moment.
    pub epsilon: f32,
    /// Weight decay.
    pub decay: f32,
    /// Largest norm; 0 does not clip.
    pub max_norm: f32,
    /// Learning rate of the actors before its decay ([`super::scalars::RATE_SHARE`]).
    pub actor_rate: f32,
    /// Learning rate of the critics before its decay.
    pub critic_rate: f32,
    /// HAPPO: the agent that learns, from 1; 0: all agents.
    pub agent_step: u32,
    /// Index of the first tile's sum of squares.
    pub squares: u32,
    /// Fills up to 16 bytes.
    pub pad: [u32; 3],
}

impl AdamW {
    /// Takes the decays in f64, so that 1 - beta is rounded only once.
    #[must_use]
    pub fn new([beta1, beta2]: [f64; 2], epsilon: f64, decay: f64) -> Self {
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            weight1: (1.0 - beta1) as f32,
            weight2: (1.0 - beta2) as f32,
            log_beta1: beta1.ln() as f32,
            log_beta2: beta2.ln() as f32,
            epsilon: epsilon as f32,
            decay: decay as f32,
            ..Self::default()
        }
    }
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    let access = [Uniform, Read, Read, Write, Read, Write, Write, Write, Read];
    Kernel::trusted(gpu, &SHADER, Variant::reducing(gpu.class()), &access, 0)
}

/// Workgroups: vec4s of the longest network in x, networks in z. An invocation of a GPU takes one vec4, as long as there are no more
/// than 256 workgroups; one of a software rasteriser takes 32. More than 1024 would come near the iterations that llvmpipe allows.
#[must_use]
pub fn groups(class: Class, longest: u32, nets: u32) -> [u32; 3] {
    let workgroup = Variant::reducing(class).workgroup;
    let each = match class {
        Class::Hardware => 1,
        Class::Software => 32,
    };
    let few = longest.div_ceil(each * workgroup).min(MOST_GROUPS);
    [few.max(longest.div_ceil(1024 * workgroup)), 1, nets]
}

/// Buffers of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Networks ([`crate::nn::fold::NetworkSlice`]).
    pub nets: &'a wgpu::Buffer,
    /// Optimizer state.
    pub optimizer: &'a wgpu::Buffer,
    /// Optimizer state after the step, then the sums of squares of [`crate::nn::reduce`].
    pub step: &'a wgpu::Buffer,
    /// Gradient, times the loss scale.
    pub gradient: &'a wgpu::Buffer,
    /// First moments.
    pub first: &'a wgpu::Buffer,
    /// Second moments.
    pub second: &'a wgpu::Buffer,
    /// Master weights.
    pub params: &'a wgpu::Buffer,
    /// [`super::scalars`]; the loss scale must not be 0 ([`super::loss_scale::start`]).
    pub scalars: &'a wgpu::Buffer,
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, parameters: &AdamW, buffers: Buffers<'_>) -> Result<BindGroup> {
    let uniform = gpu.uniform("adamw", parameters)?;
    let Buffers { nets, optimizer, step, gradient, first, second, params, scalars } = buffers;
    kernel.bind(gpu, &[&uniform, nets, optimizer, step, gradient, first, second, params, scalars])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workgroups_are_few_and_their_loops_short() {
        for class in [Class::Hardware, Class::Software] {
            let workgroup = Variant::reducing(class).workgroup;
            for longest in [1, 2600, 1 << 20, (1 << 28) - 1] {
                let [x, y, z] = groups(class, longest, 7);
                assert_eq!((y, z), (1, 7));
                assert!(
                    (1..=65_535).contains(&x) && longest.div_ceil(x * workgroup) <= 1024,
                    "{class:?}: {x}"
                );
            }
            assert_eq!(groups(class, 1 << 20, 1)[0], 256);
        }
    }
}
