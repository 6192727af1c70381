//! The loop over iterations: reports each one, stops when the caller says so or when training cannot learn.

use std::ops::ControlFlow;

use half::f16;

use super::health::Fault;
use super::progress::Progress;
use super::trainer::Trainer;
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
            if self.submitted < last && self.has_room() {
                self.submit()?;
                if self.has_room() && self.submitted < last {
                    continue;
                }
            }
            if let Some(progress) = self.collect()? {
                if report(&progress).verdict()?.is_break() {
                    last = last.min(self.submitted);
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

    /// The largest observation and the largest reward of the last rollout, and what to do about the larger one.
    fn suspect(&self) -> Result<String> {
        let sizes = &self.sizes;
        let rewards: Vec<f32> = self.gpu.read(&self.buffers.rollout.rewards)?;
        let raw = self.buffers.observed();
        let bytes = self.gpu.read_range(raw, 0, raw.size())?;
        let observations: Vec<f32> = match sizes.observed_storage(self.kernel_config.storage).precision() {
            Precision::F32 => bytemuck::pod_collect_to_vec(&bytes),
            Precision::F16 => {
                bytes.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
            }
        };
        // Slots of the rollout; those of truncated episodes may be unused.
        let seen = (sizes.observed() * u64::from(sizes.steps + 1)) as usize;
        let (index, observation) = largest(&observations[..seen.min(observations.len())]);
        let (_, reward) = largest(&rewards[..sizes.rows() as usize]);
        let number = index / sizes.envs as usize;
        let feature = number % sizes.spec.obs_dim as usize;
        let agent = number / sizes.spec.obs_dim as usize % sizes.spec.agents as usize;
        let found = format!(
            "The largest observation of the last rollout is {observation:e} (feature {feature} of agent {agent}), the largest \
             reward {reward:e} in magnitude"
        );
        let advice = if observation.abs() >= reward.abs() && observation.abs() > 1e3 {
            "scale that feature, or set `observation_norm = true`"
        } else if reward.abs() > 1e3 {
            "scale the rewards (`reward_scale`)"
        } else {
            "lower the learning rates (`actor_learning_rate`, `critic_learning_rate`) or `max_grad_norm`, or use \
             `precision = \"f32\"`"
        };
        Ok(format!("{found}: {advice}"))
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
