//! The files to read, and their first bytes.

use super::fault;
use crate::text;
use crate::{Error, Result};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Endings of candle files in a directory.
const ENDINGS: &[&str] = &[".csv", ".csv.gz", ".parquet", ".pq"];

/// First bytes of a Parquet file.
const PARQUET: &[u8; 4] = b"PAR1";

/// Candle files of a path.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub files: Vec<PathBuf>,
    /// Files of a directory that are left out, because they are pipes, sockets or devices.
    pub left_out: Vec<PathBuf>,
}

/// The file itself, or the candle files of a directory, sorted.
pub(super) fn list(path: &Path) -> Result<Listed> {
    let mut listed = Listed::default();
    if !path.is_dir() {
        listed.files.push(path.to_path_buf());
        return Ok(listed);
    }
    for entry in path.read_dir().map_err(Error::io(path))? {
        let file = entry.map_err(Error::io(path))?.path();
        let name = file.to_string_lossy().to_lowercase();
        if !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        // Follows links. A file that cannot be asked is opened, so that the error names it.
        match file.metadata() {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(metadata) if !metadata.is_file() => listed.left_out.push(file),
            _ => listed.files.push(file),
        }
    }
    if listed.files.is_empty() {
        let pipes = match listed.left_out.first() {
            Some(file) => format!(" ({} is not a regular file: name it to read from it)", text::path(file)),
            None => String::new(),
        };
        let reason = format!("the directory contains no {} file{pipes}", ENDINGS.join(", "));
        return Err(fault(path, None, None, reason));
    }
    listed.files.sort();
    listed.left_out.sort();
    Ok(listed)
}

/// Something to read candles from.
pub(super) enum Source<'a> {
    Text(Box<dyn Read + 'a>),
    /// A whole file, which starts like a Parquet file, whatever its name.
    Parquet(File),
}

impl<'a> Source<'a> {
    /// Opens a file, and says whether it is a regular one. The first bytes of another one are gone once they are read, so that it is
    /// opened only once.
    pub fn open(path: &Path) -> Result<(Self, bool)> {
        let asked = path.metadata().map_err(Error::io(path))?;
        if !asked.is_file() {
            // The call may wait for somebody who writes.
            tracing::warn!("reading from {}, which is not a regular file", text::path(path));
        }
        let mut file = File::open(path).map_err(Error::io(path))?;
        let regular = file.metadata().map_err(Error::io(path))?.is_file();
        let mut start = Vec::new();
        file.by_ref().take(PARQUET.len() as u64).read_to_end(&mut start).map_err(Error::io(path))?;
        if start != PARQUET {
            return Ok((Self::Text(Box::new(Cursor::new(start).chain(file))), regular));
        }
        if !regular {
            let reason =
                "Parquet is not read from front to back, so that it has to be a regular file: save it as one";
            return Err(fault(path, None, None, reason));
        }
        Ok((Self::Parquet(file), regular))
    }

    /// Reads from memory. Parquet goes through a temporary file.
    pub fn memory(name: &Path, bytes: &'a [u8]) -> Result<Self> {
        if !bytes.starts_with(PARQUET) {
            return Ok(Self::Text(Box::new(bytes)));
        }
        let mut file = tempfile::tempfile().map_err(Error::io(name))?;
        std::io::Write::write_all(&mut file, bytes).map_err(Error::io(name))?;
        Ok(Self::Parquet(file))
    }
}
