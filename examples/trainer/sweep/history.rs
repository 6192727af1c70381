//! The events of a sweep, and the state of its trials that follows from them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use phalanx::research::Receipt;
use serde::{Deserialize, Serialize};

use super::sampler::Told;
use super::space::Parameters;

/// Times that a trial is begun without an evaluation, after which it counts as failed: its parameters end every process, for
/// instance for lack of memory.
const MOST_BEGINNINGS: u32 = 3;

/// A line of the journal after the first. Trials are numbered from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    Started {
        trial: usize,
        parameters: Parameters,
        process: String,
    },
    /// Another process goes on with a trial whose process has ended.
    Resumed {
        trial: usize,
        process: String,
    },
    Evaluated {
        trial: usize,
        iteration: u32,
        score: f64,
    },
    /// By Ctrl-C or SIGTERM.
    Interrupted {
        trial: usize,
    },
    Pruned {
        trial: usize,
        iteration: u32,
        /// Of the best policy so far; missing in journals of older versions.
        #[serde(flatten)]
        test: Option<Tested>,
    },
    Failed {
        trial: usize,
        reason: String,
    },
    Finished {
        trial: usize,
        /// Score on the evaluation bars of the policy that became the model.
        score: f64,
        #[serde(flatten)]
        test: Tested,
    },
}

/// The account of a trial on the held-out bars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    pub test_return: f64,
    /// Annualised Sharpe ratio.
    pub test_sharpe: Option<f64>,
    /// Place in the ledger of trials.
    pub receipt: Option<Receipt>,
}

impl Event {
    fn trial(&self) -> usize {
        match self {
            Self::Started { trial, .. }
            | Self::Resumed { trial, .. }
            | Self::Evaluated { trial, .. }
            | Self::Interrupted { trial }
            | Self::Pruned { trial, .. }
            | Self::Failed { trial, .. }
            | Self::Finished { trial, .. } => *trial,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// In a process that trains it, or has ended too early.
    Started,
    Pruned {
        test: Option<Tested>,
    },
    Failed,
    Finished {
        score: f64,
        test: Tested,
    },
}

impl State {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Pruned { .. } => "pruned",
            Self::Failed => "failed",
            Self::Finished { .. } => "finished",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Trial {
    pub parameters: Parameters,
    /// Scores by iteration.
    pub scores: BTreeMap<u32, f64>,
    pub state: State,
    /// Times that it was begun since the last evaluation.
    beginnings: u32,
}

impl Trial {
    /// Whether it is not worth another try.
    pub fn ends_processes(&self) -> bool {
        self.beginnings >= MOST_BEGINNINGS
    }

    /// The account on the held-out bars, if it was tested.
    pub fn test(&self) -> Option<&Tested> {
        match &self.state {
            State::Started | State::Failed => None,
            State::Pruned { test } => test.as_ref(),
            State::Finished { test, .. } => Some(test),
        }
    }

    /// The highest score so far.
    pub fn best(&self) -> Option<f64> {
        self.scores.values().copied().max_by(f64::total_cmp)
    }
}

/// All trials, in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub struct History(Vec<Trial>);

impl History {
    pub fn add(&mut self, event: Event) -> Result<()> {
        let number = event.trial();
        if let Event::Started { parameters, .. } = event {
            ensure!(number == self.0.len() + 1, "trial {number} after trial {}", self.0.len());
            self.0.push(Trial { parameters, scores: BTreeMap::new(), state: State::Started, beginnings: 1 });
            return Ok(());
        }
        let trial = number.checked_sub(1).and_then(|index| self.0.get_mut(index));
        let trial = trial.with_context(|| format!("trial {number} was not started"))?;
        match event {
            Event::Started { .. } => {}
            Event::Resumed { .. } => trial.beginnings += 1,
            Event::Interrupted { .. } => trial.beginnings = 0,
            Event::Evaluated { iteration, score, .. } => {
                trial.beginnings = 0;
                trial.scores.insert(iteration, score);
            }
            Event::Pruned { test, .. } => trial.state = State::Pruned { test },
            Event::Failed { .. } => trial.state = State::Failed,
            Event::Finished { score, test, .. } => trial.state = State::Finished { score, test },
        }
        Ok(())
    }

    pub fn trials(&self) -> &[Trial] {
        &self.0
    }

    /// The trials with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &Trial)> {
        self.0.iter().enumerate().map(|(index, trial)| (index + 1, trial))
    }

    pub fn get(&self, number: usize) -> Option<&Trial> {
        self.0.get(number.checked_sub(1)?)
    }

    /// The highest score that a trial had up to an iteration at which it was evaluated.
    pub fn best_until(&self, number: usize, iteration: u32) -> Option<f64> {
        let scores = &self.get(number)?.scores;
        scores.get(&iteration)?;
        scores.range(..=iteration).map(|(_, score)| *score).max_by(f64::total_cmp)
    }

    /// Trials in a state of this name.
    pub fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|trial| trial.state.name() == name).count()
    }

    /// The values of the trials that have not ended.
    pub fn running(&self) -> Vec<&Parameters> {
        self.0.iter().filter(|trial| trial.state == State::Started).map(|trial| &trial.parameters).collect()
    }

    /// The ended trials, for the sampler: never anything of the held-out bars.
    pub fn told(&self) -> Vec<Told<'_>> {
        let score = |trial: &Trial| match trial.state {
            State::Started => None,
            State::Failed => Some(f64::NEG_INFINITY),
            State::Pruned { .. } => trial.best(),
            State::Finished { score, .. } => Some(score),
        };
        self.0
            .iter()
            .filter_map(|trial| Some(Told { parameters: &trial.parameters, score: score(trial)? }))
            .collect()
    }

    /// The finished trials, the highest score first; of equal ones the earlier.
    pub fn ranking(&self) -> Vec<(usize, f64, &Trial)> {
        let finished = |(number, trial): (usize, &'_ Trial)| match trial.state {
            State::Finished { score, .. } => Some((number, score)),
            _ => None,
        };
        let mut all: Vec<_> = self.numbered().filter_map(finished).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.into_iter().map(|(number, score)| (number, score, &self.0[number - 1])).collect()
    }
}
