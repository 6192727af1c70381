//! One copy of a simulator and its episode bookkeeping.

use half::f16;

use super::{Outcome, Simulator, caught};
use crate::env::{LARGEST_MAGNITUDE, MAX_EPISODES, Spec};
use crate::nn::Precision;
use crate::random::threefry;

/// Largest step count of an episode in a saved state: half the range of the counter, so that it cannot overflow after a resume.
const MAX_STEPS: u32 = 1 << 31;

/// One copy of a simulator with the results of its last step.
pub(super) struct EnvInstance {
    pub(super) simulator: Box<dyn Simulator>,
    pub(super) observations: Vec<f32>,
    /// Final observations of an episode that ended in this step.
    pub(super) final_observations: Vec<f32>,
    /// Global state for the critic; empty if the critic does not use it.
    pub(super) state: Vec<f32>,
    /// Final global state of an episode that ended in this step.
    pub(super) final_state: Vec<f32>,
    pub(super) rewards: Vec<f32>,
    pub(super) masks: Vec<u32>,
    pub(super) outcome: Outcome,
    pub(super) episode: u32,
    pub(super) taken: u32,
    pub(super) total: f64,
    /// Return and steps of the episode that ended in this step.
    pub(super) finished: Option<(f64, u32)>,
    /// Episode and step of these results, both counted from 1.
    moment: (u32, u32),
    /// The message of a panic. The simulator is not run again until it is replaced.
    panicked: Option<String>,
    /// Fault of the masks of the last step.
    wrong_mask: Option<String>,
}

impl EnvInstance {
    pub(super) fn new(simulator: Box<dyn Simulator>, spec: &Spec, state_dim: u32) -> Self {
        let numbers = (spec.agents * spec.obs_dim) as usize;
        Self {
            simulator,
            observations: vec![0.0; numbers],
            final_observations: vec![0.0; numbers],
            state: vec![0.0; state_dim as usize],
            final_state: vec![0.0; state_dim as usize],
            rewards: vec![0.0; spec.agents as usize],
            masks: vec![0; spec.agents as usize],
            outcome: Outcome::Continues,
            episode: 0,
            taken: 0,
            total: 0.0,
            finished: None,
            moment: (0, 0),
            panicked: None,
            wrong_mask: None,
        }
    }

    /// Runs code of the simulator, unless it panicked before. A panic is kept for [`Self::fault`].
    pub(super) fn run(&mut self, code: impl FnOnce(&mut Self)) {
        if self.panicked.is_none()
            && let Err(message) = caught(|| code(self))
        {
            self.panicked = Some(message);
        }
    }

    /// Whether the simulator panicked.
    pub(super) fn panicked(&self) -> bool {
        self.panicked.is_some()
    }

    /// Starts the next episode.
    pub(super) fn begin(&mut self, seed: u64, env: usize) {
        // A separate random stream: initial weights use the plain seed.
        let key = [seed as u32, (seed >> 32) as u32 ^ 0x5EED_0E17];
        let [high, low] = threefry(key, [self.episode, env as u32]);
        self.observations.fill(0.0);
        self.simulator.reset(u64::from(high) << 32 | u64::from(low), &mut self.observations);
        self.update_state();
        self.episode += 1;
        (self.taken, self.total) = (0, 0.0);
    }

    /// Queries the global state if the critic uses it.
    fn update_state(&mut self) {
        if !self.state.is_empty() {
            self.state.fill(0.0);
            self.simulator.state(&mut self.state);
        }
    }

    /// Updates the action masks. `choices` are the sizes of the choices of an action; one for continuous actions.
    pub(super) fn update_masks(&mut self, choices: &[u32]) {
        let actions = choices.iter().sum::<u32>();
        let all = bits(0, actions);
        self.masks.fill(all);
        self.simulator.allowed(&mut self.masks);
        let wrong = self.masks.iter().enumerate().find_map(|(agent, mask)| {
            let reason = wrong_mask(*mask, choices)?;
            Some(format!("the action mask of agent {agent} is {mask:#b}: {reason}"))
        });
        self.wrong_mask = wrong;
    }

    pub(super) fn step(&mut self, actions: &[u32], seed: u64, env: usize, choices: &[u32]) {
        // Zeroed, since old values that a simulator does not overwrite would be lost in a checkpoint.
        self.observations.fill(0.0);
        self.rewards.fill(0.0);
        self.outcome = self.simulator.step(actions, &mut self.observations, &mut self.rewards);
        self.update_state();
        let agents = self.rewards.len() as f64;
        self.total += self.rewards.iter().map(|reward| f64::from(*reward)).sum::<f64>() / agents;
        self.taken += 1;
        self.moment = (self.episode, self.taken);
        self.finished = None;
        if self.outcome != Outcome::Continues {
            self.finished = Some((self.total, self.taken));
            self.final_observations.copy_from_slice(&self.observations);
            self.final_state.copy_from_slice(&self.state);
            self.begin(seed, env);
        }
        self.update_masks(choices);
    }

    /// Reports a panic, a wrong mask or the first value of the last step that is not finite or too large, with its episode and step.
    pub(super) fn fault(&self, precision: Precision) -> Option<String> {
        let (episode, step) = self.moment;
        if let Some(message) = &self.panicked {
            return Some(match self.episode {
                0 => format!("the simulator panicked in its first reset: {message}"),
                begun => format!(
                    "the simulator panicked in episode {begun} (steps taken: {}): {message}",
                    self.taken
                ),
            });
        }
        if let Some(wrong) = &self.wrong_mask {
            return Some(format!("{wrong} (episode {episode}, step {step})"));
        }
        let at = |what: &str, index: usize, value: f32| {
            let advice = if value.is_finite() { ", which is too large: scale it" } else { "" };
            format!("{what} {index} is {value:e}{advice} (episode {episode}, step {step})")
        };
        // After conversion to the storage type. NaN is no smaller than anything.
        let storable = |value: f32| match precision {
            Precision::F32 => value.abs() <= LARGEST_MAGNITUDE,
            Precision::F16 => f16::from_f32(value).is_finite(),
        };
        let find = |what: &str, values: &[f32], valid: &dyn Fn(f32) -> bool| {
            let found = values.iter().position(|value| !valid(*value));
            found.map(|index| at(what, index, values[index]))
        };
        find("observation", &self.observations, &storable)
            .or_else(|| find("final observation", &self.final_observations, &storable))
            .or_else(|| find("global state", &self.state, &storable))
            .or_else(|| find("final global state", &self.final_state, &storable))
            .or_else(|| find("reward of agent", &self.rewards, &|value| value.abs() <= LARGEST_MAGNITUDE))
    }

    /// Appends the serialised state to `bytes`; `None` if the simulator does not support saving.
    pub(super) fn save(&self, bytes: &mut Vec<u8>) -> Option<()> {
        let saved = self.simulator.save()?;
        bytes.extend(self.episode.to_le_bytes());
        bytes.extend(self.taken.to_le_bytes());
        bytes.extend(self.total.to_le_bytes());
        bytes.extend((saved.len() as u64).to_le_bytes());
        bytes.extend(saved);
        Some(())
    }

    /// Restores the state from the front of `bytes`, as written by [`Self::save`], and splits it off.
    pub(super) fn load(&mut self, bytes: &mut &[u8]) -> Result<(), String> {
        let short = || String::from("the saved state is truncated");
        self.episode = u32::from_le_bytes(take(bytes).ok_or_else(short)?);
        self.taken = u32::from_le_bytes(take(bytes).ok_or_else(short)?);
        self.total = f64::from_le_bytes(take(bytes).ok_or_else(short)?);
        if !(1..=MAX_EPISODES).contains(&self.episode) {
            return Err(format!("episode is {}, expected 1 to {MAX_EPISODES}", self.episode));
        }
        if self.taken > MAX_STEPS {
            return Err(format!("step of the episode is {}, expected 0 to {MAX_STEPS}", self.taken));
        }
        if !self.total.is_finite() {
            return Err(format!("return is {}, expected a finite number", self.total));
        }
        let length = u64::from_le_bytes(take(bytes).ok_or_else(short)?);
        let (simulator, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| bytes.split_at_checked(length))
            .ok_or_else(short)?;
        *bytes = rest;
        self.simulator.load(simulator)
    }
}

/// `count` bits from bit `first` on.
fn bits(first: u32, count: u32) -> u32 {
    let ones = u64::MAX >> (64 - count.clamp(1, 32));
    (ones << first.min(31)) as u32
}

/// Why a mask is invalid. A mask of 0 is valid: the agent is inactive.
pub(super) fn wrong_mask(mask: u32, choices: &[u32]) -> Option<String> {
    let actions = choices.iter().sum::<u32>();
    if mask & !bits(0, actions) != 0 {
        return Some(format!("it allows actions beyond the {actions} that exist"));
    }
    let mut first = 0;
    for (number, size) in choices.iter().enumerate() {
        if mask != 0 && mask & bits(first, *size) == 0 {
            return Some(format!("it allows no value of choice {number}; an inactive agent has a mask of 0"));
        }
        first += size;
    }
    None
}

/// Splits off the first N bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
