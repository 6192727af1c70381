//! Records of every iteration of a training: `metrics.csv`, TensorBoard's events, JSON lines, and the progress on the
//! terminal.

use std::time::Instant;

use anyhow::{Context, Result};
use phalanx::mappo::{Progress as Done, Trainer};

use crate::TrainArgs;
use crate::console::say;
use crate::dashboard::Dashboard;
use crate::folder::Folder;
use crate::interrupt;
use crate::memory::Memory;
use crate::metrics::{self, Row};
use crate::progress::{Line, Progress};
use crate::run::Settings;
use crate::tensorboard;

pub struct Log {
    metrics: metrics::Writer,
    events: Option<tensorboard::Writer>,
    json: bool,
    display: Display,
    /// Seconds of training before this process.
    before: f64,
    started: Instant,
    last_return: f64,
    /// The last iteration, written once an evaluation may have been added to it.
    row: Option<Row>,
}

enum Display {
    Progress(Progress),
    Dashboard(Dashboard),
    Nothing,
}

impl Log {
    /// Continues the files of the run in `folder` after the trainer's iteration. If it is `quiet`, no progress is shown.
    pub fn open(
        folder: &Folder,
        trainer: &Trainer,
        settings: &Settings,
        args: &TrainArgs,
        quiet: bool,
    ) -> Result<Self> {
        let mut metrics = metrics::Writer::resume(&folder.metrics(), trainer.iteration())?;
        let kept = std::mem::take(&mut metrics.kept);
        let events = match settings.logging.tensorboard {
            true => Some(tensorboard::Writer::resume(&folder.events(), &kept)?),
            false => None,
        };
        let total = settings.mappo.ppo.iterations;
        let before = kept.last().map_or(0.0, |row| row.seconds);
        let dashboard = match args.dashboard {
            true => Dashboard::start(&args.out, total, kept, interrupt::ask)?,
            false => None,
        };
        let display = dashboard.map_or_else(
            || {
                if quiet {
                    return Display::Nothing;
                }
                let progress = Progress::new(u64::from(total));
                progress.begin(u64::from(trainer.iteration()) + 1);
                Display::Progress(progress)
            },
            Display::Dashboard,
        );
        Ok(Self {
            metrics,
            events,
            json: args.jsonl,
            display,
            before,
            started: Instant::now(),
            last_return: f64::NAN,
            row: None,
        })
    }

    /// Seconds of training, those of earlier processes included.
    fn seconds(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    /// Shows a completed iteration, and writes the one before it.
    pub fn iteration(&mut self, done: &Done, memory: Memory) -> Result<()> {
        let row = Row::new(done, self.seconds(), memory);
        self.write()?;
        self.row = Some(row);
        self.last_return = done.mean_return().unwrap_or(self.last_return);
        match &mut self.display {
            Display::Progress(progress) => progress.update(&Line::of(&row, self.last_return)),
            Display::Dashboard(dashboard) => dashboard.push(row),
            Display::Nothing => {}
        }
        Ok(())
    }

    /// Adds the returns of an evaluation to the last iteration.
    pub fn evaluated(&mut self, greedy: f64, sampled: f64) {
        let Some(row) = &mut self.row else { return };
        (row.evaluation, row.evaluation_sampled) = (Some(greedy), Some(sampled));
        if let Display::Dashboard(dashboard) = &self.display {
            dashboard.push(*row);
        }
    }

    /// Writes the last iteration.
    pub fn write(&mut self) -> Result<()> {
        let Some(row) = self.row.take() else { return Ok(()) };
        self.metrics.write(&row)?;
        self.events.as_mut().map_or(Ok(()), |events| events.write(&row))?;
        if self.json {
            say!("{}", serde_json::to_string(&row).context("writing an iteration as JSON")?);
        }
        Ok(())
    }

    /// Writes everything to disk; called before a checkpoint, which must not be newer than the metrics.
    pub fn sync(&mut self) -> Result<()> {
        self.metrics.sync()?;
        self.events.as_mut().map_or(Ok(()), tensorboard::Writer::sync)
    }

    /// Ends the display, and returns the seconds of training.
    pub fn finish(self) -> f64 {
        let seconds = self.seconds();
        match self.display {
            Display::Progress(progress) => progress.finish(),
            Display::Dashboard(dashboard) => dashboard.finish(),
            Display::Nothing => {}
        }
        seconds
    }
}
