//! The one error type of the library.

use std::path::PathBuf;

/// Result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter matches the request.
    #[error("no GPU adapter {wanted}; found: {found}. {hint}")]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// The adapters that did answer.
        found: String,
        /// What to install or set.
        hint: String,
    },
    /// The adapter refused to hand out a device.
    #[error("could not create a device on `{adapter}`: {reason}")]
    NoDevice {
        /// Adapter name.
        adapter: String,
        /// What the driver said.
        reason: String,
    },
    /// The device's limits are below what the kernels need.
    #[error(
        "the device's `{limit}` is {has}, and the kernels need {need}: request the device with at least that, or take another adapter"
    )]
    Limit {
        /// The limit, as wgpu names it.
        limit: &'static str,
        /// What the kernels need.
        need: u64,
        /// What the device has.
        has: u64,
    },
    /// The device went away (driver reset, removed, destroyed).
    #[error("the GPU device was lost ({reason})")]
    DeviceLost {
        /// What the driver said.
        reason: String,
    },
    /// The device has no room for what was asked.
    #[error("out of GPU memory while {action}")]
    OutOfMemory {
        /// What was being done.
        action: String,
    },
    /// The device or driver rejected an operation: a defect of this library, worth reporting, unless the kernel is the
    /// caller's own.
    #[error("GPU error while {action}: {reason}")]
    Gpu {
        /// What was being done.
        action: String,
        /// What wgpu said.
        reason: String,
    },
    /// A shader could not be composed or compiled: a defect of this library, worth reporting, unless it is the caller's own.
    #[error("shader `{shader}`: {reason}")]
    Shader {
        /// Path of the shader below `shaders/`, without ending.
        shader: String,
        /// What the composer or compiler said.
        reason: String,
    },
    /// The sizes of arguments do not match.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// Which argument.
        what: String,
        /// The required size.
        expected: String,
        /// The actual size.
        got: String,
    },
    /// A setting is out of range or contradicts another.
    #[error("setting `{key}`: {reason}")]
    Config {
        /// Name of the setting.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The plan does not fit the card, even at its smallest.
    #[error("the smallest plan needs {needed} MiB of GPU memory and the budget is {budget} MiB; {advice}")]
    Budget {
        /// Mebibytes of the smallest plan.
        needed: u64,
        /// Mebibytes allowed.
        budget: u64,
        /// Which settings to lower.
        advice: String,
    },
    /// A candle file is malformed or holds an invalid bar.
    #[error("{}: {reason}", place(.path, .line, .column))]
    Candles {
        /// The file.
        path: PathBuf,
        /// 1-based line, if the error belongs to a line.
        line: Option<u64>,
        /// Column name, if the error belongs to a column.
        column: Option<String>,
        /// The problem and its remedy.
        reason: String,
    },
    /// Valid data do not fit the request: too few bars, other instruments, values out of range.
    #[error("{0}")]
    Data(String),
    /// A checkpoint cannot be used.
    #[error("checkpoint {}: {reason}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps an I/O error with its path: `.map_err(Error::io(&path))`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// A setting that is out of range.
    pub fn config(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { key: key.into(), reason: reason.into() }
    }

    /// An argument of the wrong size.
    pub fn shape(what: impl Into<String>, expected: impl ToString, got: impl ToString) -> Self {
        Self::Shape { what: what.into(), expected: expected.to_string(), got: got.to_string() }
    }
}

fn place(path: &std::path::Path, line: &Option<u64>, column: &Option<String>) -> String {
    let mut text = path.display().to_string();
    if let Some(line) = line {
        text += &format!(":{line}");
    }
    if let Some(column) = column {
        text += &format!(", column `{column}`");
    }
    text
}
