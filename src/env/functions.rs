//! The functions that environments of WGSL functions ([`super::DeviceEnv`]) may call, around which kernels are composed.

use super::RolloutBuffers;
use crate::gpu::Shader;

/// The functions; an environment's own text and what is generated for it come before them.
const SHADER: Shader = crate::shaders::shader!("env/functions");

/// The functions followed by an entry point, as the text of one shader: WGSL's imports come first.
pub(super) fn with_entry(entry: &Shader) -> String {
    let (mut imports, mut rest) = (String::new(), String::new());
    for line in SHADER.source.lines().chain(entry.source.lines()) {
        let import = line.split_once("import package::").is_some_and(|(before, _)| {
            before.is_empty() || before.starts_with("@if(") && before.ends_with(") ")
        });
        let text = if import { &mut imports } else { &mut rest };
        text.push_str(line);
        text.push('\n');
    }
    imports + &rest
}

/// Mirrors `PhalanxStep` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Step {
    pub(super) step: u32,
    pub(super) end: u32,
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
    /// Parameters of step `step`, or of the reset. The fields that depend on the environment or the kernel alone are 0.
    pub(super) fn new(rollout: &RolloutBuffers<'_>, step: u32, reset: bool) -> Self {
        Self {
            step,
            end: step + 1,
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
