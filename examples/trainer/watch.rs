//! `watch`: shows a training of another process, or a finished one.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::SIGTERM;

use crate::WatchArgs;
use crate::console::{note, say};
use crate::dashboard::history::History;
use crate::dashboard::{App, Source, Stream, show};
use crate::folder::Stage;
use crate::follow::{Follower, News};
use crate::progress::{Line, due, duration, losses, pace};

/// Time between two looks at the run's folder.
const INTERVAL: Duration = Duration::from_millis(500);

/// Silence after which the state says how long ago the last iteration was.
const SILENCE: Duration = Duration::from_secs(5);

pub fn watch(args: &WatchArgs) -> Result<ExitCode> {
    let mut run = Watched { follower: Follower::new(&args.run), looked: None, stop: Arc::default() };
    let mut app = App::new(&args.run, 0, "quit");
    // Faults that show at once are said before the screen changes.
    while !run.look(&mut app)? {
        std::thread::sleep(INTERVAL / 5);
    }
    if !Stream::Out.is_usable() {
        return run.lines(&mut app).map(|()| ExitCode::SUCCESS);
    }
    signal_hook::flag::register(SIGTERM, run.stop.clone()).context("catching SIGTERM")?;
    show(Stream::Out, &mut app, &mut run)?;
    let stopped = run.stop.load(Ordering::Relaxed);
    // 128 and the number of the signal, as in shells.
    Ok(if stopped { ExitCode::from(128 + SIGTERM as u8) } else { ExitCode::SUCCESS })
}

struct Watched {
    follower: Follower,
    looked: Option<Instant>,
    /// Whether SIGTERM was received.
    stop: Arc<AtomicBool>,
}

impl Watched {
    /// Looks at the folder, and returns whether it holds a run now.
    fn look(&mut self, app: &mut App) -> Result<bool> {
        self.looked = Some(Instant::now());
        loop {
            let Some(news) = self.follower.news()? else { return Ok(false) };
            if news.anew {
                app.history = History::new(app.history.total);
            }
            app.state = state(&news);
            app.stage = Some(news.stage);
            app.history.total = news.total.unwrap_or(app.history.total);
            news.rows.into_iter().for_each(|row| app.history.push(row));
            if !news.more {
                return Ok(true);
            }
        }
    }

    /// Prints lines like those of a training without a terminal, until it ends.
    fn lines(&mut self, app: &mut App) -> Result<()> {
        let mut printed = None;
        let mut last_return = f64::NAN;
        let mut seen = 0;
        loop {
            let total = u64::from(app.history.total);
            let left = app.history.time_left();
            let newest = app.history.last().map_or(0, |row| row.iteration);
            let ended = app.stage != Some(Stage::Training);
            if newest < seen {
                note!("The training goes on from iteration {newest}");
                (seen, printed) = (0, None);
            }
            for row in app.history.rows.iter().filter(|row| row.iteration > seen) {
                last_return = row.mean_return.unwrap_or(last_return);
                let last = row.iteration == newest;
                let iteration = u64::from(row.iteration);
                if due(iteration, total, printed) || (last && ended) {
                    let line = Line::of(row, last_return);
                    let left = left.filter(|_| last && !ended);
                    say!("iteration {}  {}", pace(&line, total, left), losses(&line));
                    printed = Some(iteration);
                }
            }
            seen = newest;
            if ended {
                note!("{}", ending(app));
                return Ok(());
            }
            std::thread::sleep(INTERVAL);
            self.look(app)?;
        }
    }
}

impl Source for Watched {
    fn poll(&mut self, app: &mut App) -> Result<ControlFlow<(), bool>> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(ControlFlow::Break(()));
        }
        if self.looked.is_some_and(|looked| looked.elapsed() < INTERVAL) {
            return Ok(ControlFlow::Continue(false));
        }
        let before = (app.state.clone(), app.history.last().copied());
        self.look(app)?;
        Ok(ControlFlow::Continue(before != (app.state.clone(), app.history.last().copied())))
    }

    fn quit(&mut self) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

fn state(news: &News) -> String {
    match news.stage {
        Stage::Finished => "finished".into(),
        Stage::Interrupted => "interrupted".into(),
        Stage::Training => match news.age {
            Some(age) if age >= SILENCE => format!("training, last {} ago", duration(age)),
            _ => "training".into(),
        },
    }
}

fn ending(app: &App) -> String {
    let (last, total) = (app.history.last().map_or(0, |row| row.iteration), app.history.total);
    match app.stage {
        Some(Stage::Interrupted) => format!("Interrupted after iteration {last} of {total}"),
        _ => format!("Finished  after iteration {last} of {total}"),
    }
}
