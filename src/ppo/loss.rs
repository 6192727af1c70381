//! The PPO losses and their gradient at both heads (Schulman et al., arXiv 1707.06347; value loss as in the MAPPO
//! reference).
//!
//! Policy: rho = exp(logp - logp_old), L = -mean(min(rho A, clip(rho, 1-e, 1+e) A)) - c_H mean(H), with dlogp/dz_j =
//! 1[j=a] - p_j and dH/dz_j = -p_j (H + log p_j). Value: Rn = (R - mean)/deviation, Vc = V_old + clip(V - V_old, -e, e),
//! l = max(h(Rn - V), h(Rn - Vc)), h = Huber; where the clipped branch is the larger the gradient is 0. The mean is over all rows
//! that share a network in the whole rollout, so that micro-batches add up. The gradient is multiplied by the loss scale
//! ([`super::loss_scale`]).
//!
//! Actions of several choices: rho is the ratio of the whole action and H the sum of the choices' entropies; or every choice has a
//! ratio of its own, L is the mean over rows of the sum of the choices' clipped surrogates, and H the mean of their entropies
//! (`Loss::choices`).
//!
//! Continuous actions: log p = - sum of z^2 / 2 + log_std + ln(2 pi) / 2, z = (u - mean) / std, H = sum of log_std + ln(2 pi e) / 2.
//!
//! Squashed actions, a = tanh(u): log p gains the term - ln(1 - tanh(u)^2), which does not depend on the policy, so that ratio and
//! policy gradient are those of u. H gains the expectation of ln(1 - tanh(u)^2) under the current policy. It has no closed form; the
//! kernel integrates over 13 points of the normal distribution (trapezoidal rule, each number by itself). The sampled u would be noisy,
//! and in later epochs it comes from an older policy. The errors of H, dH/dmean = E[-2 tanh(u)] and dH/dlog_std = 1 + E[-2 tanh(u) std
//! z] are below 1e-4 for standard deviations of u up to 1, 2e-3 at 1.5, 1e-2 at 2 and 0.3 at 4. H is at most 0.684 per number, at mean 0
//! and std 0.87 (the uniform distribution has ln 2 = 0.693): unlike the entropy of the normal distribution it is bounded, and does not
//! drive standard deviations up without end.
//!
//! Statistics: two vec4s per workgroup, the sums of (policy loss without entropy, value loss, entropy, k3 estimate of the KL divergence
//! = (rho - 1) - log rho, with the ratio of the whole action) and of (rows outside the clip range, or the outside share of a row's
//! choices, 0, 0, 0).

use super::ActionKind;
use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};
use crate::nn::{Batch, KernelConfig};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/loss");

/// f32s of partial sums that a workgroup writes: two vec4s.
pub const STATISTICS: u64 = 8;

/// Counterpart of `Loss` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Loss {
    /// Actions.
    pub actions: u32,
    /// vec4s of one section of the targets.
    pub section: u32,
    /// First vec4 of the masks in `dones_and_masks`.
    pub masks: u32,
    /// Row of the gradient buffer for the logits.
    pub grad_actor: u32,
    /// Row of the gradient buffer for the value.
    pub grad_critic: u32,
    /// Clip range of the ratio.
    pub clip: f32,
    /// Clip range of the value.
    pub value_clip: f32,
    /// Delta of the Huber loss.
    pub huber: f32,
    /// Value coefficient.
    pub value: f32,
    /// A bit for every logit that begins a choice.
    pub starts: u32,
    /// HAPPO: first vec4 of the factors in the statistics, `[slot][env]`: the product of the ratios of the agents that have learned,
    /// each the probability after its epochs divided by that before. The log-probabilities before an agent's epochs follow.
    pub factors: u32,
    /// Choices of an action whose ratios are clipped one by one; 0: the ratio of the whole action is clipped.
    pub choices: u32,
    /// First vec4 of the choices' log-probabilities in the targets ([`super::gae::choice_targets`]).
    pub choice_targets: u32,
    /// Groups of agents that share networks: 1, or one per agent.
    pub groups: u32,
    /// vec4s of the parameters.
    pub parameters: u32,
    /// Workgroups per stack of [`super::gradient`].
    pub partial_sums: u32,
}

/// The variant for this kernel configuration.
#[must_use]
pub fn variant(kernel_config: &KernelConfig) -> Variant {
    kernel_config.variant(None)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(
    gpu: &Gpu,
    kernel_config: &KernelConfig,
    kind: ActionKind,
    agent_steps: bool,
) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Uniform, Write};
    let access = [(0, DynamicUniform), (8, Uniform), (5, Read), (6, Read), (9, Read), (10, Read), (11, Read)];
    let access = [&access[..], &[(12, Read), (4, Write), (13, Write)]].concat();
    let variant = kind.apply(variant(kernel_config)).when("agent_steps", agent_steps);
    Kernel::trusted_at(gpu, &SHADER, variant, &access, size_of::<Batch>())
}

/// Workgroups for `rows` quads of rows.
#[must_use]
pub fn groups(variant: &Variant, rows: u32) -> [u32; 3] {
    [variant.groups(rows), 1, 1]
}

/// Workgroups for `quads` quads of rows, each of which writes [`STATISTICS`] f32s of partial sums: of this kernel, or of
/// [`super::gradient`].
#[must_use]
pub fn partial_sums(kernel_config: &KernelConfig, quads: u64) -> u64 {
    if let Some(blocks) = kernel_config.blocks {
        return 2 * u64::from(blocks.partial_sums(quads));
    }
    quads.div_ceil(u64::from(variant(kernel_config).workgroup))
}

/// f32s of the statistics of `dispatches` micro-batches of up to `quads` quads of rows, with `factors` factors of HAPPO after
/// them and as many log-probabilities.
#[must_use]
pub fn statistics_words(kernel_config: &KernelConfig, quads: u64, dispatches: u64, factors: u64) -> u64 {
    partial_sums(kernel_config, quads) * dispatches * STATISTICS + 2 * factors
}

/// Buffers that the kernel reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Table of [`Batch`].
    pub batches: &'a wgpu::Buffer,
    /// Logits and values of the micro-batch.
    pub head: &'a wgpu::Buffer,
    /// Ends of episodes and action masks.
    pub dones_and_masks: &'a wgpu::Buffer,
    /// Actions taken; of squashed actions the numbers before tanh.
    pub actions: &'a wgpu::Buffer,
    /// Log-probabilities, advantages, returns, and with ratios per choice the choices' log-probabilities.
    pub targets: &'a wgpu::Buffer,
    /// Values at the time of the rollout, normalised.
    pub values: &'a wgpu::Buffer,
    /// [`super::scalars`]; the loss scale must not be 0 ([`super::loss_scale::start`]).
    pub scalars: &'a wgpu::Buffer,
    /// Activation gradients; the kernel writes the rows of the heads.
    pub grads: &'a wgpu::Buffer,
    /// Partial sums.
    pub statistics: &'a wgpu::Buffer,
}

/// Binds the kernel's buffers.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, loss: &Loss, buffers: Buffers<'_>) -> Result<BindGroup> {
    let uniform = gpu.uniform("loss", loss)?;
    let Buffers { batches, head, dones_and_masks, actions, targets, values, scalars, grads, statistics } =
        buffers;
    kernel.bind(
        gpu,
        &[batches, &uniform, head, dones_and_masks, actions, targets, values, scalars, grads, statistics],
    )
}

#[cfg(test)]
#[path = "loss_tests.rs"]
mod tests;
