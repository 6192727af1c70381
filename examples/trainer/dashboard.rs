//! Curves of a training on the whole terminal.
//!
//! While `train --dashboard` runs, a thread of its own draws them, because the training waits for the device; `watch` draws in the
//! main thread. Both give [`show`] a [`Source`] of iterations.

mod draw;
pub mod history;
mod screen;
#[cfg(test)]
mod tests;
mod views;

use std::io::{IsTerminal as _, Stderr, Stdout};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::console::{self, note};
use crate::folder::Stage;
use crate::metrics::Row;
use history::History;
pub use screen::restore;
use screen::{Screen, Terminal};
use views::VIEWS;

/// Time between two looks at the keyboard and the source.
const TICK: Duration = Duration::from_millis(100);

/// Time after which the screen is drawn again although nothing happened: it may say how long ago the last iteration was.
const REFRESH: Duration = Duration::from_secs(1);

/// The state of the screen.
pub struct App {
    title: String,
    pub history: History,
    /// Whether it trains, in a few words.
    pub state: String,
    /// The stage of the run, if it is that of another process.
    pub stage: Option<Stage>,
    /// A line that replaces that of the keys.
    pub message: Option<String>,
    /// The action of the key `q`.
    quits: &'static str,
    view: usize,
    /// First row of charts that is shown.
    scroll: usize,
}

impl App {
    pub fn new(run: &Path, total: u32, quits: &'static str) -> Self {
        let title = phalanx::text::visible_lines(&run.display().to_string()).into_owned();
        Self {
            title,
            history: History::new(total),
            state: String::new(),
            stage: None,
            message: None,
            quits,
            view: 0,
            scroll: 0,
        }
    }

    /// Answers a key; `false` if it is the one that quits.
    fn key(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let views = VIEWS.len();
        let view = match key.code {
            KeyCode::Char('c') => return !control,
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char(digit @ '1'..='9') => digit as usize - '1' as usize,
            KeyCode::Tab | KeyCode::Right => (self.view + 1) % views,
            KeyCode::BackTab | KeyCode::Left => (self.view + views - 1) % views,
            KeyCode::Down => {
                // Drawing keeps it in range.
                self.scroll += 1;
                return true;
            }
            KeyCode::Up => {
                self.scroll = self.scroll.saturating_sub(1);
                return true;
            }
            _ => return true,
        };
        if view < views && view != self.view {
            (self.view, self.scroll) = (view, 0);
        }
        true
    }
}

/// Iterations to show.
pub trait Source {
    /// Adds what is new to `app`, and returns whether there was anything; [`ControlFlow::Break`] ends the display.
    ///
    /// # Errors
    /// They end the display, too.
    fn poll(&mut self, app: &mut App) -> Result<ControlFlow<(), bool>>;

    /// Answers the key that quits.
    fn quit(&mut self) -> ControlFlow<()>;
}

/// Shows the iterations of `source` until it ends or the user quits. The terminal is as before afterwards, however it ends.
pub fn show(stream: Stream, app: &mut App, source: &mut dyn Source) -> Result<()> {
    let (screen, mut terminal) = Screen::open(stream).context("opening the dashboard")?;
    let result = steps(&mut terminal, app, source);
    drop(screen);
    result
}

fn steps(terminal: &mut Terminal, app: &mut App, source: &mut dyn Source) -> Result<()> {
    let mut drawn: Option<Instant> = None;
    let mut changed = true;
    // A panic that another thread survives, as of wgpu, closes the screen.
    while screen::is_open() {
        match source.poll(app)? {
            ControlFlow::Break(()) => return Ok(()),
            ControlFlow::Continue(new) => changed |= new,
        }
        if changed || drawn.is_none_or(|drawn| drawn.elapsed() >= REFRESH) {
            terminal.draw(|frame| draw::draw(frame, app)).context("drawing the dashboard")?;
            (drawn, changed) = (Some(Instant::now()), false);
        }
        let mut wait = TICK;
        while event::poll(wait).context("reading the keyboard")? {
            changed = true;
            // Other keys that were pressed meanwhile.
            wait = Duration::ZERO;
            let event = event::read().context("reading the keyboard")?;
            let Event::Key(key) = event else { continue };
            if key.kind != KeyEventKind::Release && !app.key(key) && source.quit().is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The stream that the screen is drawn on.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    Out,
    Err,
}

impl Stream {
    /// Whether a screen can be drawn on it and keys be read.
    pub fn is_usable(self) -> bool {
        let terminal = match self {
            Self::Out => std::io::stdout().is_terminal(),
            Self::Err => std::io::stderr().is_terminal(),
        };
        terminal
            && std::io::stdin().is_terminal()
            && std::env::var_os("TERM").is_none_or(|name| name != "dumb")
    }

    fn writer(self) -> Box<dyn std::io::Write + Send> {
        match self {
            Self::Out => Box::<Stdout>::new(std::io::stdout()),
            Self::Err => Box::<Stderr>::new(std::io::stderr()),
        }
    }
}

/// The dashboard of a training in this process.
pub struct Dashboard {
    /// `None` ends it.
    rows: Sender<Option<Row>>,
    thread: Option<JoinHandle<()>>,
}

impl Dashboard {
    /// Shows the training of `out` to iteration `total`, which goes on after `rows`; `None` if there is no terminal. `quit` is called
    /// when the user wants it to stop.
    pub fn start(out: &Path, total: u32, rows: Vec<Row>, quit: fn()) -> Result<Option<Self>> {
        if !Stream::Err.is_usable() {
            note!("warning: no dashboard, because standard input or standard error is no terminal");
            return Ok(None);
        }
        let (sender, receiver) = channel();
        let mut app = App::new(out, total, "stop");
        app.state = "training".into();
        rows.into_iter().for_each(|row| app.history.push(row));
        console::hold_lines();
        let thread = std::thread::Builder::new().name("dashboard".into()).spawn(move || {
            let mut source = Training { rows: receiver, quit };
            // The training is worth more than the view of it.
            if let Err(error) = show(Stream::Err, &mut app, &mut source) {
                note!("warning: the dashboard ended: {error:#}; the training goes on");
            }
            console::release_lines();
        });
        match thread {
            Ok(thread) => Ok(Some(Self { rows: sender, thread: Some(thread) })),
            Err(error) => {
                console::release_lines();
                Err(error).context("starting the dashboard")
            }
        }
    }

    /// Shows an iteration, or more about the last one.
    pub fn push(&self, row: Row) {
        // Nobody receives after an error of the terminal.
        let _ = self.rows.send(Some(row));
    }

    /// Gives the terminal back.
    pub fn finish(self) {}
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.rows.send(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        console::release_lines();
    }
}

/// The iterations of the training in this process.
struct Training {
    rows: Receiver<Option<Row>>,
    quit: fn(),
}

impl Source for Training {
    fn poll(&mut self, app: &mut App) -> Result<ControlFlow<(), bool>> {
        let mut new = false;
        loop {
            match self.rows.try_recv() {
                Ok(Some(row)) => app.history.push(row),
                Ok(None) | Err(TryRecvError::Disconnected) => return Ok(ControlFlow::Break(())),
                Err(TryRecvError::Empty) => {
                    let message = console::last_held_line();
                    new |= app.message != message;
                    app.message = message;
                    return Ok(ControlFlow::Continue(new));
                }
            }
            new = true;
        }
    }

    fn quit(&mut self) -> ControlFlow<()> {
        (self.quit)();
        ControlFlow::Continue(())
    }
}
