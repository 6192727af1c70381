//! The terminal's alternate screen, which is left however the program ends.

use std::io::{self, BufWriter, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::Stream;

pub type Terminal = ratatui::Terminal<CrosstermBackend<BufWriter<Box<dyn Write + Send>>>>;

/// The place at which the screen is left, while it is open.
static OPEN: Mutex<Option<Open>> = Mutex::new(None);

struct Open {
    out: Box<dyn Write + Send>,
    raw: bool,
}

/// The open screen, until it is dropped.
pub struct Screen(());

impl Screen {
    pub fn open(stream: Stream) -> io::Result<(Self, Terminal)> {
        let screen = Self::begin(stream.writer(), true)?;
        let terminal = Terminal::new(CrosstermBackend::new(BufWriter::new(stream.writer())))?;
        Ok((screen, terminal))
    }

    fn begin(mut out: Box<dyn Write + Send>, raw: bool) -> io::Result<Self> {
        restore_at_panics();
        if raw {
            enable_raw_mode()?;
        }
        // From here on it has to be left again, also if the next line fails.
        let screen = Self(());
        let entered = execute!(out, EnterAlternateScreen, Hide);
        *open() = Some(Open { out, raw });
        entered.map(|()| screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn open() -> MutexGuard<'static, Option<Open>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the screen is open.
pub fn is_open() -> bool {
    open().is_some()
}

/// Leaves the screen, if it is open.
fn leave() {
    let open = open().take();
    if let Some(mut open) = open {
        // A terminal that is gone needs nothing.
        let _ = execute!(open.out, LeaveAlternateScreen, Show);
        if open.raw {
            let _ = disable_raw_mode();
        }
    }
}

/// Gives the terminal back before the program ends without unwinding, and writes the lines that waited.
pub fn restore() {
    leave();
    crate::console::release_lines();
}

/// The message of a panic would be lost with the screen, and the terminal stay unusable.
fn restore_at_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            usual(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const ENTERED: &[u8] = b"\x1b[?1049h\x1b[?25l";
    const LEFT: &[u8] = b"\x1b[?1049l\x1b[?25h";

    /// One test, because the screen is one per process.
    #[test]
    fn the_screen_is_left_at_the_end_at_errors_and_at_panics() {
        let out = Shared::default();
        let begin = || Screen::begin(Box::new(out.clone()), false).unwrap();
        let written = || std::mem::take(&mut *out.0.lock().unwrap());
        drop(begin());
        assert_eq!(written(), [ENTERED, LEFT].concat());
        let failed: anyhow::Result<()> = (|| {
            let _screen = begin();
            anyhow::bail!("an error")
        })();
        assert!(failed.is_err() && written().ends_with(LEFT));
        // In the hook, before the message, and not again while unwinding.
        let screen = begin();
        let at_panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panic!("on purpose")));
        assert!(at_panic.is_err());
        assert_eq!(written(), [ENTERED, LEFT].concat());
        assert!(!is_open());
        drop(screen);
        assert_eq!(written(), b"");
        // At a second Ctrl-C nothing is dropped.
        std::mem::forget(begin());
        restore();
        assert!(written().ends_with(LEFT));
    }
}
