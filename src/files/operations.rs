//! The changes that phalanx makes to file systems. In tests each of them can be made to fail.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::{Error, Result};

/// A change to the file system, as [`super::faults`] counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A folder is created.
    CreateFolder,
    /// A file is created or opened for writing.
    Open,
    /// Bytes are written.
    Write,
    /// A file or a folder is flushed to the disk.
    Sync,
    /// A file or a folder gets another name.
    Rename,
    /// A file or an empty folder is removed.
    Remove,
}

/// Fails if the tests want `operation` to.
#[inline]
pub(super) fn attempt(operation: Operation) -> io::Result<()> {
    #[cfg(any(test, feature = "fault-injection"))]
    super::faults::attempt(operation)?;
    let _ = operation;
    Ok(())
}

/// Number of the `bytes` that one call may write.
#[inline]
pub(super) fn writable(bytes: usize) -> usize {
    #[cfg(any(test, feature = "fault-injection"))]
    return super::faults::writable(bytes);
    #[cfg(not(any(test, feature = "fault-injection")))]
    bytes
}

/// Creates a folder and those above it, unless they exist.
///
/// # Errors
/// [`Error::Io`].
pub fn create_folders(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let create = || {
        attempt(Operation::CreateFolder)?;
        // The lowest that exists: it gets a new name.
        let above = path.ancestors().skip(1).find(|above| above.is_dir());
        fs::create_dir_all(path)?;
        let new = path.ancestors().skip(1).take_while(|folder| Some(*folder) != above);
        new.chain(above).filter(|folder| !folder.as_os_str().is_empty()).try_for_each(sync)
    };
    create().map_err(Error::io(path))
}

/// Renames a file or a folder, within a file system. A file in the way is replaced.
///
/// # Errors
/// [`Error::Io`] with the old name.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    attempt(Operation::Rename).and_then(|()| fs::rename(from, to)).map_err(Error::io(from))
}

/// Removes a file, if there is one. A symbolic link is removed, and not what it names.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_file(path: &Path) -> Result<()> {
    gone(attempt(Operation::Remove).and_then(|()| fs::remove_file(path))).map_err(Error::io(path))
}

/// Removes an empty folder, if there is one.
///
/// # Errors
/// [`Error::Io`], also if it is not empty.
pub fn remove_folder(path: &Path) -> Result<()> {
    gone(attempt(Operation::Remove).and_then(|()| fs::remove_dir(path))).map_err(Error::io(path))
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Copies a file: the copy is complete or absent, and on the disk.
///
/// # Errors
/// [`Error::Io`].
pub fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io(from))?;
    let mut copy = super::AtomicFile::create(to)?;
    io::copy(&mut source, &mut copy).map_err(Error::io(to))?;
    copy.commit()
}

/// Flushes a folder to the disk: names of new, renamed and removed files last only then (Unix; elsewhere there is nothing to do).
///
/// # Errors
/// [`Error::Io`].
pub fn sync_folder(path: &Path) -> Result<()> {
    sync(path).map_err(Error::io(path))
}

pub(super) fn sync(folder: &Path) -> io::Result<()> {
    attempt(Operation::Sync)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    let _ = folder;
    Ok(())
}

/// A file that grows, such as a log. What was written and flushed survives the process, what was synced the machine.
#[derive(Debug)]
pub struct AppendFile(File);

impl AppendFile {
    /// Opens a file to write at its end; creates it if it does not exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        attempt(Operation::Open)
            .and_then(|()| File::options().create(true).append(true).open(path))
            .map(Self)
            .map_err(Error::io(path))
    }

    /// Flushes what was written to the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        attempt(Operation::Sync)?;
        self.0.sync_data()
    }
}

impl Write for AppendFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        attempt(Operation::Write)?;
        self.0.write(&bytes[..writable(bytes.len())])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
