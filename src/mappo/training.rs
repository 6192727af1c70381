//! The loop over iterations: reports each one, stops when the caller says so or when training cannot learn.

use std::ops::ControlFlow;

use half::f16;

use super::health::Fault;
use super::progress::Progress;
use super::trainer::Trainer;
use crate::env::LARGEST_MAGNITUDE;
use crate::nn::Precision;
use crate::{Error, Result};

/// Results of the callback of [`Trainer::train`]: nothing, a [`ControlFlow`], or a result of one of the two.
///
/// ```
/// use std::ops::ControlFlow;
/// use phalanx::mappo::{Progress, Trainer};
///
/// fn until_solved(trainer: &mut Trainer) -> phalanx::Result<()> {
///     trainer.train(|progress: &Progress| match progress.running_return {
///         Some(mean) if mean >= 475.0 => ControlFlow::Break(()),
///         _ => ControlFlow::Continue(()),
///     })
/// }
/// ```
pub trait Verdict {
    /// The error of the callback, which [`Trainer::train`] returns.
    type Error: From<Error>;

    /// Whether training continues.
    ///
    /// # Errors
    /// The callback's own.
    fn verdict(self) -> Result<ControlFlow<()>, Self::Error>;
}

impl Verdict for () {
    type Error = Error;
    fn verdict(self) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }
}

impl Verdict for ControlFlow<()> {
    type Error = Error;
    fn verdict(self) -> Result<ControlFlow<()>> {
        Ok(self)
    }
}

impl<E: From<Error>> Verdict for Result<(), E> {
    type Error = E;
    fn verdict(self) -> Result<ControlFlow<()>, E> {
        self.map(ControlFlow::Continue)
    }
}

impl<E: From<Error>> Verdict for Result<ControlFlow<()>, E> {
    type Error = E;
    fn verdict(self) -> Self {
        self
    }
}

impl Trainer {
    /// Trains for the configured number of iterations. `report` receives the metrics of each while the next one is in flight, and
    /// can end training: see [`Verdict`].
    ///
    /// # Errors
    /// As [`Trainer::train_until`].
    pub fn train<V: Verdict>(&mut self, report: impl FnMut(&Progress) -> V) -> Result<(), V::Error> {
        self.train_until(self.config.ppo.iterations, report)
    }

    /// Trains up to iteration `last` of the run, or until `report` returns [`ControlFlow::Break`]: then the iteration that is
    /// already in flight, if there is one, is completed and reported too. Afterwards no iteration is in flight, also after an
    /// error, so that the trainer can be saved, evaluated and trained further.
    ///
    /// # Errors
    /// Errors of `report`, of the device and of simulators. [`Error::Data`] if training cannot learn: if in three iterations in a
    /// row every optimizer step of a network was skipped because its gradient was not finite (in f16 also at least 40 steps,
    /// while the loss scale is searched), or if no agent was active in any of them.
    pub fn train_until<V: Verdict>(
        &mut self,
        last: u32,
        mut report: impl FnMut(&Progress) -> V,
    ) -> Result<(), V::Error> {
        let last = last.min(self.config.ppo.iterations);
        let result = self.iterate(last, &mut report);
        // Nothing to do after a complete run. An error of the device shows again in the next call.
        while let Ok(Some(_)) = self.collect() {}
        result
    }

    fn iterate<V: Verdict>(
        &mut self,
        last: u32,
        report: &mut impl FnMut(&Progress) -> V,
    ) -> Result<(), V::Error> {
        let mut last = last;
        while self.collected < last {
            if self.submitted < last && self.has_room() && !self.waits_to_time() {
                self.submit_next()?;
                if self.has_room() && self.submitted < last {
                    continue;
                }
            }
            if let Some(progress) = self.collect()? {
                if report(&progress).verdict()?.is_break() {
                    last = last.min(self.submitted);
                }
                if !std::mem::replace(&mut self.examined, true) {
                    self.examine()?;
                }
                if let Some(fault) = self.health.fault(&self.config) {
                    return Err(self.cannot_learn(fault).into());
                }
            }
        }
        Ok(())
    }

    fn cannot_learn(&self, fault: Fault) -> Error {
        match fault {
            Fault::NotFinite(iterations) => {
                let suspect = match self.suspect() {
                    Ok(suspect) => suspect,
                    Err(error) => return error,
                };
                Error::Data(format!(
                    "training cannot learn: in the last {iterations} iterations every optimizer step of a network was skipped, \
                     because its gradient was not finite. {suspect}"
                ))
            }
            Fault::Inactive(iterations) => Error::Data(format!(
                "training cannot learn: no agent was active in the last {iterations} iterations, because every action mask was 0; \
                 an agent needs at least one allowed action"
            )),
        }
    }

    /// Checks the observations of the first rollout. [`CpuEnv`](crate::env::CpuEnv) checks every step; environments on the device
    /// write their observations unseen, and a LayerNorm would turn all but the huge ones into 0 without a word.
    ///
    /// # Errors
    /// [`Error::Data`] if one is too large for squares of it to be summed in f32.
    pub(super) fn examine(&self) -> Result<()> {
        let largest = self.largest_observation(1 << 20)?;
        if largest.value.abs() <= LARGEST_MAGNITUDE {
            return Ok(());
        }
        let found = format!("{largest} is too large");
        let advice = match largest.value.is_finite() {
            true => format!("magnitudes up to {LARGEST_MAGNITUDE:e} are allowed: scale that feature"),
            false => "observations must be finite".into(),
        };
        Err(Error::Data(format!("{found}: {advice}")))
    }

    /// The largest of the first `most` observations of the last rollout.
    fn largest_observation(&self, most: usize) -> Result<Observation> {
        let sizes = &self.sizes;
        let storage = sizes.observed_storage(self.kernel_config.storage);
        // Slots of the rollout; those of truncated episodes may be unused.
        let seen = ((sizes.observed() * u64::from(sizes.steps + 1)) as usize).min(most);
        let raw = self.buffers.observed();
        let bytes = self.gpu.read_range(raw, 0, raw.size().min(seen as u64 * storage.precision().bytes()))?;
        let observations: Vec<f32> = match storage.precision() {
            Precision::F32 => bytemuck::pod_collect_to_vec(&bytes),
            Precision::F16 => {
                bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
            }
        };
        let (index, value) = largest(&observations);
        let number = index / sizes.envs as usize;
        let feature = number % sizes.spec.obs_dim as usize;
        let agent = number / sizes.spec.obs_dim as usize % sizes.spec.agents as usize;
        Ok(Observation { agent, feature, value })
    }

    /// The largest observation and the largest reward of the last rollout, and what to do about the larger one.
    fn suspect(&self) -> Result<String> {
        let rewards: Vec<f32> = self.gpu.read(&self.buffers.rollout.rewards)?;
        let (_, reward) = largest(&rewards[..self.sizes.rows() as usize]);
        let observation = self.largest_observation(usize::MAX)?;
        let found = format!(
            "The largest {observation} in the last rollout, the largest reward {reward:e} in magnitude"
        );
        let observed = observation.value.abs();
        let network = &self.config.network;
        let advice = match (observed >= reward.abs() && observed > 1e3, reward.abs() > 1e3) {
            (true, _) if network.observation_norm => "scale that feature",
            (true, _) => "scale that feature, or set `observation_norm = true`",
            (false, true) => "scale the rewards (`reward_scale`)",
            _ if self.config.device.precision == Precision::F16 => {
                "lower the learning rates (`actor_learning_rate`, `critic_learning_rate`) or `max_grad_norm`, or use \
                 `precision = \"f32\"`"
            }
            _ => {
                "lower the learning rates (`actor_learning_rate`, `critic_learning_rate`) or `max_grad_norm`"
            }
        };
        Ok(format!("{found}: {advice}"))
    }
}

/// An observation of the last rollout.
struct Observation {
    agent: usize,
    feature: usize,
    value: f32,
}

impl std::fmt::Display for Observation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { agent, feature, value } = self;
        write!(f, "observation {value:e} (feature {feature} of agent {agent})")
    }
}

/// The number of the largest magnitude, and its index; non-finite numbers count as the largest.
fn largest(values: &[f32]) -> (usize, f32) {
    let size = |value: f32| if value.is_nan() { f32::INFINITY } else { value.abs() };
    let found = values.iter().copied().enumerate().max_by(|(_, a), (_, b)| size(*a).total_cmp(&size(*b)));
    found.unwrap_or_default()
}

#[cfg(test)]
#[path = "training_tests.rs"]
mod tests;
