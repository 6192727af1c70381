//! The description of an environment, and its checks.

use std::sync::Arc;

use super::fields::Structures;
use super::outline::Outline;
use super::{DeviceEnv, Rows, check, generate};
use crate::env::{Spec, StateFields, step};
use crate::gpu::{Class, compose_all};
use crate::nn::Storage;
use crate::{Error, Result};

/// Read-only buffers beside the ones of the rollout: WebGPU's default limits allow eight storage buffers, and six are taken.
const MAX_DATA: usize = 2;

/// An agent's action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ActionKind {
    /// Sizes of the choices; most environments have one.
    Choices(Vec<u32>),
    Continuous,
}

/// Read-only data of an environment.
#[derive(Clone, Debug)]
pub(super) enum Values {
    F32(Arc<[f32]>),
    U32(Arc<[u32]>),
    /// A buffer of f32 that exists already and belongs to others.
    #[cfg_attr(not(feature = "market"), allow(dead_code, reason = "only the market has such a buffer"))]
    Buffer(wgpu::Buffer),
}

impl Values {
    /// Those that the environment uploads; none of a buffer that exists already.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::U32(values) => bytemuck::cast_slice(values),
            Self::Buffer(_) => &[],
        }
    }
}

pub(super) type Validate = Arc<dyn Fn(&StateFields<'_>) -> Result<(), String> + Send + Sync>;

/// An environment as it was described.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) name: &'static str,
    pub(super) source: String,
    pub(super) spec: Spec,
    pub(super) actions: ActionKind,
    pub(super) state_dim: u32,
    pub(super) time_limit: Option<u32>,
    /// Whether `step` may return TRUNCATED, and the fewest steps after which it does.
    pub(super) truncates: bool,
    pub(super) shortest_truncated: u32,
    pub(super) parameters: Option<Vec<u8>>,
    pub(super) data: Vec<(&'static str, Values)>,
    pub(super) identity: Option<String>,
    pub(super) validate: Option<Validate>,
    pub(super) rows: Option<Rows>,
    /// Most steps that a GPU plays in one dispatch.
    pub(super) steps_per_dispatch: u32,
    /// Compiled without bounds checks: for the environments of this crate only.
    pub(super) trusted: bool,
}

impl Rules {
    /// Steps of the shortest truncated episode; `None` if none is ever truncated.
    pub(super) fn shortest(&self) -> Option<u32> {
        let returned = self.truncates.then_some(self.shortest_truncated);
        self.time_limit.into_iter().chain(returned).min()
    }
}

/// Describes a [`DeviceEnv`]; see [`DeviceEnv::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct DeviceEnvBuilder(Rules);

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("name", &self.name).field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl DeviceEnvBuilder {
    pub(super) fn new(name: &'static str, source: String, spec: Spec) -> Self {
        Self(Rules {
            name,
            source,
            spec,
            actions: ActionKind::Choices(vec![spec.actions]),
            state_dim: 0,
            time_limit: None,
            truncates: false,
            shortest_truncated: 0,
            parameters: None,
            data: Vec::new(),
            identity: None,
            validate: None,
            rows: None,
            steps_per_dispatch: 32,
            trusted: false,
        })
    }

    /// Sizes of the choices of a multi-discrete action, which sum to [`Spec::actions`]; `step` reads them with `choice(agent, number)`.
    pub fn choices(mut self, sizes: &[u32]) -> Self {
        self.0.actions = ActionKind::Choices(sizes.to_vec());
        self
    }

    /// [`Spec::actions`] real numbers per agent; `step` reads them with `real(agent, number)`.
    pub fn continuous(mut self) -> Self {
        self.0.actions = ActionKind::Continuous;
        self
    }

    /// Truncates every episode after `steps` steps, unless it terminates in that step.
    pub fn time_limit(mut self, steps: u32) -> Self {
        self.0.time_limit = Some(steps);
        self
    }

    /// Lets `step` return TRUNCATED from step `shortest` of an episode on. Final observations have space for one truncation every
    /// `shortest` steps of a rollout, so before that step TRUNCATED counts as CONTINUES.
    pub fn truncates(mut self, shortest: u32) -> Self {
        (self.0.truncates, self.0.shortest_truncated) = (true, shortest);
        self
    }

    /// Numbers of the global state, which `global_state` writes with `global_feature(index, value)`.
    pub fn state_dim(mut self, numbers: u32) -> Self {
        self.0.state_dim = numbers;
        self
    }

    /// Values of the structure `Parameters`, which has the same layout in WGSL: `#[repr(C)]`, a `vec2` at a multiple of 8 bytes,
    /// a `vec3` or `vec4` at one of 16.
    pub fn parameters<P: bytemuck::NoUninit>(mut self, values: &P) -> Self {
        self.0.parameters = Some(bytemuck::bytes_of(values).to_vec());
        self
    }

    /// Read-only numbers, which the WGSL reads with a function of this name: `name(index) -> f32`.
    pub fn data_f32(mut self, name: &'static str, values: impl Into<Arc<[f32]>>) -> Self {
        self.0.data.push((name, Values::F32(values.into())));
        self
    }

    /// Read-only integers, which the WGSL reads with a function of this name: `name(index) -> u32`.
    pub fn data_u32(mut self, name: &'static str, values: impl Into<Arc<[u32]>>) -> Self {
        self.0.data.push((name, Values::U32(values.into())));
        self
    }

    /// As [`DeviceEnvBuilder::data_f32`], from a buffer that exists already: it is bound, neither copied nor planned. The environment
    /// needs an [`DeviceEnvBuilder::identity`], for nobody reads the buffer.
    #[cfg_attr(not(feature = "market"), allow(dead_code, reason = "only the market has such a buffer"))]
    pub(in crate::env) fn buffer_f32(mut self, name: &'static str, buffer: &wgpu::Buffer) -> Self {
        self.0.data.push((name, Values::Buffer(buffer.clone())));
        self
    }

    /// Checks a saved state before it is written to the device. Fields are the words of `State` in their order. Files are untrusted:
    /// without this check every f32 must be finite, and the WGSL must clamp what it takes as an index from its state. The counters of
    /// episodes and steps are always checked.
    pub fn validate(
        mut self,
        check: impl Fn(&StateFields<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.0.validate = Some(Arc::new(check));
        self
    }

    /// Most steps that a GPU plays in one dispatch, 1 to 32 (the default). Drivers reset a GPU that works for about two seconds on one
    /// dispatch: an environment whose step takes tens of milliseconds needs fewer.
    pub fn steps_per_dispatch(mut self, most: u32) -> Self {
        self.0.steps_per_dispatch = most;
        self
    }

    /// The environment's identity, for those that had one before they were written this way.
    pub(in crate::env) fn identity(mut self, identity: String) -> Self {
        self.0.identity = Some(identity);
        self
    }

    /// Rows of the state, for environments whose checkpoints are older than this form.
    pub(in crate::env) fn rows(mut self, rows: Rows) -> Self {
        self.0.rows = Some(rows);
        self
    }

    /// Compiles without bounds checks.
    pub(in crate::env) fn trusted(mut self) -> Self {
        self.0.trusted = true;
        self
    }

    /// Compiles the WGSL, without a device.
    ///
    /// # Errors
    /// [`Error::Shader`] with the line of a mistake in the WGSL, [`Error::Config`] for sizes out of range.
    pub fn build(self) -> Result<DeviceEnv> {
        let rules = self.0;
        rules.check_sizes()?;
        let failed = |reason| Error::Shader { shader: rules.name.into(), reason };
        check::line_breaks(&rules.source).map_err(failed)?;
        let outline = Outline::new(&rules.source);
        if let Some(line) = outline.unbalanced {
            return Err(failed(format!("line {line}: this bracket has no partner")));
        }
        let constants = generate::constants(&rules);
        check::declarations(&outline, &[&Outline::new(&constants)]).map_err(failed)?;
        let structures = Structures::read(rules.name, &outline, &constants).map_err(failed)?;
        rules.check_parameters(&structures).map_err(failed)?;
        let rows = rules.rows.clone().unwrap_or_else(|| Rows::of(&structures, rules.spec.agents));
        let has = |name| outline.find("fn", name).is_some();
        let (masks, global) = (has("action_mask"), has("global_state"));
        if global != (rules.state_dim > 0) {
            return Err(failed(if global {
                "`global_state` is declared, and the global state has 0 numbers: give their number with `state_dim`".into()
            } else {
                format!("`fn global_state()` is missing: `state_dim` is {}", rules.state_dim)
            }));
        }
        let generated = constants + &generate::declarations(&rules, &structures, &rows, masks, global);
        // Nothing is stripped: the environment's functions call it.
        let shared = compose_all(&step::shader(), &step::variant(Class::Hardware, Storage::F32))?;
        let taken = [&generated, &shared].map(|text| Outline::new(text));
        rules.check_names(&taken)?;
        check::declarations(&outline, &taken.each_ref()).map_err(failed)?;
        let text = format!("{}\n{generated}", rules.source);
        // The functions of this crate's own environments are checked where it is tested.
        if !rules.trusted || cfg!(debug_assertions) {
            check::predeclared(&outline).map_err(failed)?;
            check::kernel(rules.name, &outline, &format!("{text}{shared}")).map_err(failed)?;
        }
        let identity = rules.identity.clone().unwrap_or_else(|| rules.fingerprint(&outline));
        Ok(DeviceEnv { rules, structures, rows, text, identity })
    }
}

impl Rules {
    fn check_sizes(&self) -> Result<()> {
        let range = |key: &str, value: u32, low: u32, high: u32| {
            crate::ranges::check(key, f64::from(value), f64::from(low), f64::from(high))
        };
        range("agents", self.spec.agents, 1, 1024)?;
        range("obs_dim", self.spec.obs_dim, 1, 65_536)?;
        if self.spec.agents * self.spec.obs_dim > 65_536 {
            let all = self.spec.agents * self.spec.obs_dim;
            return Err(Error::config(
                "obs_dim",
                format!("{all} features over all agents, at most 65,536 are possible"),
            ));
        }
        match &self.actions {
            ActionKind::Continuous => range("actions", self.spec.actions, 1, 16)?,
            ActionKind::Choices(sizes) => {
                range("actions", self.spec.actions, 2, 32)?;
                let sum: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
                if sum != u64::from(self.spec.actions) || sizes.iter().any(|size| *size < 2) {
                    return Err(Error::config(
                        "choices",
                        format!(
                            "{sizes:?}: every choice needs at least 2 options, and together {} as `actions` says",
                            self.spec.actions
                        ),
                    ));
                }
            }
        }
        range("state_dim", self.state_dim, 0, 65_536)?;
        range("time_limit", self.time_limit.unwrap_or(1), 1, 1 << 30)?;
        range("truncates", if self.truncates { self.shortest_truncated } else { 1 }, 1, 1 << 30)?;
        range("steps_per_dispatch", self.steps_per_dispatch, 1, 32)?;
        range("data", self.data.len() as u32, 0, MAX_DATA as u32)?;
        for (name, values) in &self.data {
            let mut letters = name.chars();
            let starts = letters.next().is_some_and(|c| c.is_ascii_alphabetic());
            if !starts || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(Error::config("data", format!("`{name}` is not a name of a WGSL function")));
            }
            if check::is_predeclared(name) {
                let reason = format!("`{name}` has a meaning in WGSL itself: choose another name");
                return Err(Error::config("data", reason));
            }
            if matches!(values, Values::Buffer(_)) {
                debug_assert!(self.identity.is_some(), "`{name}` is not part of a fingerprint");
            } else if values.bytes().is_empty() {
                return Err(Error::config("data", format!("`{name}` is empty")));
            }
        }
        Ok(())
    }

    /// Data are functions beside those that phalanx generates: each needs a name of its own.
    fn check_names(&self, generated: &[Outline]) -> Result<()> {
        for (name, _) in &self.data {
            let declared = generated.iter().flat_map(Outline::declarations).filter(|it| it.name == *name);
            if declared.count() > 1 {
                let reason =
                    format!("`{name}` is the name of other data, or of a function that phalanx defines");
                return Err(Error::config("data", reason));
            }
        }
        Ok(())
    }

    /// Compares `Parameters` with the bytes from Rust.
    fn check_parameters(&self, structures: &Structures) -> Result<(), String> {
        match (&structures.parameters, &self.parameters) {
            (Some((size, members)), Some(bytes)) if *size != bytes.len() => {
                let members: Vec<_> = members.iter().map(|(at, name)| format!("{name} at {at}")).collect();
                Err(format!(
                    "`Parameters` has {size} bytes in WGSL and {} in Rust: give the `#[repr(C)]` structure the same members and padding ({})",
                    bytes.len(),
                    members.join(", ")
                ))
            }
            (Some(_), None) => Err("`Parameters` is declared: give its values with `parameters`".into()),
            (None, Some(_)) => Err("`struct Parameters` is missing: `parameters` gives values to it".into()),
            _ => Ok(()),
        }
    }

    /// Name and checksum of everything that decides what happens in the environment.
    fn fingerprint(&self, outline: &Outline) -> String {
        let mut crc = crc32fast::Hasher::new();
        crc.update(outline.words().as_bytes());
        let numbers = (self.spec, &self.actions, self.time_limit, self.truncates, self.shortest_truncated);
        crc.update(format!("{numbers:?} {}", self.state_dim).as_bytes());
        let mut block = |name: &str, bytes: &[u8]| {
            crc.update(format!("{name} {}:", bytes.len()).as_bytes());
            crc.update(bytes);
        };
        block("parameters", self.parameters.as_deref().unwrap_or_default());
        for (name, values) in &self.data {
            let element = if matches!(values, Values::U32(_)) { "u32" } else { "f32" };
            block(&format!("{name} {element}"), values.bytes());
        }
        format!("{} {:08x}", self.name, crc.finalize())
    }
}
