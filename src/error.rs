//! The one error type of the library.

use std::path::PathBuf;

/// Result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error: its cause, its place, and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter answers, or none matches the request.
    #[error("no GPU adapter {wanted}; found: {found}. {hint}")]
    NoAdapter {
        /// The request.
        wanted: String,
        /// The adapters that answered.
        found: String,
        /// The remedy.
        hint: String,
    },
    /// The adapter refused to create a device.
    #[error("could not create a device on `{adapter}`: {reason}")]
    NoDevice {
        /// Adapter name.
        adapter: String,
        /// The message of the driver.
        reason: String,
    },
    /// A limit of the device is lower than the kernels need.
    #[error(
        "the device's `{limit}` is {has}, and the kernels need {need}: request the device with at least that, or take another adapter"
    )]
    Limit {
        /// The limit, as wgpu names it.
        limit: &'static str,
        /// The value that the kernels need.
        need: u64,
        /// The value of the device.
        has: u64,
    },
    /// The device was lost: reset by the driver, removed or destroyed.
    #[error("the GPU device was lost ({reason})")]
    DeviceLost {
        /// The message of the driver.
        reason: String,
    },
    /// An allocation failed.
    #[error("out of GPU memory while {action}")]
    OutOfMemory {
        /// The operation.
        action: String,
    },
    /// The device or the driver rejected an operation. This is a bug in phalanx, please report it, unless the kernel is the
    /// caller's own.
    #[error("GPU error while {action}: {reason}")]
    Gpu {
        /// The operation.
        action: String,
        /// The message of wgpu.
        reason: String,
    },
    /// A shader does not compose or compile. This is a bug in phalanx, please report it, unless the shader is the caller's own.
    #[error("shader `{shader}`: {reason}")]
    Shader {
        /// Path of the shader below `shaders/`, without ending.
        shader: String,
        /// The message of the composer or of the compiler.
        reason: String,
    },
    /// The sizes of arguments do not match.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// Name of the argument.
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
        /// The fault, and what would be right.
        reason: String,
    },
    /// A plan does not fit the memory of the device.
    #[error("{what} needs {needed} MiB of GPU memory and the budget is {budget} MiB; {advice}")]
    Budget {
        /// The owner of the memory: a plan, an evaluation, a buffer.
        what: String,
        /// Mebibytes that it needs.
        needed: u64,
        /// Mebibytes allowed.
        budget: u64,
        /// Settings to change.
        advice: String,
    },
    /// A single buffer is larger than the device can bind, however much memory there is.
    #[error("{what} needs {needed} MiB and one buffer of this device has at most {limit} MiB; {advice}")]
    Buffer {
        /// The buffer, or the plan whose largest one it is.
        what: String,
        /// Mebibytes that it needs.
        needed: u64,
        /// Mebibytes of the largest buffer that can be bound.
        limit: u64,
        /// Settings to change.
        advice: String,
    },
    /// A limit on the memory of this process leaves too little for the driver of a software rasteriser, which would crash.
    #[error(
        "{what} needs about {needed} MiB, and the limit on this process's {limited} leaves {left} of {limit} MiB: {remedy}raise it \
         (`ulimit -v unlimited` or `ulimit -d unlimited`), or use an adapter that is not a software rasteriser"
    )]
    ProcessLimit {
        /// The driver.
        what: String,
        /// Mebibytes that it needs.
        needed: u64,
        /// The limited memory, with the option of `ulimit` that sets the limit.
        limited: &'static str,
        /// Mebibytes that are left.
        left: u64,
        /// Mebibytes of the limit.
        limit: u64,
        /// A remedy beside a larger limit, as the beginning of a sentence; may be empty.
        remedy: String,
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
    #[error("checkpoint {}: {reason}", crate::text::path(.path))]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", crate::text::path(.path))]
    Io {
        /// The file.
        path: PathBuf,
        /// Message of the system.
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
    let mut text = crate::text::path(path);
    if let Some(line) = line {
        text += &format!(":{line}");
    }
    if let Some(column) = column {
        text += &format!(", column `{}`", crate::text::column(column));
    }
    text
}
