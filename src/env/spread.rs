//! MPE's `simple_spread`, the cooperative benchmark of the MAPPO paper: N agents cover N landmarks and avoid collisions.
//!
//! An action pushes an agent (mass 1, radius 0.15) with force 5 along one axis, or not at all. Velocity is damped by a quarter
//! each step of 0.1. Agents closer than two radii repel each other with force 100 k ln(1 + exp((0.3 - d) / k)), k = 1e-3.
//! An observation (18 features for three agents) holds the agent's velocity and position, the relative positions of the landmarks
//! and of the other agents, and two zeros per other agent, its unused communication channel. An episode lasts 25 steps. Two
//! [`Definition`]s are in use; each is tested against its original code.
//!
//! Shapes: state f32 `[field][env]`; all other buffers as in [`super::RolloutBuffers`].

use super::device_env::{self, DeviceEnv, Rows};
use crate::env::{EnvRecording, Environment, RolloutBuffers, Spec, StateFields};
use crate::gpu::{Gpu, Plan, Shader};
use crate::{Error, Result};

/// The environment's functions.
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

/// Mirrors `Parameters` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Parameters {
    pub(super) paper: u32,
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

    /// Rejects a saved state that the kernel could not have written. Agents stay within [`REACH`] for a whole episode.
    fn validate(&self, fields: &StateFields<'_>) -> Result<(), String> {
        let agents = self.agents as usize;
        for field in 0..4 * agents {
            let name = ["position", "velocity"][field / 2 % 2];
            fields.reals(&format!("{name} of agent {}", field / 4), field, -REACH..=REACH)?;
        }
        for field in 4 * agents..6 * agents {
            let name = format!("position of landmark {}", field / 2 - 2 * agents);
            fields.reals(&name, field, -1.0..=1.0)?;
        }
        fields.counts("step of the episode", 6 * agents, 0..=LENGTH - 1)?;
        let displacements = 6 * agents + 4;
        (displacements..displacements + 2 * agents)
            .try_for_each(|field| fields.reals("last displacement", field, -REACH..=REACH))
    }

    /// Rows in the order of checkpoints: position and velocity of every agent, position of every landmark, four counters, displacements.
    fn rows(&self) -> Rows {
        let n = self.agents;
        let agents =
            [[0, 4], [1, 4], [2, 4], [3, 4], [4 * n, 2], [4 * n + 1, 2], [6 * n + 4, 2], [6 * n + 5, 2]];
        Rows { state: Vec::new(), counters: Rows::consecutive(6 * n), agents: agents.to_vec() }
    }

    /// The environment as WGSL functions.
    ///
    /// # Errors
    /// None but for a mistake in this crate: the functions are those of `shaders/env/spread.wgsl`.
    pub(super) fn functions(&self) -> Result<DeviceEnv> {
        let paper = self.definition == Definition::OnPolicy;
        let environment = *self;
        let builder = DeviceEnv::builder(SHADER.name, SHADER.source, self.spec())
            .parameters(&Parameters { paper: u32::from(paper) })
            .identity(self.identity())
            .rows(self.rows())
            .validate(move |fields| environment.validate(fields))
            .trusted();
        if paper { builder.build() } else { builder.time_limit(LENGTH).build() }
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
        device_env::plan(8 * self.agents + 4, envs, steps, Some(size_of::<Parameters>()))
    }

    fn device_env(&self) -> Result<Option<DeviceEnv>> {
        self.functions().map(Some)
    }

    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        self.functions()?.record(gpu, rollout)
    }
}

#[cfg(test)]
#[path = "spread_tests.rs"]
mod tests;
