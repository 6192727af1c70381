//! Files that replace their predecessors when they are complete.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::operations::{Operation, attempt, sync, writable};
use crate::{Error, Result};

/// Ending of the names of temporary files.
const TEMPORARY: &str = ".phalanx-tmp";

/// Attempts to create a temporary file that no other process takes for a stale one.
const ATTEMPTS: usize = 8;

/// Most symbolic links that are followed from one name to the next; more are a circle.
const MOST_LINKS: usize = 40;

/// Writes `bytes` to a file, which replaces another of this name. A reader, or the next start after a crash, finds either the old
/// file or the new one, never a part of one. See [`AtomicFile`].
///
/// # Errors
/// [`Error::Io`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(Error::io(path))?;
    file.commit()
}

/// A file that appears under its name when it is complete, by [`AtomicFile::commit`]. Dropped before, it leaves nothing behind.
///
/// The bytes go to a temporary file in the same folder, with a random name, so threads and processes may write side by side. A
/// file that is replaced keeps its permissions (Unix). Symbolic links are followed: the file that they name is replaced. A device or
/// a pipe is not replaced but written to, at once.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    to: Target,
}

#[derive(Debug)]
enum Target {
    /// `None` once it was renamed.
    File {
        path: PathBuf,
        temporary: Option<NamedTempFile>,
    },
    Device(File),
}

impl AtomicFile {
    /// Begins a file.
    ///
    /// # Errors
    /// [`Error::Io`], also if `path` is a folder.
    pub fn create(path: &Path) -> Result<Self> {
        let to = Target::open(path).map_err(Error::io(path))?;
        Ok(Self { path: path.into(), to })
    }

    /// Flushes the file to the disk, gives it its name, and flushes the folder.
    ///
    /// # Errors
    /// [`Error::Io`]; an older file of this name is then as it was, unless only the last flush failed.
    pub fn commit(mut self) -> Result<()> {
        let path = std::mem::take(&mut self.path);
        self.finish().map_err(Error::io(path))
    }

    fn finish(&mut self) -> io::Result<()> {
        match &mut self.to {
            Target::Device(file) => file.flush(),
            Target::File { path, temporary } => {
                let Some(file) = temporary.as_ref() else { return Ok(()) };
                attempt(Operation::Sync)?;
                file.as_file().sync_all()?;
                attempt(Operation::Rename)?;
                if let Some(file) = temporary.take() {
                    file.persist(&*path)?;
                }
                // The new name is on the disk only when the folder is.
                sync(folder_of(path))
            }
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        attempt(Operation::Write)?;
        let bytes = &bytes[..writable(bytes.len())];
        match &mut self.to {
            Target::Device(file) => file.write(bytes),
            Target::File { temporary: Some(file), .. } => file.as_file_mut().write(bytes),
            Target::File { temporary: None, .. } => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(any(test, feature = "fault-injection"))]
impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Target::File { temporary: Some(file), .. } = &mut self.to
            && super::faults::is_dead()
        {
            // A process that was killed removes nothing.
            file.disable_cleanup(true);
        }
    }
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        attempt(Operation::Open)?;
        match fs::metadata(path) {
            Ok(found) if found.is_file() => {
                let path = fs::canonicalize(path)?;
                let temporary = temporary(&path, Some(found.permissions()))?;
                Ok(Self::File { path, temporary: Some(temporary) })
            }
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => Ok(Self::Device(File::options().write(true).open(path)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = followed(path)?;
                let temporary = temporary(&path, None)?;
                Ok(Self::File { path, temporary: Some(temporary) })
            }
            Err(error) => Err(error),
        }
    }
}

/// The name at the end of symbolic links to a file that does not exist yet.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(next) => path = folder_of(&path).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A locked temporary file beside `path`, with the permissions of the file that it replaces.
fn temporary(path: &Path, permissions: Option<fs::Permissions>) -> io::Result<NamedTempFile> {
    let mut prefix = path.file_name().unwrap_or_default().to_os_string();
    prefix.push(".");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(TEMPORARY).rand_bytes(12);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // From the beginning, so that nobody reads what only the owner may. The umask applies to a new file.
        let mode = permissions.as_ref().map_or(0o666, PermissionsExt::mode);
        builder.permissions(fs::Permissions::from_mode((mode & 0o777) | 0o600));
    }
    #[cfg(not(unix))]
    let _ = permissions;
    for _ in 0..ATTEMPTS {
        let file = builder.tempfile_in(folder_of(path)).map_err(without_path)?;
        // Another process may remove it between the two steps. Where files cannot be locked, none is taken for stale.
        let taken = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
        if taken || !file.path().exists() {
            continue;
        }
        #[cfg(unix)]
        if let Some(permissions) = permissions {
            file.as_file().set_permissions(permissions)?;
        }
        return Ok(file);
    }
    Err(io::Error::other("temporary files are removed by another process"))
}

/// [`remove_stale`] in the folder of the file at `path`.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_stale_beside(path: &Path) -> Result<()> {
    remove_stale(folder_of(path))
}

/// The error of the system inside one of `tempfile`, which names the temporary file.
fn without_path(error: io::Error) -> io::Error {
    let system =
        error.get_ref().and_then(|error| error.source()?.downcast_ref::<io::Error>()?.raw_os_error());
    system.map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Whether a file of this name is a temporary one of phalanx.
#[must_use]
pub fn is_temporary(name: &OsStr) -> bool {
    name.to_string_lossy().ends_with(TEMPORARY)
}

/// Removes the temporary files that dead processes left behind in a folder, if there is such a folder. Those of living ones are
/// locked, and stay.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_stale(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::io(folder))?;
        // The kind of the entry itself: a link with such a name is not followed.
        if !is_temporary(&entry.file_name()) || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
        if file.try_lock().is_ok() {
            super::remove_file(&path)?;
        }
    }
    Ok(())
}
