use std::io::Write;
use std::path::Path;

use super::faults::{Fault, KINDS, Kind, Operation};
use super::*;

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn replaces_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    write_atomically(&path, b"one").unwrap();
    write_atomically(&path, b"two").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    // A folder cannot be replaced by a file.
    let occupied = folder.path().join("occupied");
    std::fs::create_dir(&occupied).unwrap();
    assert!(write_atomically(&occupied, b"x").unwrap_err().to_string().contains("occupied"));
    let missing = folder.path().join("none").join("a.txt");
    let error = write_atomically(&missing, b"x").unwrap_err().to_string();
    assert_eq!(error.matches("none").count(), 1, "{error}");
    assert!(!error.contains("phalanx-tmp"), "{error}");
    let mut given_up = AtomicFile::create(&path).unwrap();
    given_up.write_all(b"three").unwrap();
    drop(given_up);
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    assert_eq!(names(folder.path()), ["a.txt", "occupied"]);
}

#[test]
fn threads_may_write_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let (path, folder) = (&path, folder.path());
            scope.spawn(move || {
                for _ in 0..20 {
                    write_atomically(path, &[thread; 4096]).unwrap();
                    let found = std::fs::read(path).unwrap();
                    assert!(found.len() == 4096 && found.iter().all(|byte| *byte == found[0]));
                    // Takes no temporary file of a living thread for a stale one.
                    remove_stale(folder).unwrap();
                }
            });
        }
    });
    assert_eq!(names(folder.path()), ["a.bin"]);
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
    for kept in [0o640, 0o600, 0o444] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(kept)).unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        let temporary = names(folder.path()).into_iter().find(|name| name.ends_with("phalanx-tmp")).unwrap();
        assert_eq!(mode(&folder.path().join(temporary)), kept, "from the beginning");
        file.write_all(b"two").unwrap();
        file.commit().unwrap();
        assert_eq!(mode(&path), kept);
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_devices_are_written_to() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("inner")).unwrap();
    std::fs::write(path("inner/kept.txt"), "old").unwrap();
    symlink("inner/kept.txt", path("link")).unwrap();
    symlink("link", path("chain")).unwrap();
    symlink("inner/new.txt", path("dangling")).unwrap();
    symlink("circle", path("circle")).unwrap();
    write_atomically(&path("chain"), b"new").unwrap();
    write_atomically(&path("dangling"), b"first").unwrap();
    assert_eq!(std::fs::read(path("inner/kept.txt")).unwrap(), b"new");
    assert_eq!(std::fs::read(path("inner/new.txt")).unwrap(), b"first");
    for link in ["link", "chain", "dangling"] {
        assert!(std::fs::symlink_metadata(path(link)).unwrap().is_symlink(), "{link}");
    }
    assert!(write_atomically(&path("circle"), b"x").is_err());
    write_atomically(Path::new("/dev/null"), b"gone").unwrap();
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    if cfg!(target_os = "linux") {
        let error = write_atomically(Path::new("/dev/full"), b"gone").unwrap_err().to_string();
        assert!(error.contains("/dev/full"), "{error}");
    }
    let fifo = path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::read(fifo).unwrap()
    });
    write_atomically(&fifo, b"through").unwrap();
    assert_eq!(reader.join().unwrap(), b"through");
    assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
}

#[test]
fn temporary_files_of_dead_processes_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    let living = AtomicFile::create(&path).unwrap();
    let fault = Fault::inject(Kind::Killed, 1);
    assert!(write_atomically(&path, b"never").is_err());
    drop(fault);
    std::fs::write(folder.path().join("mine.tmp"), "not of phalanx").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("mine.tmp", folder.path().join("link.phalanx-tmp")).unwrap();
    let before = names(folder.path()).len();
    remove_stale(folder.path()).unwrap();
    assert_eq!(names(folder.path()).len(), before - 1, "{:?}", names(folder.path()));
    assert!(folder.path().join("mine.tmp").exists());
    living.commit().unwrap();
    assert!(path.exists());
    remove_stale(&folder.path().join("none")).unwrap();
}

#[test]
fn a_file_is_old_or_new_after_every_fault() {
    let long = vec![7u8; 100_000];
    let mut injected = 0;
    for kind in KINDS {
        for at in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.bin");
            write_atomically(&path, b"old").unwrap();
            let fault = Fault::inject(kind, at);
            let result = write_atomically(&path, &long);
            let (struck, operations) = (fault.struck(), fault.operations());
            drop(fault);
            if !struck {
                break;
            }
            injected += 1;
            let found = std::fs::read(&path).unwrap();
            assert!(found == b"old" || found == long, "{kind:?} {at}: {} bytes", found.len());
            if kind == Kind::ShortWrite {
                result.unwrap();
                assert_eq!(found, long);
            } else if kind != Kind::Full {
                // The rename is the last but one: a failed flush of the folder leaves the new file.
                assert!(result.is_err(), "{kind:?} {operations:?}");
                assert_eq!(found == long, operations.get(at.wrapping_sub(1)) == Some(&Operation::Rename));
            }
            remove_stale(folder.path()).unwrap();
            assert_eq!(names(folder.path()), ["a.bin"], "{kind:?} {at}");
        }
    }
    assert!(injected >= 5 * 5, "{injected}");
}
