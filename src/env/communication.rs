//! MPE's `simple_speaker_listener` and `simple_reference`, by the rules of mpe2 1.1.1: two agents that have to tell each other
//! which of three landmarks to go to.
//!
//! An agent (mass 1) is pushed with force 5 along an axis; the position moves with the old velocity, in steps of 0.1, then the
//! velocity is damped by a quarter; nobody collides. What is said in a step is seen after it, as one-hot, without noise; before
//! the first step it is zeros. Coordinates start uniform in [-1, 1), goals are uniform. Episodes are truncated after 25 steps.
//! See [`Task`] for what differs.
//!
//! Shapes: state u32 `[field][env]`, reals as their bits; all else as in [`super::RolloutBuffers`].

use crate::Result;
use crate::env::{
    DeviceState, EnvRecording, Environment, MAX_EPISODES, RolloutBuffers, Spec, State, StateFields,
};
use crate::gpu::{self, Access, Class, Command, Gpu, Kernel, Plan, Shader, TABLE_ENTRY, Variant};
use crate::nn::Storage;

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("env/communication");

/// Steps of an episode.
pub const LENGTH: u32 = 25;

/// Words of the state of one environment: a pair for every position and velocity, two goals, two messages, four counters.
const FIELDS: u64 = 22;

/// Landmarks, one of which is the goal.
const LANDMARKS: u32 = 3;

/// Bound on coordinates and velocities: an agent that is pushed one way for a whole episode does not reach it.
const REACH: f32 = 100.0;

/// Stay, -x, +x, -y, +y.
const WAYS: u32 = 5;

/// Who speaks and who moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// `simple_speaker_listener_v4`. Agent 0 sees the colour of the goal (0.65 at its number, 0.15 elsewhere) and says one of 3
    /// things, agent 1 sees its velocity, the landmarks relative to it, and what was said (11 numbers), and moves. Both get minus
    /// the squared distance of agent 1 from the goal.
    ///
    /// Agents here are of one size: the speaker's 3 numbers are followed by 8 zeros, and of its 5 actions the mask allows the
    /// first 3.
    #[default]
    SpeakerListener,
    /// `simple_reference_v3`. Both move and say one of 10 things, and each knows the other's goal: velocity, landmarks, colour of
    /// that goal (0.75, 0.25), what the other says (21 numbers). An agent's own reward is minus the distance of the *other* from
    /// the goal that the agent knows of; it gets half of that and half of the mean of both (`local_ratio` 0.5).
    ///
    /// An action is two choices, of 5 ways and 10 messages. Its number, way + 5 message, is the one of mpe2's `Discrete(50)`.
    Reference,
}

/// The environment.
#[derive(Clone, Copy, Debug)]
pub struct Communication {
    task: Task,
}

/// Counterpart of `Communication` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Parameters {
    pub(super) step: u32,
    pub(super) steps: u32,
    pub(super) envs: u32,
    pub(super) reset: u32,
    pub(super) length: u32,
    pub(super) reference: u32,
    pub(super) words: u32,
    pub(super) features: u32,
    pub(super) seed_low: u32,
    pub(super) seed_high: u32,
    pub(super) pad: [u32; 2],
}

/// The decisions for this class of adapters and this storage of the observations.
#[must_use]
pub fn variant(class: Class, storage: Storage) -> Variant {
    storage.apply(Variant::independent(class))
}

impl Communication {
    /// As in mpe2, with its defaults.
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self { task }
    }

    /// Messages there are.
    fn words(&self) -> u32 {
        match self.task {
            Task::SpeakerListener => 3,
            Task::Reference => 10,
        }
    }

    /// Whether a saved state is one that the kernel could have written. Agents cannot leave [`REACH`] within an episode.
    fn validate(&self, words: &[u32], envs: usize, truncations: u32) -> Result<(), String> {
        let fields = StateFields::new(words, FIELDS as usize, envs)?;
        for field in 0..8 {
            let name = ["position", "velocity"][field / 4];
            fields.reals(&format!("{name} of agent {}", field / 2 % 2), field, -REACH..=REACH)?;
        }
        for field in 8..14 {
            fields.reals(&format!("position of landmark {}", field / 2 - 4), field, -1.0..=1.0)?;
        }
        for agent in 0..2 {
            fields.counts(&format!("goal of agent {agent}"), 14 + agent, 0..=LANDMARKS - 1)?;
            fields.counts(&format!("message of agent {agent}"), 16 + agent, 0..=self.words())?;
        }
        fields.counts("step of the episode", 18, 0..=LENGTH - 1)?;
        fields.counts("episode", 19, 1..=MAX_EPISODES)?;
        fields.counts("truncated episodes", 20, 0..=truncations)?;
        fields.finite("return", 21)
    }

    fn parameters(&self, rollout: &RolloutBuffers<'_>, step: u32, reset: bool) -> Parameters {
        Parameters {
            step,
            steps: rollout.steps,
            envs: rollout.envs,
            reset: u32::from(reset),
            length: LENGTH,
            reference: u32::from(self.task == Task::Reference),
            words: self.words(),
            features: self.spec().obs_dim,
            seed_low: rollout.seed as u32,
            // A key of its own: initial weights draw from the seed itself.
            seed_high: (rollout.seed >> 32) as u32 ^ 0x5EED_0E17,
            pad: [0; 2],
        }
    }
}

impl Environment for Communication {
    fn spec(&self) -> Spec {
        match self.task {
            Task::SpeakerListener => Spec { agents: 2, obs_dim: 8 + self.words(), actions: WAYS },
            Task::Reference => Spec { agents: 2, obs_dim: 11 + self.words(), actions: WAYS + self.words() },
        }
    }

    fn choices(&self) -> Vec<u32> {
        match self.task {
            Task::SpeakerListener => vec![WAYS],
            Task::Reference => vec![WAYS, self.words()],
        }
    }

    fn identity(&self) -> String {
        match self.task {
            Task::SpeakerListener => "simple_speaker_listener Mpe2".into(),
            Task::Reference => "simple_reference Mpe2".into(),
        }
    }

    fn truncations(&self, steps: u32) -> u32 {
        steps.div_ceil(LENGTH)
    }

    fn plan(&self, envs: u32, steps: u32) -> Plan {
        let mut plan = Plan::new();
        plan.words("communication state", FIELDS * u64::from(envs));
        plan.bytes_of("communication parameters", (u64::from(steps) + 1) * TABLE_ENTRY);
        plan
    }

    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        use Access::{DynamicUniform, Read, Write};
        let access = [DynamicUniform, Read, Write, Write, Write, Write, Write];
        let variant = variant(gpu.class(), rollout.storage);
        let kernel = Kernel::trusted(gpu, &SHADER, variant, &access, size_of::<Parameters>())?;
        let state = gpu.buffer("communication state", FIELDS * u64::from(rollout.envs) * 4, gpu::STATE)?;
        let mut table: Vec<_> =
            (0..rollout.steps).map(|step| self.parameters(rollout, step, false)).collect();
        table.push(self.parameters(rollout, 0, true));
        let parameters = gpu.uniform_table("communication", &table)?;
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
#[path = "communication_tests.rs"]
mod tests;
