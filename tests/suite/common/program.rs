//! Runs the trainer program in a temporary folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::ToSpan;
use jiff::civil::date;
use tempfile::TempDir;

/// The demo's candles: AAPL, GOOG, IBM and MSFT, daily.
pub const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/us4_daily.csv.gz");

/// Settings of a very short training.
pub const SMALL: [&str; 12] = [
    "--set",
    "mappo.num_envs=4",
    "--set",
    "mappo.rollout_steps=8",
    "--set",
    "mappo.epochs=1",
    "--set",
    "mappo.hidden=[8]",
    "--set",
    "market.episode_length=16",
    "--set",
    "mappo.iterations=2",
];

/// A temporary working folder.
pub struct Workplace(TempDir);

impl Workplace {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().into()
    }

    /// Runs the program in this folder.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap_or_else(|error| panic!("{}: {error}", program().display()))
    }

    /// The command, not started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.0.path());
        // A log filter and a missing desktop session must not add lines to the output; RUST_BACKTRACE is set to check that
        // errors print no backtrace.
        command.env_remove("RUST_LOG").env("RUST_BACKTRACE", "1").env("XDG_RUNTIME_DIR", self.0.path());
        command
    }

    /// Trains a small run in the folder `out`; `more` overrides its settings.
    pub fn train(&self, data: &str, out: &str, more: &[&str]) -> Output {
        let start = ["train", "--data", data, "--out", out];
        self.run(&[&start as &[&str], &SMALL, more].concat())
    }

    /// A copy of a run on the demo's candles, which is trained once per process.
    pub fn trained(&self, out: &str) {
        static RUN: LazyLock<Workplace> = LazyLock::new(|| {
            let place = Workplace::new();
            succeeded(&place.train(DEMO, "run", &[]));
            place
        });
        copy_folder(&RUN.path("run"), &self.path(out));
    }

    /// Backtests the run in the folder `run`.
    pub fn backtest(&self, data: &str, run: &str, more: &[&str]) -> Output {
        self.run(&[&["backtest", "--run", run, "--data", data], more].concat())
    }
}

/// Paths and bytes of all files in a folder, recursively.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let own = files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap()));
    own.chain(folders.iter().flat_map(|folder| contents(folder))).collect()
}

/// Waits until `exists` holds while `child` runs.
pub fn wait_for(child: &mut Child, exists: impl Fn() -> bool) {
    let start = Instant::now();
    while !exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        assert!(start.elapsed() < Duration::from_secs(120), "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

/// Path of the program: examples are next to the folder of test executables.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples").join(format!("trainer{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.exists(),
        "{} is not built: run `make test`, or `cargo build --workspace --example trainer` first",
        program.display()
    );
    program
}

pub fn succeeded(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Asserts exit status 1 and one line on stderr that contains all of `wanted`.
pub fn refused(output: &Output, wanted: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "wanted {wanted:?}, got {said}");
    // A busy machine may take longer than the program is silent.
    let said = said.lines().filter(|line| !line.starts_with("Working   ")).collect::<Vec<_>>().join("\n");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1, "{said}");
    for text in wanted {
        assert!(said.contains(text), "`{text}` is missing in {said}");
    }
    for text in ["panicked", "backtrace", "unwrap", "Os {", "Some(", "Err("] {
        assert!(!said.contains(text), "`{text}` is in {said}");
    }
}

/// All rows of a CSV file, the header first.
pub fn rows(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(path).unwrap();
    reader.records().map(|row| row.unwrap().iter().map(String::from).collect()).collect()
}

/// The values of the columns whose name starts with `prefix`, row by row.
pub fn columns(path: &Path, prefix: &str) -> Vec<f64> {
    let rows = rows(path);
    let wanted: Vec<_> = (0..rows[0].len()).filter(|column| rows[0][*column].starts_with(prefix)).collect();
    assert!(!wanted.is_empty());
    rows[1..].iter().flat_map(|row| wanted.iter().map(|column| row[*column].parse().unwrap())).collect()
}

/// Daily candles with integer closes, as CSV text.
pub struct Market {
    rows: Vec<(usize, String, String)>,
}

impl Market {
    pub fn new(symbols: &[&str], bars: usize) -> Self {
        let row = |bar: usize, symbol: &str| {
            let day = date(2001, 1, 1).checked_add((bar as i64).days()).unwrap();
            // A zigzag that never repeats the previous candle.
            let open = 10 + (bar * 7 + symbol.len()) % 13;
            let close = 10 + (bar * 5) % 11;
            let (high, low) = (open.max(close) + 1, open.min(close) - 1);
            (bar, symbol.to_string(), format!("{day},{symbol},{open},{high},{low},{close},{}", 1000 + bar))
        };
        Self { rows: symbols.iter().flat_map(|symbol| (0..bars).map(move |bar| row(bar, symbol))).collect() }
    }

    /// Removes one bar of one instrument.
    pub fn without(mut self, symbol: &str, bar: usize) -> Self {
        self.rows.retain(|(at, of, _)| (*at, of.as_str()) != (bar, symbol));
        self
    }

    pub fn csv(&self) -> String {
        let lines = self.rows.iter().map(|(_, _, line)| format!("{line}\n"));
        std::iter::once("date,symbol,open,high,low,close,volume\n".to_string()).chain(lines).collect()
    }
}
