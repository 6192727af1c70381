//! The state of an environment between rollouts, as saved in snapshots.
//!
//! Snapshot files are untrusted: the environment validates every value before it is written to the device.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::Result;

/// Largest number of episodes per environment that a saved state may contain: half the range of the counter, so that it cannot
/// overflow after a resume.
pub const MAX_EPISODES: u32 = 1 << 31;

/// Largest magnitude of observations and rewards. Normalisation, losses and gradient norms sum the squares of many of them, which must
/// stay finite in f32.
pub const LARGEST_MAGNITUDE: f32 = 1e15;

/// A part of an environment's state.
#[derive(Clone, Debug)]
pub enum State {
    /// State in a device buffer.
    Device(DeviceState),
    /// State in CPU memory.
    Host(Arc<dyn HostState>),
}

type Validate = Arc<dyn Fn(&[u32]) -> Result<(), String> + Send + Sync>;

/// State in a device buffer, with the check that saved words must pass before they are written to it.
#[derive(Clone)]
pub struct DeviceState {
    buffer: wgpu::Buffer,
    validate: Validate,
}

impl DeviceState {
    /// Wraps a buffer with the usage [`crate::gpu::STATE`]. `validate` receives the words of a saved buffer, as many as `buffer`
    /// holds, and returns an error message if they are invalid. It must reject every value that the kernels could not have
    /// written, in particular values used as indices; [`StateFields`] has checks for common cases.
    pub fn new(
        buffer: wgpu::Buffer,
        validate: impl Fn(&[u32]) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { buffer, validate: Arc::new(validate) }
    }

    /// The buffer.
    #[must_use]
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Checks the words of a saved buffer.
    ///
    /// # Errors
    /// A message that names the invalid value.
    pub fn validate(&self, words: &[u32]) -> Result<(), String> {
        let expected = self.buffer.size() / 4;
        if words.len() as u64 != expected {
            return Err(format!("{} words, expected {expected}", words.len()));
        }
        (self.validate)(words)
    }
}

impl std::fmt::Debug for DeviceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceState").field("buffer", &self.buffer).finish_non_exhaustive()
    }
}

/// State in CPU memory that can be saved.
pub trait HostState: Send + Sync + std::fmt::Debug {
    /// Serialises the state for [`HostState::load`].
    ///
    /// # Errors
    /// [`crate::Error::Data`] if the environment does not support saving.
    fn save(&self) -> Result<Vec<u8>>;

    /// Validates bytes written by [`HostState::save`] without changing the state, and returns a function that restores it.
    ///
    /// # Errors
    /// [`crate::Error::Data`] if the bytes are invalid.
    fn load<'a>(&'a self, bytes: &[u8]) -> Result<Box<dyn FnOnce() + 'a>>;
}

/// Checks of saved state words, laid out as `[field][env]`; errors name the environment and the field.
#[derive(Clone, Copy, Debug)]
pub struct StateFields<'a> {
    words: &'a [u32],
    envs: usize,
}

impl<'a> StateFields<'a> {
    /// Views `words` as `fields` fields of `envs` environments.
    ///
    /// # Errors
    /// If the number of words differs from `fields * envs`; up to three words of buffer padding may follow.
    pub fn new(words: &'a [u32], fields: usize, envs: usize) -> Result<Self, String> {
        let expected = fields.saturating_mul(envs);
        if words.len() < expected || words.len() - expected >= 4 {
            return Err(format!("{} words, expected {expected}", words.len()));
        }
        Ok(Self { words, envs })
    }

    /// Number of environments.
    #[must_use]
    pub fn envs(&self) -> usize {
        self.envs
    }

    /// Word `field` of environment `env`.
    #[must_use]
    pub fn word(&self, field: usize, env: usize) -> u32 {
        self.words[field * self.envs + env]
    }

    /// Word `field` of environment `env` as an f32.
    #[must_use]
    pub fn real(&self, field: usize, env: usize) -> f32 {
        f32::from_bits(self.word(field, env))
    }

    /// Checks that the integers of a field lie within `range` in all environments.
    ///
    /// # Errors
    /// A message with the first value outside.
    pub fn counts(&self, name: &str, field: usize, range: RangeInclusive<u32>) -> Result<(), String> {
        let faulty = (0..self.envs).find(|env| !range.contains(&self.word(field, *env)));
        faulty.map_or(Ok(()), |env| Err(self.outside(name, env, self.word(field, env), &range)))
    }

    /// Checks that the floats of a field are finite and within `range` in all environments.
    ///
    /// # Errors
    /// A message with the first value that is not.
    pub fn reals(&self, name: &str, field: usize, range: RangeInclusive<f32>) -> Result<(), String> {
        let faulty = (0..self.envs).find(|env| {
            let value = self.real(field, *env);
            !(value.is_finite() && range.contains(&value))
        });
        faulty.map_or(Ok(()), |env| Err(self.outside(name, env, self.real(field, env), &range)))
    }

    /// Checks that the floats of a field are finite in all environments.
    ///
    /// # Errors
    /// A message with the first value that is not.
    pub fn finite(&self, name: &str, field: usize) -> Result<(), String> {
        let faulty = (0..self.envs).find(|env| !self.real(field, *env).is_finite());
        faulty.map_or(Ok(()), |env| {
            Err(format!("environment {env}: {name} is {}, expected a finite number", self.real(field, env)))
        })
    }

    fn outside<T: std::fmt::Display>(
        &self,
        name: &str,
        env: usize,
        value: T,
        range: &RangeInclusive<T>,
    ) -> String {
        format!("environment {env}: {name} is {value}, expected {} to {}", range.start(), range.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_out_of_range_is_named() {
        let words = [1, 2, 3, 4, 0f32.to_bits(), 1f32.to_bits(), 2f32.to_bits(), f32::NAN.to_bits()];
        let fields = StateFields::new(&words, 2, 4).unwrap();
        fields.counts("step", 0, 1..=4).unwrap();
        let error = fields.counts("step", 0, 1..=2).unwrap_err();
        assert_eq!(error, "environment 2: step is 3, expected 1 to 2");
        let error = fields.finite("equity", 1).unwrap_err();
        assert!(error.starts_with("environment 3: equity is NaN"), "{error}");
        let error = fields.reals("equity", 1, 0.5..=9.0).unwrap_err();
        assert!(error.starts_with("environment 0: equity is 0"), "{error}");
        for (fields, envs) in [(3, 4), (1, 4), (usize::MAX, 4)] {
            assert!(StateFields::new(&words, fields, envs).is_err());
        }
    }
}
