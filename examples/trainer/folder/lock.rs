//! Keeps a second process out of a folder. The system releases the lock when its process ends, however it ends.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};

const NAME: &str = "phalanx.lock";

/// Longest text of a lock that is read, in bytes.
const MOST_TEXT: u64 = 200;

/// A lock on a folder, until it is dropped.
#[derive(Debug)]
pub struct Lock(File);

/// Whether this is the name of a lock.
pub fn is_lock(name: &OsStr) -> bool {
    name == NAME
}

impl Lock {
    /// Locks a folder for `command`.
    ///
    /// # Errors
    /// If another process has locked it, with that process.
    pub fn take(folder: &Path, command: &str) -> Result<Self> {
        let path = folder.join(NAME);
        if path.symlink_metadata().is_ok_and(|kind| !kind.is_file()) {
            bail!("{} was not made by phalanx: move it elsewhere", path.display());
        }
        let mut options = File::options();
        // Not truncated: it names the process that holds it.
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).with_context(|| path.display().to_string())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Windows lets nobody read what is locked.
                let _ = (&file).take(MOST_TEXT).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process",
                    named => named,
                };
                bail!(
                    "{} is in use by {holder}: wait until it has ended, or choose another folder with --out",
                    folder.display()
                );
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) => {
                crate::console::note!(
                    "warning: {} could not be locked ({error}): let no other process write to this folder",
                    path.display()
                );
            }
        }
        let text = format!("process {} (trainer {command})", std::process::id());
        // Only for the message to others: a full disk is no reason to stop.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        Ok(Self(file))
    }
}

/// Whether a process seems to hold the lock of a folder, without touching the lock: it writes its name into the file and removes it at
/// its end. The name of a process that was killed stays.
pub fn seems_held(folder: &Path) -> bool {
    match File::open(folder.join(NAME)) {
        Ok(file) => match file.take(MOST_TEXT).read(&mut [0]) {
            Ok(bytes) => bytes > 0,
            // Windows lets nobody read what is locked.
            Err(_) => true,
        },
        Err(_) => false,
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file stays: a process that waits for it must not lock one that has no name any more.
        let _ = self.0.set_len(0);
    }
}
