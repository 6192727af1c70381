//! One bar of the market for all environments: the device's counterpart of [`super::ledger`].
//!
//! A decision made after the close of bar t fills at the open of t+1 with commission and slippage and is marked at the
//! close of t+1. Reward of agent i: scale (w own_i + (1 - w) portfolio - penalty max(0, deeper)), where own_i = ln(1 + N
//! (pnl_i - cost_i) / E), portfolio = ln(E' / E) and deeper is the growth of the drawdown. An account at or below the
//! bankruptcy level is terminated; an episode of full length is truncated.
//!
//! Shapes: data f32 `[bar][instrument][feature]`, then prices `[bar][instrument][gap, move, open, close]`; state `[field][env]`; all else as in [`super::RolloutBuffers`].

use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Gpu, Kernel, Plan, Shader, TABLE_ENTRY, Variant};
use crate::nn::Storage;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("env/market");

/// Fields of the state besides quantity and level of every instrument.
const FIELDS: u32 = 8;

/// Counterpart of `Market` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Parameters {
    /// Step within the rollout.
    pub step: u32,
    /// Steps of a rollout.
    pub steps: u32,
    /// Environments.
    pub envs: u32,
    /// Instruments, each an agent.
    pub agents: u32,
    /// Features of a bar.
    pub features: u32,
    /// Actions.
    pub actions: u32,
    /// 1 starts afresh.
    pub reset: u32,
    /// First bar an episode can start at.
    pub first: u32,
    /// Bars it can start at.
    pub starts: u32,
    /// Steps of an episode.
    pub length: u32,
    /// Where prices begin in the data.
    pub prices: u32,
    /// Seed, low half.
    pub seed_low: u32,
    /// Seed, high half.
    pub seed_high: u32,
    /// Fraction of the value at the fill price.
    pub commission: f32,
    /// Fraction of the open.
    pub slippage: f32,
    /// Fraction of the starting equity.
    pub bankruptcy: f32,
    /// Weight of the agent's own return in its reward.
    pub own_weight: f32,
    /// Factor on the reward.
    pub reward_scale: f32,
    /// Penalty on the growth of the drawdown.
    pub drawdown_penalty: f32,
    /// Allowed actions, a bit each.
    pub mask: u32,
    /// 0, which compilers must not know.
    pub zero: u32,
    /// Fills up to 16 bytes.
    pub pad: [u32; 3],
    /// Target level of each action.
    pub levels: [f32; 32],
}

/// f32s of the state.
#[must_use]
pub fn state_words(agents: u32, envs: u32) -> u64 {
    u64::from(FIELDS + 2 * agents) * u64::from(envs)
}

/// State, and a table of parameters with an entry per step and one to start afresh.
#[must_use]
pub fn plan(agents: u32, envs: u32, steps: u32) -> Plan {
    let mut plan = Plan::new();
    plan.words("market state", state_words(agents, envs));
    plan.words("market parameters", (u64::from(steps) + 1) * TABLE_ENTRY / 4);
    plan
}

/// The decisions for this class of adapters and this storage of the observations.
#[must_use]
pub fn variant(class: Class, storage: Storage) -> Variant {
    storage.apply(Variant::independent(class))
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu, storage: Storage) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Write};
    let access = [DynamicUniform, Read, Write, Write, Write, Write, Write, Read];
    Kernel::trusted(gpu, &SHADER, variant(gpu.class(), storage), &access, size_of::<Parameters>())
}

/// Workgroups: one invocation per environment.
#[must_use]
pub fn groups(variant: &Variant, envs: u32) -> [u32; 3] {
    [variant.groups(envs), 1, 1]
}

/// Binds the table of parameters, actions, rewards, state, observations, dones_and_masks, episodes and data.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: [&wgpu::Buffer; 8]) -> Result<BindGroup> {
    kernel.bind(gpu, &buffers)
}
