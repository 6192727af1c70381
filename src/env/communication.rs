//! MPE's `simple_speaker_listener` and `simple_reference` under the rules of mpe2 1.1.1: two agents communicate which of three
//! landmarks is the goal.
//!
//! An action pushes an agent (mass 1) with force 5 along one axis. Each step of 0.1 moves the position by the old velocity, then
//! damps the velocity by a quarter. There are no collisions. A message is one-hot and noise-free, and is observed after the step
//! in which it is sent; before the first step it is all zeros. Initial coordinates are uniform in [-1, 1), goals are uniform.
//! Episodes are truncated after 25 steps. [`Task`] lists the differences between the two environments.
//!
//! Shapes: state u32 `[field][env]`, floats stored as bits; all other buffers as in [`super::RolloutBuffers`].

use super::device_env::{self, DeviceEnv, Rows};
use crate::Result;
use crate::env::{EnvRecording, Environment, RolloutBuffers, Spec, StateFields};
use crate::gpu::{Gpu, Plan, Shader};

/// The environment's functions.
pub(super) const SHADER: Shader = crate::shaders::shader!("env/communication");

/// Steps of an episode.
pub(super) const LENGTH: u32 = 25;

/// State words of one environment: an (x, y) pair for every position and velocity, two goals, two messages, four counters.
const FIELDS: u32 = 22;

/// Number of landmarks, one of which is the goal.
const LANDMARKS: u32 = 3;

/// Upper bound on coordinates and velocities that no agent can reach within an episode.
const REACH: f32 = 100.0;

/// Movement actions: stay, -x, +x, -y, +y.
const MOVES: u32 = 5;

/// The two MPE environments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// `simple_speaker_listener_v4`. Agent 0, the speaker, observes the colour of the goal (0.65 at the goal's index, 0.15
    /// elsewhere) and sends one of 3 messages. Agent 1, the listener, observes its velocity, the relative positions of the
    /// landmarks and the message (11 features), and moves. Both agents receive the negative squared distance between the listener
    /// and the goal.
    ///
    /// All agents share one observation and action size here: the speaker's 3 features are padded with 8 zeros, and the action
    /// mask allows the first 3 of its 5 actions.
    #[default]
    SpeakerListener,
    /// `simple_reference_v3`. Both agents move and send one of 10 messages, and each knows the other's goal. An agent observes its
    /// velocity, the landmarks, the colour of the other's goal (0.75 at its index, 0.25 elsewhere) and the other's message (21
    /// features). Its local reward is the negative distance between the *other* agent and that goal; its reward is half local and
    /// half the mean of both local rewards (`local_ratio` 0.5).
    ///
    /// An action combines one of 5 moves and one of 10 messages; its index, `move + 5 * message`, equals that of mpe2's
    /// `Discrete(50)`.
    Reference,
}

/// MPE's communication environments on the device.
#[derive(Clone, Copy, Debug)]
pub struct Communication {
    task: Task,
}

/// Mirrors `Parameters` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Parameters {
    pub(super) reference: u32,
    pub(super) words: u32,
}

impl Communication {
    /// The environment with mpe2's default settings.
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self { task }
    }

    /// Number of messages.
    fn words(&self) -> u32 {
        match self.task {
            Task::SpeakerListener => 3,
            Task::Reference => 10,
        }
    }

    /// Rejects a saved state that the kernel could not have written. Agents stay within [`REACH`] for a whole episode.
    fn validate(&self, fields: &StateFields<'_>) -> Result<(), String> {
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
        Ok(())
    }

    /// The environment as WGSL functions.
    ///
    /// # Errors
    /// None but for a mistake in this crate: the functions are those of `shaders/env/communication.wgsl`.
    pub(super) fn functions(&self) -> Result<DeviceEnv> {
        let environment = *self;
        let reference = u32::from(self.task == Task::Reference);
        DeviceEnv::builder(SHADER.name, SHADER.source, self.spec())
            .choices(&self.choices())
            .parameters(&Parameters { reference, words: self.words() })
            .time_limit(LENGTH)
            .identity(self.identity())
            .rows(rows())
            .validate(move |fields| environment.validate(fields))
            .trusted()
            .build()
    }
}

/// Rows in the order of checkpoints: position and velocity of every agent, landmarks, goals, messages, four counters.
fn rows() -> Rows {
    let agents = [[0, 2], [1, 2], [4, 2], [5, 2], [14, 1], [16, 1]];
    Rows { state: (8..14).collect(), counters: Rows::consecutive(18), agents: agents.to_vec() }
}

impl Environment for Communication {
    fn spec(&self) -> Spec {
        match self.task {
            Task::SpeakerListener => Spec { agents: 2, obs_dim: 8 + self.words(), actions: MOVES },
            Task::Reference => Spec { agents: 2, obs_dim: 11 + self.words(), actions: MOVES + self.words() },
        }
    }

    fn choices(&self) -> Vec<u32> {
        match self.task {
            Task::SpeakerListener => vec![MOVES],
            Task::Reference => vec![MOVES, self.words()],
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
        device_env::plan(FIELDS, envs, steps, Some(size_of::<Parameters>()))
    }

    fn device_env(&self) -> Result<Option<DeviceEnv>> {
        self.functions().map(Some)
    }

    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        self.functions()?.record(gpu, rollout)
    }
}

#[cfg(test)]
#[path = "communication_tests.rs"]
mod tests;
