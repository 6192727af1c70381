//! Environments that are WGSL functions, with a few lines of Rust.

mod builder;
mod check;
mod fields;
mod generate;
mod outline;
#[cfg(test)]
mod tests;

pub use self::builder::DeviceEnvBuilder;
use self::builder::{ActionKind, Rules, Values};
use self::fields::{Scalar, Structures};
use super::functions::Step;
use super::{DeviceState, EnvRecording, Environment, MAX_EPISODES, RolloutBuffers, Spec, StateFields, step};
use crate::Result;
use crate::gpu::{Access, Gpu, Kernel, Plan, STATE, Shader, TABLE_ENTRY, Variant, compose_all};

/// Most words of 32 bits in a `State`, and in an `AgentState`.
const MAX_WORDS: usize = 128;

/// Rows of the state buffer: row r of environment e is word r * envs + e.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// Row of every word of `State`.
    pub(super) state: Vec<u32>,
    /// Rows of the steps taken, the episodes begun, the episodes truncated in this rollout, and the return.
    pub(super) counters: [u32; 4],
    /// Row of the first agent, and distance from one agent to the next, of every word of `AgentState`.
    pub(super) agents: Vec<[u32; 2]>,
}

impl Rows {
    /// `State`, the counters, then `AgentState`, agent by agent within a word.
    fn of(structures: &Structures, agents: u32) -> Self {
        let counters = structures.state_words().count() as u32;
        let words = (0..).zip(structures.agent_words());
        let agents = words.map(|(word, _)| [counters + 4 + word * agents, 1]).collect();
        Self { state: (0..counters).collect(), counters: Self::consecutive(counters), agents }
    }

    /// Counters in their order from row `first` on.
    pub(super) fn consecutive(first: u32) -> [u32; 4] {
        [0, 1, 2, 3].map(|counter| first + counter)
    }
}

/// An environment on the device whose rules are WGSL functions: `reset`, `step`, `observe`, and optionally `action_mask` and
/// `global_state`. phalanx composes the kernel around them, keeps their state, counts episodes and returns, and saves it all in
/// checkpoints. `docs/environments.md` lists the functions that they may call and shows a whole environment.
///
/// It is an [`Environment`] itself, not an adapter around one: everything that a trainer asks for follows from the WGSL and the
/// numbers given to [`DeviceEnv::builder`], so there is nothing left for a caller to implement.
///
/// ```
/// use phalanx::env::{DeviceEnv, Environment, Spec};
///
/// // One agent guesses which of two numbers the episode is about, and is told.
/// let rules = "
/// struct State { answer: u32 }
/// fn reset() { state.answer = u32(2.0 * random(0u).x); }
/// fn step() -> Outcome {
///     reward(0u, select(0.0, 1.0, action(0u) == state.answer));
///     return TERMINATED;
/// }
/// fn observe(agent: u32) { feature(0u, f32(state.answer)); }
/// ";
/// let guess = DeviceEnv::builder("guess", rules, Spec { agents: 1, obs_dim: 1, actions: 2 }).build()?;
/// assert_eq!(guess.truncations(64), 0);
/// # Ok::<(), phalanx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeviceEnv {
    rules: Rules,
    structures: Structures,
    rows: Rows,
    /// The environment's text and everything generated for it, without what it shares with all others.
    text: String,
    identity: String,
}

impl DeviceEnv {
    /// Describes an environment. `name` is used in messages and checkpoints, `source` is its WGSL.
    ///
    /// Actions are discrete, one of [`Spec::actions`], and episodes end only when `step` returns TERMINATED, unless the builder is
    /// told otherwise.
    pub fn builder(name: &'static str, source: impl Into<String>, spec: Spec) -> DeviceEnvBuilder {
        DeviceEnvBuilder::new(name, source.into(), spec)
    }

    /// The source of its step kernel.
    ///
    /// # Errors
    /// [`crate::Error::Shader`] if the part that environments share does not compose.
    pub(super) fn source(&self, variant: &Variant) -> Result<String> {
        self.source_of(&step::shader(), variant)
    }

    /// The source of a kernel around its functions.
    pub(super) fn source_of(&self, shader: &Shader, variant: &Variant) -> Result<String> {
        let shared = compose_all(shader, variant)?;
        // Directives come first.
        let directive = "enable f16;\n";
        let (directive, shared) =
            shared.strip_prefix(directive).map_or(("", shared.as_str()), |rest| (directive, rest));
        Ok(format!("{directive}{}{shared}", self.text))
    }

    /// The name in messages.
    pub(super) fn name(&self) -> &'static str {
        self.rules.name
    }

    /// Rows of the state.
    fn words(&self) -> u32 {
        let agents = self.structures.agent_words().count() as u32 * self.rules.spec.agents;
        self.structures.state_words().count() as u32 + 4 + agents
    }

    /// Access modes of the bindings after those of [`EnvRecording::ACCESS`]: parameters and data.
    pub(super) fn further_access(&self) -> impl Iterator<Item = Access> {
        let uniform = self.rules.parameters.as_ref().map(|_| Access::Uniform);
        uniform.into_iter().chain(self.rules.data.iter().map(|_| Access::Read))
    }

    /// Whether its kernels are compiled with bounds checks: a user's WGSL always is.
    pub(super) fn checked(&self, gpu: &Gpu) -> bool {
        !self.rules.trusted || gpu.checked()
    }

    /// Parameters of step `step`, or of the reset.
    pub(super) fn step(&self, rollout: &RolloutBuffers<'_>, step: u32, reset: bool) -> Step {
        let Rules { spec, time_limit, .. } = &self.rules;
        let last_cut = self.truncations(rollout.steps).saturating_sub(1);
        let limit = time_limit.unwrap_or(0);
        Step { agents: spec.agents, limit, last_cut, ..Step::new(rollout, step, reset) }
    }

    /// Most steps that a GPU plays in one dispatch.
    pub(super) fn steps_per_dispatch(&self) -> u32 {
        self.rules.steps_per_dispatch
    }

    /// Its state, and the buffers of [`DeviceEnv::further_access`].
    pub(super) fn allocate(
        &self,
        gpu: &Gpu,
        rollout: &RolloutBuffers<'_>,
    ) -> Result<(DeviceState, Vec<wgpu::Buffer>)> {
        rollout.check(self)?;
        let words = u64::from(self.words()) * u64::from(rollout.envs);
        let buffer = gpu.buffer("environment state", words * 4, STATE)?;
        let mut further = Vec::new();
        if let Some(bytes) = &self.rules.parameters {
            further.push(gpu.uniform_bytes("environment parameters", bytes)?);
        }
        for (name, values) in &self.rules.data {
            further.push(match values {
                Values::Buffer(buffer) => buffer.clone(),
                values => gpu.upload(name, values.bytes())?,
            });
        }
        let (environment, envs) = (self.clone(), rollout.envs as usize);
        let truncations = self.truncations(rollout.steps);
        let state = DeviceState::new(buffer, move |words| environment.validate(words, envs, truncations));
        Ok((state, further))
    }

    /// Rejects a saved state that the kernel could not have written.
    fn validate(&self, words: &[u32], envs: usize, truncations: u32) -> Result<(), String> {
        let fields = StateFields::new(words, self.words() as usize, envs)?;
        let [taken, begun, cut, total] = self.rows.counters.map(|row| row as usize);
        let last = self.rules.time_limit.map_or(i32::MAX as u32, |limit| limit - 1);
        fields.counts("step of the episode", taken, 0..=last)?;
        fields.counts("episode", begun, 1..=MAX_EPISODES)?;
        fields.counts("truncated episodes", cut, 0..=truncations)?;
        fields.finite("return", total)?;
        let own =
            |fields: &StateFields<'_>| self.rules.validate.as_ref().map_or(Ok(()), |check| check(fields));
        // The checks of this crate's environments know better names, and look at every number.
        if self.rules.trusted {
            own(&fields)?;
        }
        for (row, word) in self.rows.state.iter().zip(self.structures.state_words()) {
            if word.scalar == Scalar::F32 {
                fields.finite(&word.path, *row as usize)?;
            }
        }
        for ([first, stride], word) in self.rows.agents.iter().zip(self.structures.agent_words()) {
            for agent in 0..self.rules.spec.agents {
                if word.scalar == Scalar::F32 {
                    fields.finite(
                        &format!("{} of agent {agent}", word.path),
                        (first + stride * agent) as usize,
                    )?;
                }
            }
        }
        if self.rules.trusted { Ok(()) } else { own(&fields) }
    }
}

/// Memory plan of an environment with `words` words of state and parameters of `parameters` bytes, without data.
pub(super) fn plan(words: u32, envs: u32, steps: u32, parameters: Option<usize>) -> Plan {
    let mut plan = Plan::new();
    plan.words("environment state", u64::from(words) * u64::from(envs));
    plan.bytes_of("environment steps", (u64::from(steps) + 1) * TABLE_ENTRY);
    parameters.into_iter().for_each(|bytes| plan.bytes_of("environment parameters", bytes as u64));
    plan
}

impl Environment for DeviceEnv {
    fn spec(&self) -> Spec {
        self.rules.spec
    }

    fn continuous(&self) -> bool {
        self.rules.actions == ActionKind::Continuous
    }

    fn choices(&self) -> Vec<u32> {
        match &self.rules.actions {
            ActionKind::Choices(sizes) => sizes.clone(),
            ActionKind::Continuous => vec![self.rules.spec.actions],
        }
    }

    fn state_dim(&self) -> u32 {
        self.rules.state_dim
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn truncations(&self, steps: u32) -> u32 {
        self.rules.shortest().map_or(0, |shortest| steps.div_ceil(shortest))
    }

    fn plan(&self, envs: u32, steps: u32) -> Plan {
        let parameters = self.rules.parameters.as_ref().map(Vec::len);
        let mut plan = plan(self.words(), envs, steps, parameters);
        let uploaded = self.rules.data.iter().filter(|(_, values)| !values.bytes().is_empty());
        uploaded.for_each(|(name, values)| plan.bytes_of(name, values.bytes().len() as u64));
        plan
    }

    fn device_env(&self) -> Result<Option<DeviceEnv>> {
        Ok(Some(self.clone()))
    }

    fn record(&self, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        let variant = step::variant(gpu.class(), rollout.storage);
        let source = self.source(&variant)?;
        let access: Vec<_> =
            (0..).zip(EnvRecording::ACCESS.into_iter().chain(self.further_access())).collect();
        let name = self.rules.name;
        let checked = self.checked(gpu);
        let kernel = Kernel::from_source(gpu, name, source, variant, &access, size_of::<Step>(), checked)?;
        let (state, further) = self.allocate(gpu, rollout)?;
        let further: Vec<_> = further.iter().collect();
        EnvRecording::of_kernel(gpu, rollout, &kernel, state, &further, |step, reset| {
            self.step(rollout, step, reset)
        })
    }
}
