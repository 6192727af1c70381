//! MPE's `simple_spread`, the cooperative benchmark of the MAPPO paper: N agents cover N landmarks and avoid collisions.
//!
//! An action pushes an agent (mass 1, radius 0.15) with force 5 along one axis, or not at all. Velocity is damped by a quarter
//! each step of 0.1. Agents closer than two radii repel each other with force 100 k ln(1 + exp((0.3 - d) / k)), k = 1e-3.
//! An observation (18 features for three agents) holds the agent's velocity and position, the relative positions of the landmarks
//! and of the other agents, and two zeros per other agent, its unused communication channel. An episode lasts 25 steps. Two
//! [`Definition`]s are in use; each is tested against its original code.
//!
//! Shapes: state f32 `[field][env]`; all other buffers as in [`super::RolloutBuffers`].

use crate::env::{DeviceState, EnvRecording, Environment, MAX_EPISODES, RolloutBuffers, Spec, StateFields};
use crate::gpu::{Class, Gpu, Kernel, Plan, STATE, Shader, TABLE_ENTRY, Variant};
use crate::nn::Storage;
use crate::{Error, Result};

/// The kernel's source.
pub(super) const SHADER: Shader = crate::shaders::shader!("env/spread");

/// Steps of an episode.
pub(super) const LENGTH: u32 = 25;

/// Upper bound on coordinates and velocities that no agent can reach within an episode, even pushed by 63 others.
const REACH: f32 = 1e4;

/// Implementations whose rules can be followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Definition {
    /// The MAPPO paper's code (marlbenchmark/on-policy). Every agent receives the sum over all agents of the negative distances
    /// from each landmark to its nearest agent, minus the collision count, in which every agent collides once with itself.
    /// Landmarks lie within 0.8. The new velocity moves the position. Episodes terminate. Actions: stay, +x, -x, +y, -y.
    #[default]
    OnPolicy,
    /// MPE2 (PettingZoo) `simple_spread_v3`. The reward is half the negative distances plus half the negative number of the
    /// agent's own collisions with others. Landmarks lie within 1. The old velocity moves the position. Episodes are truncated.
    /// Actions: stay, -x, +x, -y, +y.
    Mpe2,
}

/// MPE's `simple_spread` on the device.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    definition: Definition,
    agents: u32,
}

/// Mirrors `Spread` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Parameters {
    pub(super) step: u32,
    pub(super) steps: u32,
    pub(super) envs: u32,
    pub(super) agents: u32,
    pub(super) reset: u32,
    pub(super) length: u32,
    pub(super) paper: u32,
    pub(super) seed_low: u32,
    pub(super) seed_high: u32,
    pub(super) pad: [u32; 3],
}

/// The kernel configuration for an adapter class and the observations' storage.
pub(super) fn variant(class: Class, storage: Storage) -> Variant {
    storage.apply(Variant::independent(class))
}

impl Spread {
    /// The environment with three agents, as in the paper.
    #[must_use]
    pub fn new(definition: Definition) -> Self {
        Self { definition, agents: 3 }
    }

    /// Sets the number of agents, which is also the number of landmarks.
    ///
    /// # Errors
    /// [`Error::Config`] unless `agents` is 2 to 64.
    pub fn with_agents(self, agents: u32) -> Result<Self> {
        if !(2..=64).contains(&agents) {
            return Err(Error::config("agents", format!("{agents} is out of range: from 2 to 64")));
        }
        Ok(Self { agents, ..self })
    }

    /// State words of one environment: two (x, y) pairs per agent, one per landmark, four counters, and one displacement per
    /// agent.
    fn fields(&self) -> u64 {
        u64::from(self.agents) * 8 + 4
    }

    /// Rejects a saved state that the kernel could not have written. Agents stay within [`REACH`] for a whole episode.
    fn validate(&self, words: &[u32], envs: usize, truncations: u32) -> Result<(), String> {
        let agents = self.agents as usize;
        let fields = StateFields::new(words, self.fields() as usize, envs)?;
        for field in 0..4 * agents {
            let name = ["position", "velocity"][field / 2 % 2];
            fields.reals(&format!("{name} of agent {}", field / 4), field, -REACH..=REACH)?;
        }
        for field in 4 * agents..6 * agents {
            let name = format!("position of landmark {}", field / 2 - 2 * agents);
            fields.reals(&name, field, -1.0..=1.0)?;
        }
        let counters = 6 * agents;
        fields.counts("step of the episode", counters, 0..=LENGTH - 1)?;
        fields.counts("episode", counters + 1, 1..=MAX_EPISODES)?;
        fields.counts("truncated episodes", counters + 2, 0..=truncations)?;
        fields.finite("return", counters + 3)?;
        (counters + 4..counters + 4 + 2 * agents)
            .try_for_each(|field| fields.reals("last displacement", field, -REACH..=REACH))
    }

    fn parameters(&self, rollout: &RolloutBuffers<'_>, step: u32, reset: bool) -> Parameters {
        Parameters {
            step,
            steps: rollout.steps,
            envs: rollout.envs,
            agents: self.agents,
            reset: u32::from(reset),
            length: LENGTH,
            paper: u32::from(self.definition == Definition::OnPolicy),
            seed_low: rollout.seed as u32,
            // A separate random stream: initial weights use the plain seed.
            seed_high: (rollout.seed >> 32) as u32 ^ 0x5EED_0E17,
            pad: [0; 3],
        }
    }
}

impl Environment for Spread {
    fn spec(&self) -> Spec {
        Spec { agents: self.agents, obs_dim: 4 + 2 * self.agents + 4 * (self.agents - 1), actions: 5 }
    }

    fn identity(&self) -> String {
        format!("simple_spread {:?}", self.definition)
    }

    fn truncations(&self, steps: u32) -> u32 {
        match self.definition {
            Definition::OnPolicy => 0,
            Definition::Mpe2 => steps.div_ceil(LENGTH),
        }
    }

    fn plan(&self, envs: u32, steps: u32) -> Plan {
        let mut plan = Plan::new();
        plan.words("spread state", self.fields() * u64::from(envs));
        plan.words("spread parameters", (u64::from(steps) + 1) * TABLE_ENTRY / 4);
        plan
    }

    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        let variant = variant(gpu.class(), rollout.storage);
        let kernel = Kernel::trusted(gpu, &SHADER, variant, &EnvRecording::ACCESS, size_of::<Parameters>())?;
        let buffer = gpu.buffer("spread state", self.fields() * u64::from(rollout.envs) * 4, STATE)?;
        let (environment, envs) = (*self, rollout.envs as usize);
        let truncations = self.truncations(rollout.steps);
        let state = DeviceState::new(buffer, move |words| environment.validate(words, envs, truncations));
        EnvRecording::of_kernel(gpu, rollout, &kernel, state, &[], |step, reset| {
            self.parameters(rollout, step, reset)
        })
    }
}

#[cfg(test)]
#[path = "spread_tests.rs"]
mod tests;
