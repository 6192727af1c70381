//! One trial: a training, and the account of its agents on the held-out bars.

use std::ops::{ControlFlow, Range};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use phalanx::backtest::Backtest;
use phalanx::env::TradingSettings;
use phalanx::gpu::Gpu;
use phalanx::market::Candles;
use phalanx::policy::Policy;

use super::COMMAND;
use super::history::{Event, Tested};
use super::journal::{Claim, Journal};
use super::pruning::Pruning;
use super::space::Base;
use crate::TrainArgs;
use crate::assess::{self, Traded};
use crate::console::{self, note};
use crate::folder::{Folder, Owned, Stage};
use crate::held_out::{features, replay_options};
use crate::interrupt::Interrupts;
use crate::run::Settings;
use crate::summary::Summary;
use crate::train::{Ended, Scoring, Telling, Training};

/// Everything that trials have in common.
pub struct Bench<'a> {
    pub data: &'a [std::path::PathBuf],
    pub base: Base<'a>,
    /// The settings of `base` alone.
    pub settings: &'a Settings,
    pub candles: &'a Candles,
    pub test: Range<usize>,
    pub gpu: &'a Gpu,
    pub journal: &'a Journal,
    pub pruning: Option<Pruning>,
}

impl Bench<'_> {
    /// Trains and tests a trial, and writes its end to the journal. Returns the exit status of an interrupt.
    pub fn run(&self, claim: &Claim, interrupts: &mut Option<Interrupts>) -> Result<Option<ExitCode>> {
        let trial = claim.number;
        let ended = match self.ended(claim, interrupts) {
            Err(error) if belongs_to_trial(&error) => {
                let reason = format!("{error:#}");
                note!("warning: trial {trial} failed: {reason}");
                Ok(Event::Failed { trial, reason })
            }
            other => other?,
        };
        let event = match ended {
            Ok(event) => event,
            Err(status) => {
                self.journal.locked()?.append(Event::Interrupted { trial })?;
                return Ok(Some(status));
            }
        };
        let unfinished = !matches!(event, Event::Finished { .. });
        self.journal.locked()?.append(event)?;
        let folder = self.journal.folder_of(trial);
        // A trained model is kept, whatever happened to it afterwards.
        if unfinished
            && !folder.join("model.safetensors").exists()
            && let Some(mut owned) = Owned::open(&folder, COMMAND)?
        {
            owned.clear()?;
        }
        Ok(None)
    }

    /// The event that ends a trial, or the exit status of an interrupt.
    fn ended(&self, claim: &Claim, interrupts: &mut Option<Interrupts>) -> Result<Result<Event, ExitCode>> {
        let trial = claim.number;
        let settings = match self.base.with(&claim.parameters) {
            Ok(settings) => settings,
            // Every value is valid alone, but not all of them together.
            Err(error) => {
                note!("warning: trial {trial} failed: {error:#}");
                return Ok(Ok(Event::Failed { trial, reason: format!("{error:#}") }));
            }
        };
        let rules = self.rules(&settings);
        let folder = Folder::new(&self.journal.folder_of(trial));
        let stage = begun(&folder, &settings)?;
        if stage != Some(Stage::Finished) {
            let args = self.args(claim, &folder, stage.is_some());
            let mut pruned = None;
            let mut evaluated = |iteration: u32, score: f64| -> Result<ControlFlow<()>> {
                if !score.is_finite() {
                    let reason = format!("the score of iteration {iteration} is {score}");
                    return Err(phalanx::Error::Data(reason).into());
                }
                let mut journal = self.journal.locked()?;
                journal.append(Event::Evaluated { trial, iteration, score })?;
                // After the last iteration there is nothing to save.
                let stops = |rule: Pruning| rule.stops(journal.history(), trial, iteration);
                if iteration < settings.mappo.ppo.iterations && self.pruning.is_some_and(stops) {
                    pruned = Some(iteration);
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            };
            let scoring = Scoring { market: rules.clone(), evaluated: &mut evaluated };
            let training = Training::prepare(&args)?;
            let open = || Ok(self.gpu.clone());
            match training.run_scored(self.candles, open, interrupts, Telling::Progress, Some(scoring))? {
                Ended::Finished => {}
                Ended::Interrupted(status) => return Ok(Err(status)),
                Ended::Stopped(policy) => {
                    let iteration = pruned.context("a training was stopped without a reason")?;
                    note!("          pruned at iteration {iteration}");
                    end_with_trial(interrupts.as_ref());
                    let test = Some(self.tested(trial, &folder, (&settings, &rules), &policy)?);
                    return Ok(Ok(Event::Pruned { trial, iteration, test }));
                }
            }
        }
        end_with_trial(interrupts.as_ref());
        let policy = Policy::load(&folder.model())?;
        let test = self.tested(trial, &folder, (&settings, &rules), &policy)?;
        let chosen = Summary::read(&folder.summary())?.model_score;
        let journal = self.journal.locked()?;
        let scores = journal.history().get(trial).map(|trial| &trial.scores);
        let last = scores.and_then(|scores| scores.last_key_value()).map(|(_, score)| *score);
        let score = chosen.or(last).context("the trial was never evaluated")?;
        note!("          score {score:.4}");
        Ok(Ok(Event::Finished { trial, score, test }))
    }

    /// The rules by which all trials are scored: costs and account of the sweep, whatever a trial trains with, and the log return of
    /// the account as the reward.
    fn rules(&self, settings: &Settings) -> TradingSettings {
        let (own, common) = (&settings.market, &self.settings.market);
        let mut rules = common.clone();
        rules.own_reward_weight = 0.0;
        rules.reward_scale = 1.0;
        rules.drawdown_penalty = 0.0;
        rules.actions = own.actions;
        rules.positions.clone_from(&own.positions);
        rules.shorting = own.shorting;
        rules.max_leverage = own.max_leverage;
        rules.episode_length = own.episode_length;
        rules
    }

    fn args(&self, claim: &Claim, folder: &Folder, resume: bool) -> TrainArgs {
        let mut sets = Vec::new();
        if !resume {
            sets.extend_from_slice(self.base.sets);
            sets.extend(claim.parameters.iter().map(|(name, value)| format!("{name}={value}")));
        }
        TrainArgs {
            data: self.data.to_vec(),
            out: folder.path().to_path_buf(),
            config: self.base.file.filter(|_| !resume).map(Into::into),
            seed: None,
            iterations: None,
            tune: None,
            sets,
            force: false,
            resume,
            init: None,
            dashboard: false,
            jsonl: false,
        }
    }

    /// Trades the held-out bars, and records the account in the ledger of trials.
    fn tested(
        &self,
        trial: usize,
        folder: &Folder,
        (settings, rules): (&Settings, &TradingSettings),
        policy: &Policy,
    ) -> Result<Tested> {
        console::busy("trading the held-out bars");
        let data = features(self.gpu, policy.market()?, self.candles)?;
        let options = replay_options(rules, &settings.data, None, self.candles)?;
        let bars = self.test.start.max(data.first_bar())..self.test.end;
        ensure!(bars.len() >= 2, "the features leave fewer than two held-out bars");
        let targets = policy.targets(self.gpu, &data, &bars)?;
        let backtest = Backtest::replay(self.candles, bars.clone(), targets.view(), &options)?;
        let recorded = assess::record(
            folder,
            &Traded {
                command: COMMAND,
                name: folder.name(),
                settings: vec![settings],
                candles: self.candles,
                known: false,
                bars,
                targets: targets.view(),
                options: &options,
                backtest: &backtest,
                gpu: self.gpu,
            },
        );
        let receipt = recorded.unwrap_or_else(|error| {
            note!("warning: trial {trial} is not in the ledger of trials: {error:#}");
            None
        });
        let (test_return, test_sharpe) = (backtest.metrics.total_return, backtest.metrics.sharpe);
        Ok(Tested { test_return, test_sharpe, receipt })
    }
}

/// The training is over: an interrupt lets the trial end.
fn end_with_trial(interrupts: Option<&Interrupts>) {
    if let Some(interrupts) = interrupts {
        interrupts.stops("after the test of this trial");
    }
}

/// The stage of the run in a trial's folder, if it has one to go on with.
fn begun(folder: &Folder, settings: &Settings) -> Result<Option<Stage>> {
    if !folder.path().exists() {
        return Ok(None);
    }
    folder.settle()?;
    // A process that was killed early has left no settings, and nothing to resume.
    let begun = folder.latest().filter(|(there, _)| there.settings().exists());
    let Some((there, stage)) = begun else { return Ok(None) };
    let found = Settings::read(Some(&there.settings()), &[])
        .with_context(|| format!("the run in {}", folder.path().display()))?;
    ensure!(
        found == *settings,
        "{} holds a run with other settings than the journal says: choose another folder with --out",
        folder.path().display()
    );
    Ok(Some(stage))
}

/// Whether an error comes from a trial's parameters, so that the next trial may succeed.
fn belongs_to_trial(error: &anyhow::Error) -> bool {
    use phalanx::Error::{Budget, Buffer, Config, Data, Limit, OutOfMemory, ProcessLimit, Shader};
    let fault = error.chain().find_map(|cause| cause.downcast_ref::<phalanx::Error>());
    let of_trial = |fault: &phalanx::Error| {
        matches!(
            fault,
            Budget { .. }
                | Buffer { .. }
                | Config { .. }
                | Data(_)
                | Limit { .. }
                | OutOfMemory { .. }
                | ProcessLimit { .. }
                | Shader { .. }
        )
    };
    fault.is_some_and(of_trial)
}
