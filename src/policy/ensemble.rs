//! Several policies that decide together, by the mean of their outputs.

mod difference;
#[cfg(feature = "market")]
pub(super) mod together;

use super::actions::Actions;
#[cfg(feature = "market")]
use super::market::MarketMetadata;
use super::policy::Policy;
use super::state::PolicyState;
use crate::mappo::ActionMode;
use crate::{Error, Result};

/// Policies that decide together, the seeds of one training for instance.
///
/// Their outputs are averaged before an action is chosen. Discrete actions come from the softmax of the mean logits, or are the most
/// probable one of it, in which the probability of an action is the normalised geometric mean of the policies' probabilities; masked
/// actions stay masked. Continuous actions have the mean of the policies' means, and of the logarithms of their standard deviations,
/// before they are squashed by tanh. Every policy observes the same, normalises it by its own statistics and keeps its own memory: in a
/// market all of them observe the one account that they trade together. An ensemble of a policy with itself decides as the policy.
///
/// The policies may have networks of different kinds: other widths, separate or shared, with or without a GRU, in f16 or f32.
///
/// ```no_run
/// use phalanx::policy::{ActionMode, Ensemble, Policy};
///
/// let load = |seed: u32| Policy::load(format!("seed-{seed}.safetensors").as_ref());
/// let ensemble = Ensemble::new(vec![load(1)?, load(2)?, load(3)?])?;
/// let mut state = ensemble.state(1)?;
/// let actions = ensemble.act(&mut state, &[0.01, -0.02, 0.03, 0.04], &[], ActionMode::Greedy)?;
/// println!("option {}", actions.choice(0, 0, 0));
/// # Ok::<(), phalanx::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ensemble {
    /// At least one.
    members: Vec<Policy>,
}

/// Memory of an ensemble from one decision to the next: the state of every policy. [`Ensemble::state`] creates it.
#[derive(Clone, Debug)]
pub struct EnsembleState {
    members: Vec<PolicyState>,
}

/// Weight of policy `index`, counted from 0, in the mean of those up to it: m += (x - m) / (index + 1), so that the mean of equal outputs is
/// exactly that output.
pub(super) fn weight(index: usize) -> f32 {
    1.0 / (index + 1) as f32
}

impl Ensemble {
    /// Puts policies together.
    ///
    /// # Errors
    /// [`Error::Data`] if there is none, or if one does not fit the first, which names the first difference ([`Ensemble::difference`]).
    pub fn new(members: Vec<Policy>) -> Result<Self> {
        let first = members.first().ok_or_else(none)?;
        for (index, other) in members.iter().enumerate() {
            if let Some(difference) = Self::difference(first, other) {
                return Err(Error::Data(format!(
                    "policy {} of the ensemble does not fit the first: {difference}",
                    index + 1
                )));
            }
        }
        Ok(Self { members })
    }

    /// An ensemble of a single policy, which decides as the policy.
    #[must_use]
    pub fn of(policy: Policy) -> Self {
        Self { members: vec![policy] }
    }

    /// The policies, in the order of [`Ensemble::new`].
    #[must_use]
    pub fn members(&self) -> &[Policy] {
        &self.members
    }

    /// The market of the first policy, in which all of them decide: their rules and instruments are the same.
    ///
    /// # Errors
    /// [`Error::Data`] if they are policies of another environment.
    #[cfg(feature = "market")]
    pub fn market(&self) -> Result<&MarketMetadata> {
        self.members.first().ok_or_else(none)?.market()
    }

    /// A state for `environments` environments, all at the beginning of an episode. Sampled actions have seed 0:
    /// [`EnsembleState::with_seed`].
    ///
    /// # Errors
    /// As [`Policy::state`].
    pub fn state(&self, environments: usize) -> Result<EnsembleState> {
        let members = self.members.iter().map(|policy| policy.state(environments)).collect::<Result<_>>()?;
        Ok(EnsembleState { members })
    }

    /// Actions for the observations `[environment][agent][feature]` and masks `[environment][agent]`, as [`Policy::act`] takes them.
    /// Sampled actions are drawn with the random numbers of the first policy's state. Allocates nothing.
    ///
    /// # Errors
    /// As [`Policy::act`]; [`Error::Data`] names the policy whose outputs are not finite.
    pub fn act<'a>(
        &self,
        state: &'a mut EnsembleState,
        observations: &[f32],
        masks: &[u32],
        mode: ActionMode,
    ) -> Result<&'a Actions> {
        if state.members.len() != self.members.len() {
            return Err(Error::shape("states of the policies", self.members.len(), state.members.len()));
        }
        for (policy, own) in self.members.iter().zip(&state.members) {
            policy.check(own, observations, masks)?;
        }
        for (index, (policy, own)) in self.members.iter().zip(&mut state.members).enumerate() {
            policy.evaluate(own, observations, masks).map_err(|error| match error {
                Error::Data(reason) if self.members.len() > 1 => {
                    Error::Data(format!("policy {} of the ensemble: {reason}", index + 1))
                }
                other => other,
            })?;
        }
        let (lead, others) = state.members.split_first_mut().ok_or_else(none)?;
        for (index, other) in others.iter_mut().enumerate() {
            add(&mut lead.outputs, &other.outputs, index + 1);
            other.decisions = other.decisions.wrapping_add(1);
        }
        if let Some(output) = lead.outputs.iter().find(|output| !output.is_finite()) {
            return Err(Error::Data(format!(
                "an output of the ensemble is {output}: those of its policies are too far apart"
            )));
        }
        self.members.first().ok_or_else(none)?.decide(lead, mode);
        Ok(&lead.actions)
    }

    /// The distribution of the last decision's actions, `[environment][agent][number]`, as [`Policy::probabilities`] gives it.
    ///
    /// # Panics
    /// If the state belongs to no ensemble of such policies.
    #[must_use]
    pub fn probabilities<'a>(&self, state: &'a mut EnsembleState) -> &'a [f32] {
        self.members[0].probabilities(&mut state.members[0])
    }

    /// The mean of the critics' values, `[environment][agent]`, for policies whose critics read observations only ([`Policy::values`]).
    #[cfg(feature = "market")]
    pub(super) fn values<'a>(&self, state: &'a mut EnsembleState, observations: &[f32]) -> Result<&'a [f32]> {
        for (policy, own) in self.members.iter().zip(&mut state.members) {
            policy.values(own, observations, &[])?;
        }
        let (lead, others) = state.members.split_first_mut().ok_or_else(none)?;
        for (index, other) in others.iter().enumerate() {
            add(&mut lead.values, &other.values, index + 1);
        }
        Ok(&lead.values)
    }
}

impl EnsembleState {
    /// The same with a seed for sampled actions.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { members: self.members.into_iter().map(|own| own.with_seed(seed)).collect() }
    }

    /// Clears the memory of an environment in which an episode begins.
    ///
    /// # Panics
    /// If there is no such environment.
    pub fn reset(&mut self, environment: usize) {
        self.members.iter_mut().for_each(|own| own.reset(environment));
    }

    /// The states of the policies, in their order, to save their memory ([`PolicyState::memory`]).
    #[must_use]
    pub fn members(&self) -> &[PolicyState] {
        &self.members
    }

    /// The same, to continue from it ([`PolicyState::restore`]).
    pub fn members_mut(&mut self) -> &mut [PolicyState] {
        &mut self.members
    }
}

/// Adds the numbers of policy `index` to the mean of those before it.
fn add(mean: &mut [f32], own: &[f32], index: usize) {
    let weight = weight(index);
    mean.iter_mut().zip(own).for_each(|(mean, own)| *mean += (own - *mean) * weight);
}

fn none() -> Error {
    Error::Data("an ensemble needs at least one policy".into())
}

#[cfg(test)]
#[path = "ensemble/tests.rs"]
mod tests;
