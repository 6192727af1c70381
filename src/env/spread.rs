//! MPE's `simple_spread`, the cooperative benchmark of the MAPPO paper: N agents are to cover N landmarks without bumping
//! into each other.
//!
//! An agent (mass 1, radius 0.15) is pushed with force 5 along an axis; velocity is damped by a quarter each step of 0.1;
//! agents nearer than two radii push each other away with 100 k ln(1 + exp((0.3 - d) / k)), k = 1e-3. Observation (18 numbers
//! for three agents): own velocity, own position, landmarks and other agents relative to it, and two zeros for what each of the
//! others says. Actions: stay, and four directions. An episode has 25 steps. The two [`Definition`]s in use differ; each is
//! tested against the code that it is from.
//!
//! Shapes: state f32 `[field][env]`; all else as in [`super::RolloutBuffers`].

use crate::Result;
use crate::env::{
    DeviceState, EnvRecording, Environment, MAX_EPISODES, RolloutBuffers, Spec, State, StateFields,
};
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Plan, Shader, TABLE_ENTRY, Variant};
use crate::nn::Storage;
use crate::{Error, gpu};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("env/spread");

/// Steps of an episode.
pub const LENGTH: u32 = 25;

/// Bound on coordinates and velocities: 63 agents that push with all their force for a whole episode do not reach it.
const REACH: f32 = 1e4;

/// Whose rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Definition {
    /// The code of the MAPPO paper (marlbenchmark/on-policy): every agent's reward is the sum over agents of minus the distance
    /// of every landmark to its nearest agent and minus the collisions, of which everyone has one with itself. Landmarks lie
    /// within 0.8. Position moves with the new velocity. Episodes end in a terminal state. Actions: +x, -x, +y, -y.
    #[default]
    OnPolicy,
    /// MPE2 (PettingZoo) `simple_spread_v3`: half of minus the distances, and half of minus the agent's own collisions with
    /// others. Landmarks lie within 1. Position moves with the old velocity. Episodes are truncated. Actions: -x, +x, -y, +y.
    Mpe2,
}

/// The environment.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    definition: Definition,
    agents: u32,
}

/// Counterpart of `Spread` in the shader.
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

/// The decisions for this class of adapters and this storage of the observations.
#[must_use]
pub fn variant(class: Class, storage: Storage) -> Variant {
    storage.apply(Variant::independent(class))
}

impl Spread {
    /// Three agents, as in the paper.
    #[must_use]
    pub fn new(definition: Definition) -> Self {
        Self { definition, agents: 3 }
    }

    /// As many agents as landmarks.
    ///
    /// # Errors
    /// [`Error::Config`] unless there are 2 to 64.
    pub fn with_agents(self, agents: u32) -> Result<Self> {
        if !(2..=64).contains(&agents) {
            return Err(Error::config("agents", format!("{agents} is out of range: from 2 to 64")));
        }
        Ok(Self { agents, ..self })
    }

    /// Words of the state of one environment: two pairs an agent, one a landmark, four counters, one pair an agent in motion.
    fn fields(&self) -> u64 {
        u64::from(self.agents) * 8 + 4
    }

    /// Whether a saved state is one that the kernel could have written. Positions cannot leave [`REACH`] within an episode.
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
            .try_for_each(|field| fields.reals("last movement", field, -REACH..=REACH))
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
            // A key of its own: initial weights draw from the seed itself.
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
        use Access::{DynamicUniform, Read, Write};
        let access = [DynamicUniform, Read, Write, Write, Write, Write, Write];
        let variant = variant(gpu.class(), rollout.storage);
        let kernel = Kernel::trusted(gpu, &SHADER, variant, &access, size_of::<Parameters>())?;
        let words = self.fields() * u64::from(rollout.envs);
        let state = gpu.buffer("spread state", words * 4, gpu::STATE)?;
        let mut table: Vec<_> =
            (0..rollout.steps).map(|step| self.parameters(rollout, step, false)).collect();
        table.push(self.parameters(rollout, 0, true));
        let parameters = gpu.uniform_table("spread", &table)?;
        let stride = gpu.uniform_stride::<Parameters>();
        let buffers = [
            &parameters,
            rollout.actions,
            rollout.rewards,
            &state,
            rollout.observations,
            rollout.dones_and_masks,
            rollout.episodes,
        ];
        let group = kernel.bind(gpu, &buffers)?;
        let grid = [kernel.variant.groups(rollout.envs), 1, 1];
        let (environment, envs) = (*self, rollout.envs as usize);
        let truncations = self.truncations(rollout.steps);
        let at = |index| vec![Command::dispatch_at(&kernel, &group, index, stride, grid)];
        Ok(EnvRecording {
            reset: at(rollout.steps),
            steps: (0..rollout.steps).map(at).collect(),
            state: vec![State::Device(DeviceState::new(state, move |words| {
                environment.validate(words, envs, truncations)
            }))],
        })
    }
}

#[cfg(test)]
#[path = "spread_tests.rs"]
mod tests;
