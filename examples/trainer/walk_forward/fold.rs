//! One training of a walk: a fold and a seed.

use std::ops::Range;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use phalanx::gpu::Gpu;
use phalanx::market::{Candles, FEATURE_HISTORY, TimestampFormat};
use phalanx::research::Fold;

use super::WalkForwardArgs;
use super::cut::{Cut, Scheme};
use crate::TrainArgs;
use crate::console::note;
use crate::folder::{Folder, Owned, Stage, WALK_RUNS};
use crate::interrupt::Interrupts;
use crate::parts::{Parts, Trained};
use crate::run::Settings;
use crate::summary::Summary;
use crate::train::{Needs, Telling, Training};

pub struct Job {
    /// Index of the fold.
    pub fold: usize,
    /// Index of the seed.
    pub seed: usize,
    pub bars: Fold,
    pub settings: Settings,
    /// Checksum of the candles up to the last bar of the fold.
    candles: String,
    args: TrainArgs,
}

impl Job {
    /// The trainings of all folds, seed after seed within a fold.
    pub fn all(args: &WalkForwardArgs, base: &Settings, candles: &Candles, cut: &Cut) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for (index, fold) in cut.folds.iter().enumerate() {
            for seed in 0..args.seeds {
                all.push(Self::new(args, base, candles, cut, (index, fold), seed)?);
            }
        }
        Ok(all)
    }

    fn new(
        args: &WalkForwardArgs,
        base: &Settings,
        candles: &Candles,
        cut: &Cut,
        (index, fold): (usize, &Fold),
        seed: u64,
    ) -> Result<Self> {
        let number = base.mappo.ppo.seed + seed;
        let mut sets = args.sets.clone();
        sets.extend(args.iterations.map(|iterations| format!("mappo.iterations={iterations}")));
        sets.extend(periods(args.scheme, fold, cut, candles));
        sets.push(format!("mappo.seed={number}"));
        let settings = Settings::read(args.config.as_deref(), &sets)?;
        let parts = Parts::new(&settings.data, candles)?;
        let tests = args.scheme == Scheme::Cpcv || parts.test == fold.test;
        ensure!(parts.train == fold.train && tests, "fold {} could not be written as dates", index + 1);
        let steps = settings.market.episode_length as usize;
        let longest = Trained::new(&settings.evaluation, &parts.train).longest_episode();
        ensure!(
            longest >= steps,
            "fold {} has room for episodes of {longest} bars, after the {FEATURE_HISTORY} first bars, which features need, and without those that choose the \
             model: too few for `market.episode_length` = {steps}; give more candles, or choose fewer --folds",
            index + 1
        );
        let folds = cut.folds.len();
        let name = format!("{}-{}-of-{folds}-seed-{number}", args.scheme.name(), index + 1);
        let args = TrainArgs {
            data: args.data.clone(),
            out: args.out.join(WALK_RUNS).join(name),
            config: args.config.clone(),
            seed: None,
            iterations: None,
            tune: None,
            sets,
            force: false,
            resume: false,
            init: None,
            dashboard: false,
            jsonl: false,
        };
        let checksum = candles.checksum(0..parts.end());
        Ok(Self { fold: index, seed: seed as usize, bars: fold.clone(), settings, candles: checksum, args })
    }

    pub fn folder(&self) -> Folder {
        Folder::new(&self.args.out)
    }

    /// Fold, seed and periods, for a person.
    pub fn title(&self, candles: &Candles) -> String {
        let dates = TimestampFormat::of(&candles.timestamps);
        let date = |bar: usize| dates.format(candles.timestamps[bar]);
        let periods = |ranges: &[Range<usize>]| {
            let all = ranges.iter().map(|bars| format!("{} to {}", date(bars.start), date(bars.end - 1)));
            all.collect::<Vec<_>>().join(", ")
        };
        let (trained, tested) = (periods(&self.bars.train), periods(&self.bars.test));
        format!("fold {}, seed {}: {trained}; tested: {tested}", self.fold + 1, self.settings.mappo.ppo.seed)
    }

    /// The memory that the training needs.
    pub fn needs(&self, gpu: &Gpu, candles: &Candles) -> Result<Needs> {
        Needs::of(gpu, candles, &Parts::new(&self.settings.data, candles)?, &self.settings)
    }

    /// Trains, unless an earlier process has; resumes what it had begun. Returns the seconds of the iterations of a training
    /// that began and ended here.
    pub fn train(
        &self,
        candles: &Candles,
        gpu: &Gpu,
        interrupts: &mut Option<Interrupts>,
        telling: Telling<'_>,
    ) -> Result<Option<f64>> {
        let folder = self.folder();
        let before = self.before()?;
        if before == Some(Stage::Finished) {
            note!("          is trained already");
            return Ok(None);
        }
        let resumed = before.is_some();
        let args = match resumed {
            true => TrainArgs { resume: true, config: None, sets: Vec::new(), ..self.args.clone() },
            false => self.args.clone(),
        };
        let training = Training::prepare(&args)?;
        let status = training.run(candles, || Ok(gpu.clone()), interrupts, telling)?;
        if resumed || status != ExitCode::SUCCESS {
            return Ok(None);
        }
        Ok(Some(Summary::read(&folder.summary())?.seconds))
    }

    /// The stage of the run in the folder, if it has one that is kept.
    ///
    /// # Errors
    /// If it was trained with other settings.
    pub fn before(&self) -> Result<Option<Stage>> {
        let folder = self.folder();
        if !folder.path().exists() {
            return Ok(None);
        }
        folder.settle()?;
        let latest = folder.latest();
        // A process that was killed early has left no settings, and nothing to resume.
        let begun = latest.filter(|(there, stage)| *stage == Stage::Finished || there.settings().exists());
        let Some((there, stage)) = begun else { return Ok(None) };
        let settings = Settings::read(Some(&there.settings()), &[])
            .with_context(|| format!("the run in {}", self.args.out.display()))?;
        ensure!(
            settings == self.settings,
            "{} holds {} with other settings: choose another folder with --out, or replace it with --force",
            self.args.out.display(),
            if stage == Stage::Finished { "a run" } else { "an unfinished run" }
        );
        // An unfinished run compares them by itself.
        if stage == Stage::Finished {
            let trained = Summary::read(&there.summary())?.candles;
            ensure!(
                trained.as_ref() == Some(&self.candles),
                "{} holds a run that was trained on other candles: choose another folder with --out, or replace it with --force",
                self.args.out.display()
            );
        }
        Ok(Some(stage))
    }

    /// Removes an earlier run of this fold and seed.
    pub fn clear(&self) -> Result<()> {
        match Owned::open(&self.args.out, super::COMMAND)? {
            Some(mut owned) => owned.clear(),
            None => Ok(()),
        }
    }
}

/// The parts of a fold, as settings.
fn periods(scheme: Scheme, fold: &Fold, cut: &Cut, candles: &Candles) -> Vec<String> {
    let date = |bar: usize| candles.timestamps[bar];
    if scheme != Scheme::Cpcv {
        let (train, test) = (&fold.train[0], &fold.test[0]);
        return vec![
            format!("data.train_from=\"{}\"", date(train.start)),
            format!("data.train_to=\"{}\"", date(train.end - 1)),
            format!("data.test_from=\"{}\"", date(test.start)),
            format!("data.test_to=\"{}\"", date(test.end - 1)),
        ];
    }
    // Bars that are purged or under embargo are held out too.
    let bars = cut.tested();
    let starts = std::iter::once(bars.start).chain(fold.train.iter().map(|range| range.end));
    let ends = fold.train.iter().map(|range| range.start).chain([bars.end]);
    let held_out = starts.zip(ends).filter(|(start, end)| start < end);
    let held_out = held_out.map(|(start, end)| format!("[\"{}\", \"{}\"]", date(start), date(end - 1)));
    vec![
        format!("data.train_from=\"{}\"", date(bars.start)),
        format!("data.test_to=\"{}\"", date(bars.end - 1)),
        format!("data.held_out=[{}]", held_out.collect::<Vec<_>>().join(", ")),
    ]
}
