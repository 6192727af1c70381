//! The state of an environment between rollouts, as a snapshot saves it.
//!
//! A snapshot is a file, and a file may hold anything: its numbers are validated by the environment that they belong to
//! before one of them reaches the device.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::Result;

/// Episodes that a saved environment may have begun, per environment. No run comes near it, and counters have room for as
/// many again.
pub const MAX_EPISODES: u32 = 1 << 31;

/// A part of an environment's state.
#[derive(Clone, Debug)]
pub enum State {
    /// In a buffer on the device.
    Device(DeviceState),
    /// In the memory of the CPU.
    Host(Arc<dyn HostState>),
}

type Validate = Arc<dyn Fn(&[u32]) -> Result<(), String> + Send + Sync>;

/// State in a buffer on the device, with the check that saved words have to pass before they are written to it.
#[derive(Clone)]
pub struct DeviceState {
    buffer: wgpu::Buffer,
    validate: Validate,
}

impl DeviceState {
    /// `buffer` has the usage [`crate::gpu::STATE`]. `validate` is given the words of a saved buffer, as many as `buffer` holds,
    /// and returns what is wrong with them. It has to refuse every value that the kernels could not have written,
    /// above all those that they index with; [`StateFields`] helps.
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
    /// A message that says what is wrong with them.
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

/// State in the memory of the CPU that can be saved.
pub trait HostState: Send + Sync + std::fmt::Debug {
    /// Everything that [`HostState::load`] needs.
    ///
    /// # Errors
    /// [`crate::Error::Data`] if it cannot be saved.
    fn save(&self) -> Result<Vec<u8>>;

    /// Validates what [`HostState::save`] returned and changes nothing yet; the function that it returns restores the state.
    ///
    /// # Errors
    /// [`crate::Error::Data`] that says what is wrong with the bytes.
    fn load<'a>(&'a self, bytes: &[u8]) -> Result<Box<dyn FnOnce() + 'a>>;
}

/// Saved words of a state laid out as `[field][env]`, with checks that name the environment and the field at fault.
#[derive(Clone, Copy, Debug)]
pub struct StateFields<'a> {
    words: &'a [u32],
    envs: usize,
}

impl<'a> StateFields<'a> {
    /// # Errors
    /// If the words are not those of `fields` fields of `envs` environments; the padding at the end of a buffer may follow.
    pub fn new(words: &'a [u32], fields: usize, envs: usize) -> Result<Self, String> {
        let expected = fields.saturating_mul(envs);
        if words.len() < expected || words.len() - expected >= 4 {
            return Err(format!("{} words, expected {expected}", words.len()));
        }
        Ok(Self { words, envs })
    }

    /// Word `field` of environment `env`.
    #[must_use]
    pub fn word(&self, field: usize, env: usize) -> u32 {
        self.words[field * self.envs + env]
    }

    /// The same as the bits of an f32.
    #[must_use]
    pub fn real(&self, field: usize, env: usize) -> f32 {
        f32::from_bits(self.word(field, env))
    }

    /// Integers within `range` in all environments.
    ///
    /// # Errors
    /// The first that is not.
    pub fn counts(&self, name: &str, field: usize, range: RangeInclusive<u32>) -> Result<(), String> {
        let faulty = (0..self.envs).find(|env| !range.contains(&self.word(field, *env)));
        faulty.map_or(Ok(()), |env| Err(self.outside(name, env, self.word(field, env), &range)))
    }

    /// Finite reals within `range` in all environments.
    ///
    /// # Errors
    /// The first that is not; a NaN never is.
    pub fn reals(&self, name: &str, field: usize, range: RangeInclusive<f32>) -> Result<(), String> {
        let faulty = (0..self.envs).find(|env| {
            let value = self.real(field, *env);
            !(value.is_finite() && range.contains(&value))
        });
        faulty.map_or(Ok(()), |env| Err(self.outside(name, env, self.real(field, env), &range)))
    }

    /// Finite reals in all environments.
    ///
    /// # Errors
    /// The first that is not.
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
