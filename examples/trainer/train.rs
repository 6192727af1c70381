//! `train`: trains a policy on candles and writes the run's folder.

mod again;
mod candidate;
mod evaluations;
mod prepared;
mod trial;

use std::ops::{ControlFlow, Range};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use phalanx::gpu::Gpu;
use phalanx::mappo::Autotune;
use phalanx::mappo::snapshot::read_metadata;
use phalanx::mappo::{Progress as Done, Snapshots, Trainer};
use phalanx::market::{Candles, ExtraFeatures, TimestampFormat};
use phalanx::policy::Policy;

use crate::TrainArgs;
use crate::console::{self, note, say};
use crate::folder::{Folder, Owned};
use crate::interrupt::{ITERATION, Interrupts};
use crate::log::Log;
use crate::memory::Memory;
use crate::parts::Parts;
use crate::run::{ChosenModel, Settings, only_limits};
use crate::settings::write_resolved;
use crate::summary::Summary;
pub use again::Again;
use candidate::{Candidate, LatestSnapshot, resume};
use evaluations::Evaluator;
pub use evaluations::Scoring;
pub use prepared::Needs;
use prepared::Prepared;

pub fn train(
    args: &TrainArgs,
    adapter: Option<&str>,
    open: impl Fn() -> phalanx::Result<Gpu>,
) -> Result<ExitCode> {
    let training = Training::prepare(args)?;
    let candles = crate::candles::load(&args.data, &training.settings.data)?;
    training.run(&candles, open, &mut None, Telling::Everything { adapter })
}

/// A training with its settings, before anything is loaded or written.
pub struct Training<'a> {
    args: &'a TrainArgs,
    owned: Option<Owned>,
    /// The folder of the run to resume.
    source: Option<Folder>,
    settings: Settings,
}

/// The words that accompany a training.
pub enum Telling<'a> {
    /// The GPU, the candles, the plan, and the command that resumes it.
    Everything {
        /// The value of `--adapter`.
        adapter: Option<&'a str>,
    },
    /// Progress and warnings: the training is a part of something.
    Progress,
    /// Warnings: others train at the same time.
    Warnings,
}

/// The end of a training.
pub enum Ended {
    /// The run is published.
    Finished,
    /// By Ctrl-C or SIGTERM, with a checkpoint, and the exit status for it.
    Interrupted(ExitCode),
    /// By [`Scoring::evaluated`]; the run is unfinished. The policy is the one that the settings choose so far.
    Stopped(Box<Policy>),
}

impl<'a> Training<'a> {
    /// Reads the settings of a new training, or of the one to resume.
    pub fn prepare(args: &'a TrainArgs) -> Result<Self> {
        let mut owned = None;
        let mut source = None;
        if args.resume {
            let holder = owned.insert(interrupted(args)?);
            source = Some(holder.resumable(args.iterations.is_some())?);
        }
        let settings: Settings = match &source {
            Some(source) => {
                only_limits(&args.sets)?;
                let sets = [&args.sets[..], &iterations(args)].concat();
                Settings::read(Some(&source.settings()), &sets)?
            }
            None => requested(args)?,
        };
        if let (Some(source), Some(wanted)) = (&source, args.iterations) {
            more_than_completed(source, wanted)?;
        }
        Ok(Self { args, owned, source, settings })
    }

    /// Trains on `candles`, and publishes the run. Interrupts are caught from the first iteration on, unless they are already.
    pub fn run(
        self,
        candles: &Candles,
        open: impl Fn() -> phalanx::Result<Gpu>,
        interrupts: &mut Option<Interrupts>,
        telling: Telling<'_>,
    ) -> Result<ExitCode> {
        match self.run_scored(candles, open, interrupts, telling, None)? {
            Ended::Interrupted(status) => Ok(status),
            Ended::Finished | Ended::Stopped(_) => Ok(ExitCode::SUCCESS),
        }
    }

    /// The same with evaluations that are scored by `scoring`, which may stop the training.
    pub fn run_scored(
        self,
        candles: &Candles,
        open: impl Fn() -> phalanx::Result<Gpu>,
        interrupts: &mut Option<Interrupts>,
        telling: Telling<'_>,
        mut scoring: Option<Scoring<'_>>,
    ) -> Result<Ended> {
        let Self { args, mut owned, source, settings } = self;
        settings.market.costs(&candles.symbols)?;
        let parts = Parts::new(&settings.data, candles)?;
        if !args.resume {
            owned = Owned::open(&args.out, COMMAND)?;
            owned.as_ref().map_or(Ok(()), |owned| owned.vacant(args.force))?;
        }
        let gpu = open()?;
        let rules = scoring.as_ref().map_or(&settings.market, |scoring| &scoring.market);
        let mut tune = args.tune.as_deref().map(Autotune::open).transpose()?;
        let none = ExtraFeatures::default();
        let latest = source.as_ref().map_or(Ok(None), |source| LatestSnapshot::of(source, candles))?;
        let scaling = latest.as_ref().and_then(|latest| latest.scaling.clone());
        let mut prepared =
            Prepared::new(&gpu, (candles, &none), &parts, &settings, rules, scaling, tune.as_mut())?;
        let Prepared { ranges, trainer, evaluator, .. } = &mut prepared;
        if let Some(model) = &args.init {
            trainer.load_weights(model)?;
        }
        let mut owned = owned.map_or_else(|| Owned::create(&args.out, COMMAND), Ok)?;
        let (staging, reopened) = match source {
            None => (owned.stage(args.force)?, false),
            Some(finished) if finished.path() == owned.folder().path() => (owned.reopen()?, true),
            Some(unfinished) => (unfinished, false),
        };
        // Training is resumed before the settings change, and a refused one leaves everything as it was.
        let choose = settings.evaluation.model == ChosenModel::Best;
        let mut best = None;
        if args.resume {
            best = resume(trainer, &staging, latest.as_ref(), choose).inspect_err(|_| {
                if reopened {
                    owned.discard(&staging);
                }
            })?;
        } else if let Some(model) = &args.init {
            staging.keep_initial(model)?;
        }
        write_resolved(&staging.settings(), &settings)?;
        let every = settings.checkpoints.every;
        let open_snapshots = || Snapshots::open(&staging.checkpoints(), settings.checkpoints.keep);
        let snapshots = if every == 0 { None } else { Some(open_snapshots()?) };
        if matches!(telling, Telling::Everything { .. }) {
            announce(&gpu, candles, &parts, ranges, trainer);
            warn_of_settings(&settings);
        }
        tell_environments(trainer);
        if args.resume {
            match trainer.iteration() {
                0 if staging.initial().exists() => {
                    note!("Resumed   from the weights of --init: no checkpoint was saved yet")
                }
                0 => note!("Resumed   from the start: no checkpoint was saved yet"),
                iteration => note!("Resumed   from iteration {iteration}"),
            }
        }
        if let Some(model) = &args.init {
            note!("Weights   from {}", model.display());
        }

        trainer.time_phases(settings.logging.phase_times_every);
        let interrupts = match interrupts {
            Some(interrupts) => interrupts,
            None => interrupts.insert(Interrupts::catch()?),
        };
        interrupts.stops(ITERATION);
        let mut log = Log::open(&staging, trainer, &settings, args, matches!(telling, Telling::Warnings))?;
        let report = |log: &mut Log, done: &Done| -> Result<ControlFlow<()>> {
            log.iteration(done, Memory::now(&gpu))?;
            Ok(if interrupts.asked().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        while trainer.iteration() < settings.mappo.ppo.iterations {
            let here = trainer.iteration();
            // The next multiple of `every`; never if it is 0.
            let due =
                |every: u32| here.checked_div(every).map_or(u32::MAX, |n| (n + 1).saturating_mul(every));
            let until = due(every).min(due(settings.evaluation.every));
            if let Err(error) = trainer.train_until(until, |done| report(&mut log, done)) {
                // The metrics show how it came to that.
                log.write()?;
                log.finish();
                return Err(error);
            }
            let is_due = |every: u32| every > 0 && trainer.iteration().is_multiple_of(every);
            let (mut score, mut improved, mut verdict) = (None, false, ControlFlow::Continue(()));
            if let Some(evaluator) = evaluator.as_mut().filter(|_| is_due(settings.evaluation.every)) {
                let [greedy, sampled] = evaluator.run(trainer)?;
                score = Some(greedy);
                if choose && best.as_ref().is_none_or(|best| score > best.score) {
                    best = Some(Candidate::of(trainer, score)?);
                    improved = true;
                }
                log.evaluated(greedy, sampled);
                if let Some(scoring) = &mut scoring {
                    // Before a checkpoint, from which a resumed training would not evaluate this iteration again.
                    verdict = (scoring.evaluated)(trainer.iteration(), greedy)?;
                }
            }
            log.write()?;
            if verdict.is_break() {
                log.finish();
                let chosen = best.map_or_else(|| Candidate::of(trainer, None), Ok)?;
                let policy = prepared.policy(chosen, candles, &parts, &settings)?;
                if let Some(bars) = prepared.evaluated.clone() {
                    let rules = scoring.as_ref().map_or(&settings.market, |scoring| &scoring.market);
                    trial::record(
                        (owned.folder(), &settings, rules),
                        &gpu,
                        candles,
                        (&policy, &prepared.data),
                        bars,
                    );
                }
                return Ok(Ended::Stopped(Box::new(policy)));
            }
            let stopped = interrupts.asked().filter(|_| trainer.iteration() < settings.mappo.ppo.iterations);
            if let Some(status) = stopped {
                log.sync()?;
                snapshots.map_or_else(open_snapshots, Ok)?.save(trainer, score)?;
                log.finish();
                let Telling::Everything { adapter } = telling else { return Ok(Ended::Interrupted(status)) };
                note!(
                    "Interrupted after iteration {} of {}; a checkpoint is saved. To go on:\n{}",
                    trainer.iteration(),
                    settings.mappo.ppo.iterations,
                    resuming(args, adapter)
                );
                return Ok(Ended::Interrupted(status));
            }
            if let Some(snapshots) = &snapshots {
                log.sync()?;
                snapshots.save(trainer, score)?;
            } else if improved {
                // A resumed run needs the best policy so far.
                log.sync()?;
                open_snapshots()?.save(trainer, score)?;
            }
        }
        log.sync()?;
        let seconds = log.finish();
        console::busy("writing the model");
        let env_steps = trainer.env_steps();
        let chosen = best.map_or_else(|| Candidate::of(trainer, None), Ok)?;
        let (iteration, score) = (chosen.iteration, chosen.score);
        let gpu_bytes = trainer.plan().bytes() + evaluator.as_ref().map_or(0, Evaluator::bytes);
        let policy = prepared.policy(chosen, candles, &parts, &settings)?;
        policy.save(&staging.model())?;
        // A finished run that was trained further may have begun so.
        let earlier = || Summary::read(&owned.folder().summary()).is_ok_and(|summary| summary.from_weights);
        let summary = Summary {
            adapter: crate::doctor::adapter(&gpu),
            env_steps,
            seconds,
            gpu_bytes,
            model_iteration: Some(iteration),
            model_score: score,
            candles: Some(candles.checksum(0..parts.end())),
            from_weights: staging.initial().exists() || args.resume && earlier(),
        };
        summary.write(&staging.summary())?;
        readable(&staging, &settings)?;
        if settings.logging.tensorboard {
            crate::tensorboard::check(&staging.events(), env_steps)?;
        }
        if every == 0 {
            staging.remove_checkpoints()?;
        }
        owned.publish(&staging)?;
        if let Some(bars) = prepared.evaluated.clone() {
            let rules = scoring.as_ref().map_or(&settings.market, |scoring| &scoring.market);
            trial::record((owned.folder(), &settings, rules), &gpu, candles, (&policy, &prepared.data), bars);
        }
        if !matches!(telling, Telling::Everything { .. }) {
            return Ok(Ended::Finished);
        }
        let folder = owned.folder();
        // With `--jsonl` standard output belongs to the iterations.
        let tell = |line: String| if args.jsonl { note!("{line}") } else { say!("{line}") };
        tell(format!(
            "Trained for {env_steps} environment steps in {:.1} s. Model: {}",
            summary.seconds,
            folder.model().display()
        ));
        if let Some(score) = score {
            tell(format!(
                "The model is the policy of iteration {iteration}, the best over the evaluation bars (return {score:.2})."
            ));
        }
        Ok(Ended::Finished)
    }
}

const COMMAND: &str = "train";

/// The folder of the run to resume.
fn interrupted(args: &TrainArgs) -> Result<Owned> {
    Owned::open(&args.out, COMMAND)?
        .with_context(|| format!("{} holds no unfinished run to resume", args.out.display()))
}

/// The command that resumes a run that was started or resumed with `args`.
fn resuming(args: &TrainArgs, adapter: Option<&str>) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "trainer".into());
    let mut words = vec![program, "train".into(), "--resume".into(), "--data".into()];
    words.extend(args.data.iter().map(|path| path.display().to_string()));
    words.extend(["--out".into(), args.out.display().to_string()]);
    if let Some(file) = &args.tune {
        words.extend(["--tune".into(), file.display().to_string()]);
    }
    words.extend(adapter.into_iter().flat_map(|adapter| ["--adapter".into(), adapter.into()]));
    let quoted = words.iter().map(|word| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,+".contains(&byte);
        if word.bytes().all(plain) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Reads back everything that is about to be published.
fn readable(run: &Folder, settings: &Settings) -> Result<()> {
    let read = || -> Result<()> {
        let written = Settings::read(Some(&run.settings()), &[])?;
        ensure!(
            &written == settings,
            "{}: the settings differ from those trained with",
            run.settings().display()
        );
        Policy::load(&run.model())?;
        Summary::read(&run.summary())?;
        crate::metrics::curves(&run.metrics())?;
        Ok(())
    };
    read().with_context(|| {
        format!("the run in {} was not published: it cannot be read back", run.path().display())
    })
}

/// The number of iterations on the command line, as a setting.
fn iterations(args: &TrainArgs) -> Vec<String> {
    args.iterations.iter().map(|iterations| format!("mappo.iterations={iterations}")).collect()
}

/// Checks that `wanted` iterations are more than the run in `folder` has completed.
fn more_than_completed(folder: &Folder, wanted: u32) -> Result<()> {
    if !folder.checkpoints().exists() {
        return Ok(());
    }
    let Some(latest) = Snapshots::open(&folder.checkpoints(), 1)?.latest()? else { return Ok(()) };
    let completed = read_metadata(&latest)?.iteration;
    if wanted <= completed {
        anyhow::bail!(
            "--iterations {wanted}: the run has completed {completed} iterations; choose a larger number"
        );
    }
    Ok(())
}

/// Settings from the command line and its settings file.
fn requested(args: &TrainArgs) -> Result<Settings> {
    let mut sets = args.sets.clone();
    sets.extend(args.seed.map(|seed| format!("mappo.seed={seed}")));
    sets.extend(iterations(args));
    Settings::read(args.config.as_deref(), &sets)
}

fn announce(gpu: &Gpu, candles: &Candles, parts: &Parts, ranges: &[Range<usize>], trainer: &Trainer) {
    let sizes = trainer.sizes();
    let dates = TimestampFormat::of(&candles.timestamps);
    let date = |bar: usize| dates.format(candles.timestamps[bar]);
    let trained: Vec<_> =
        ranges.iter().map(|bars| format!("{} to {}", date(bars.start), date(bars.end - 1))).collect();
    note!("GPU       {}", crate::doctor::adapter(gpu));
    note!(
        "Candles   {} x {} bars; trained on {}, held out from {}",
        candles.symbols.join(" "),
        candles.bars(),
        trained.join(", "),
        date(parts.first_held_out()),
    );
    for (name, text) in crate::gaps::lines(candles) {
        note!("{name:<10}{text}");
    }
    note!(
        "Plan      {} environments x {} steps, micro-batches of {} rows, {} parameters, {:.1} MiB on the device",
        sizes.envs,
        sizes.steps,
        sizes.micro_quads() * 4,
        trainer.layout().parameters(),
        trainer.plan().bytes() as f64 / 1048576.0,
    );
}

/// Says where the number of environments is not the one of the settings.
fn tell_environments(trainer: &Trainer) {
    let sizes = trainer.sizes();
    let asked = trainer.config().ppo.num_envs;
    if sizes.envs > asked {
        note!("          num_envs = {asked} was rounded up to {}, a multiple of 4", sizes.envs);
    } else if sizes.envs < asked {
        note!("          num_envs = {asked} was lowered to the {} that fit (`shrink_envs`)", sizes.envs);
    }
}

/// Warns of settings that do not do anything.
pub fn warn_of_settings(settings: &Settings) {
    let (evaluations, iterations) = (settings.evaluation.every, settings.mappo.ppo.iterations);
    if evaluations > iterations {
        note!(
            "warning: there will be no evaluation, because `evaluation.every` is {evaluations} and there are {iterations} iterations"
        );
    }
}

#[cfg(test)]
#[path = "train_tests.rs"]
mod tests;
