//! Runs the trainer program in a pseudo-terminal, and looks at its screen.

use std::io::{Read as _, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use vt100::{Parser, Screen};

use super::program::{Workplace, program};

/// Longest time that a screen is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Terminal {
    parser: Arc<Mutex<Parser>>,
    master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn Write + Send>,
    pub child: Box<dyn Child + Send + Sync>,
    reader: std::thread::JoinHandle<()>,
}

/// Columns and rows.
pub type Size = (u16, u16);

fn pty_size((cols, rows): Size) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

fn nonzero(value: u16) -> NonZeroU16 {
    NonZeroU16::new(value).unwrap()
}

impl Terminal {
    /// Starts the program in a folder.
    pub fn run(place: &Workplace, arguments: &[&str], size: Size) -> Self {
        let pair = native_pty_system().openpty(pty_size(size)).unwrap();
        let mut command = CommandBuilder::new(program());
        command.args(arguments);
        command.cwd(place.path(""));
        for name in ["RUST_LOG", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color");
        command.env("XDG_RUNTIME_DIR", place.path(""));
        let child = pair.slave.spawn_command(command).unwrap();
        let parser = Arc::new(Mutex::new(Parser::new(nonzero(size.1), nonzero(size.0), 0)));
        let mut output = pair.master.try_clone_reader().unwrap();
        let keyboard = pair.master.take_writer().unwrap();
        let shown = parser.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error when the program has ended.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { parser, master: pair.master, keyboard, child, reader }
    }

    pub fn with<T>(&self, look: impl FnOnce(&Screen) -> T) -> T {
        look(self.parser.lock().unwrap().screen())
    }

    /// The lines of the screen, without spaces at their ends.
    pub fn text(&self) -> String {
        self.with(|screen| {
            let (_, columns) = screen.size();
            screen.rows(0, columns.get()).map(|row| row.trim_end().to_string() + "\n").collect()
        })
    }

    /// Waits until the screen has all of `wanted`, and returns it.
    pub fn wait(&mut self, wanted: &[&str]) -> String {
        self.wait_until(&format!("{wanted:?}"), |text| wanted.iter().all(|wanted| text.contains(wanted)))
    }

    /// Waits until the screen is as wanted, and returns it.
    pub fn wait_until(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let text = self.text();
            if is_so(&text) {
                return text;
            }
            let ended = self.child.try_wait().unwrap();
            // The last bytes of a program that has ended may still be on their way.
            assert!(
                ended.is_none() || start.elapsed() < Duration::from_secs(5),
                "{ended:?}, not {what}:\n{text}"
            );
            assert!(start.elapsed() < PATIENCE, "it takes too long until {what}:\n{text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    pub fn resize(&mut self, size: Size) {
        self.parser.lock().unwrap().screen_mut().set_size(nonzero(size.1), nonzero(size.0));
        self.master.resize(pty_size(size)).unwrap();
    }

    /// Waits for the end of the program; returns its exit status and the screen. Asserts that the terminal is as before.
    pub fn end(mut self) -> (u32, String) {
        let status = self.child.wait().unwrap().exit_code();
        // Raw mode has no echo.
        #[cfg(unix)]
        {
            let flags = format!("{:?}", self.master.get_termios().unwrap().local_flags);
            let has = |name| flags.split(|c: char| !c.is_alphanumeric()).any(|flag| flag == name);
            assert!(has("ECHO") && has("ICANON"), "{flags}");
        }
        drop(self.keyboard);
        drop(self.master);
        self.reader.join().unwrap();
        let parser = self.parser.lock().unwrap();
        let screen = parser.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{}", screen.contents());
        (status, screen.contents())
    }
}
