//! Files that are either complete or absent.

use std::io::Write;
use std::path::Path;

use crate::{Error, Result};

/// Ending of the temporary files that [`write_atomically`] makes. A crash may leave one behind.
pub(crate) const TEMPORARY: &str = "tmp";

/// Writes `bytes` to a temporary file in the same folder, flushes it to the disk and renames it to `path`. A reader, or the
/// next start after a crash, finds either the old file or the new one, never a part of one. The name of the temporary file is
/// random, so threads and processes may write side by side. A file that is replaced keeps its permissions (Unix).
///
/// # Errors
/// [`Error::Io`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes).map_err(Error::io(path))
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut prefix = path.file_name().unwrap_or_default().to_os_string();
    prefix.push(".");
    let ending = format!(".{TEMPORARY}");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(&ending).rand_bytes(12);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The process's umask still applies, as to any new file.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    // Removed when dropped, unless it was renamed.
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    if let Ok(replaced) = std::fs::metadata(path) {
        file.as_file().set_permissions(replaced.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The new name is on the disk only when the folder is.
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        // A folder cannot be replaced by a file: the temporary file is removed again.
        let occupied = folder.path().join("occupied");
        std::fs::create_dir(&occupied).unwrap();
        assert!(write_atomically(&occupied, b"x").unwrap_err().to_string().contains("occupied"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let missing = folder.path().join("none").join("a.txt");
        assert!(write_atomically(&missing, b"x").unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn threads_may_write_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        write_atomically(path, &[thread; 4096]).unwrap();
                        let found = std::fs::read(path).unwrap();
                        assert!(found.len() == 4096 && found.iter().all(|byte| *byte == found[0]));
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_of_a_replaced_file_stay_and_new_files_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let [path, ordinary] = ["a.txt", "b.txt"].map(|name| folder.path().join(name));
        write_atomically(&path, b"one").unwrap();
        std::fs::write(&ordinary, b"one").unwrap();
        assert_eq!(mode(&path), mode(&ordinary));
        for kept in [0o640, 0o444] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(kept)).unwrap();
            write_atomically(&path, b"two").unwrap();
            assert_eq!(mode(&path), kept);
        }
    }
}
