//! The kernel of environments that are WGSL functions ([`super::DeviceEnv`]): one invocation owns one environment and plays one
//! step of it, or begins its first episode.
//!
//! Shapes: state u32 `[row][env]`, floats stored as bits; all other buffers as in [`super::RolloutBuffers`].

use super::RolloutBuffers;
use crate::Result;
use crate::gpu::{Class, Shader, Variant, compose_all};
use crate::nn::Storage;

/// The part of the kernel that follows an environment's own text and what is generated for it.
const SHADER: Shader = crate::shaders::shader!("env/step");

/// Mirrors `PhalanxStep` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Step {
    pub(super) step: u32,
    pub(super) steps: u32,
    pub(super) envs: u32,
    pub(super) reset: u32,
    pub(super) seed_low: u32,
    pub(super) seed_high: u32,
    pub(super) state_dim: u32,
    pub(super) first_state: u32,
    pub(super) agents: u32,
    pub(super) limit: u32,
    pub(super) last_cut: u32,
}

impl Step {
    /// Parameters of step `step`, or of the reset. The fields that depend on the environment alone are 0.
    pub(super) fn new(rollout: &RolloutBuffers<'_>, step: u32, reset: bool) -> Self {
        Self {
            step,
            steps: rollout.steps,
            envs: rollout.envs,
            reset: u32::from(reset),
            seed_low: rollout.seed as u32,
            // A separate random stream: initial weights use the plain seed.
            seed_high: (rollout.seed >> 32) as u32 ^ 0x5EED_0E17,
            state_dim: rollout.state_dim,
            first_state: rollout.first_state,
            ..Self::default()
        }
    }
}

/// The kernel configuration for an adapter class and the observations' storage.
pub(super) fn variant(class: Class, storage: Storage) -> Variant {
    storage.apply(Variant::independent(class))
}

/// Composes the part that all environments share; nothing of it is stripped, for the environment's functions call it.
///
/// # Errors
/// [`crate::Error::Shader`] if it does not compose.
pub(super) fn shared(variant: &Variant) -> Result<String> {
    compose_all(&SHADER, variant)
}
