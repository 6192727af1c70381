//! Actions of one decision.

use super::metadata::ActionSpec;

/// Actions of all agents of some environments.
#[derive(Clone, Debug, PartialEq)]
pub struct Actions {
    agents: usize,
    /// Options of the choices of a discrete action; empty for continuous ones.
    choices: Vec<u32>,
    /// Words of an action.
    words: usize,
    /// `[environment][agent][word]`: the number of a discrete action, or the bits of real numbers.
    pub(super) raw: Vec<u32>,
    /// `[environment][agent]`
    pub(super) log_probabilities: Vec<f32>,
}

impl Actions {
    pub(super) fn new(spec: &ActionSpec, environments: usize, agents: usize) -> Self {
        let words = spec.words() as usize;
        let choices = match spec {
            ActionSpec::Discrete { choices } => choices.clone(),
            ActionSpec::Continuous { .. } => vec![],
        };
        Self {
            agents,
            choices,
            words,
            raw: vec![0; environments * agents * words],
            log_probabilities: vec![0.0; environments * agents],
        }
    }

    /// The words that the environment receives ([`crate::env::RolloutBuffers::actions`]), `[environment][agent][word]`: the number of a discrete
    /// action, whose digits are its choices, the first choice the fastest; or the bits of real numbers.
    #[must_use]
    pub fn raw(&self) -> &[u32] {
        &self.raw
    }

    /// Logarithms of the actions' probabilities, or of their densities, `[environment][agent]`.
    #[must_use]
    pub fn log_probabilities(&self) -> &[f32] {
        &self.log_probabilities
    }

    /// The option that an agent takes of a choice, counted from 0; a discrete action has choice 0 only.
    ///
    /// # Panics
    /// If there is no such environment, agent or choice.
    #[must_use]
    pub fn choice(&self, environment: usize, agent: usize, choice: usize) -> u32 {
        let before: u32 = self.choices[..choice].iter().product();
        self.raw[environment * self.agents + agent] / before % self.choices[choice]
    }

    /// The real numbers of a continuous action.
    ///
    /// # Panics
    /// If there is no such environment or agent, or if actions are discrete.
    pub fn numbers(&self, environment: usize, agent: usize) -> impl Iterator<Item = f32> + '_ {
        assert!(self.choices.is_empty(), "the actions are discrete");
        let first = (environment * self.agents + agent) * self.words;
        self.raw[first..first + self.words].iter().map(|bits| f32::from_bits(*bits))
    }
}
