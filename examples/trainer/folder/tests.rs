use std::collections::BTreeMap;

use phalanx::files::faults::{Fault, KINDS, Kind, Operation};
use phalanx::files::write_atomically;
use tempfile::TempDir;

use super::*;

fn open(path: &Path) -> Owned {
    Owned::open(path, "test").unwrap().unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T>, wanted: &[&str]) {
    let error = format!("{:#}", result.unwrap_err());
    for text in wanted {
        assert!(error.contains(text), "`{text}` is missing in {error}");
    }
}

fn fill(staging: &Folder, text: &str) {
    for name in RUN.into_iter().chain([EVENTS]) {
        write_atomically(&staging.path().join(name), text.as_bytes()).unwrap();
    }
}

fn checkpoint(folder: &Folder, iteration: u32, text: &str) {
    create_folders(&folder.checkpoints()).unwrap();
    let name = format!("iteration-{iteration:09}.safetensors");
    write_atomically(&folder.checkpoints().join(name), text.as_bytes()).unwrap();
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// All files below a folder with their texts, but the lock.
fn contents(folder: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            if entry.is_dir() {
                open.push(entry);
            } else if !lock::is_lock(name.as_ref()) {
                all.insert(name, text(&entry));
            }
        }
    }
    all
}

#[test]
fn a_run_stays_intact_until_the_next_one_is_complete() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    assert!(Owned::open(&path, "test").unwrap().is_none());
    let mut owned = Owned::create(&path, "test").unwrap();
    let folder = owned.folder().clone();
    let staging = owned.stage(false).unwrap();
    fill(&staging, "first");
    owned.publish(&staging).unwrap();
    let results = owned.stage_results(Some(&owned.folder().clone())).unwrap();
    for name in RESULTS {
        std::fs::write(results.path().join(name), "results").unwrap();
    }
    owned.publish_results(&results).unwrap();
    assert_eq!((text(&folder.report()), text(&folder.model())), ("results".into(), "first".into()));
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    refused(owned.stage(false), &["config.toml", "--force"]);
    let staging = owned.stage(true).unwrap();
    fill(&staging, "second");
    std::fs::remove_file(staging.summary()).unwrap();
    let before = contents(&path);
    refused(owned.publish(&staging), &["training.json is missing: nothing was published"]);
    assert_eq!(contents(&path), before);
    fill(&staging, "second");
    owned.publish(&staging).unwrap();
    assert_eq!(text(&folder.model()), "second");
    assert!(!folder.report().exists() && !staging.path().exists(), "the old results go");
    assert_eq!(text(&path.join("notes.txt")), "mine");
}

#[test]
fn a_folder_of_others_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("mine");
    std::fs::create_dir_all(path.join("checkpoints")).unwrap();
    for name in ["training.json", "report.html", "checkpoints/iteration-000000001.safetensors"] {
        std::fs::write(path.join(name), "mine").unwrap();
    }
    let before = contents(&path);
    refused(Owned::open(&path, "test"), &["not empty", MARKER, "nothing was written", "--out"]);
    refused(Owned::create(&path, "test"), &["not empty"]);
    assert_eq!(contents(&path), before);
    assert!(!path.join("phalanx.lock").exists());
    let file = parent.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    refused(Owned::create(&file, "test"), &["is not a folder"]);
    // An empty folder is taken.
    let empty = parent.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(Owned::open(&empty, "test").unwrap().is_none());
    Owned::create(&empty, "test").unwrap();
}

#[test]
fn files_of_others_in_a_folder_of_ours_are_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    let mut owned = Owned::create(&path, "test").unwrap();
    let staging = owned.stage(false).unwrap();
    fill(&staging, "first");
    checkpoint(&staging, 1, "first");
    owned.publish(&staging).unwrap();
    std::fs::write(path.join("report.html"), "mine").unwrap();
    std::fs::write(path.join("checkpoints/notes"), "mine").unwrap();
    std::fs::write(path.join("checkpoints/iteration-000000002.safetensors"), "mine").unwrap();
    refused(
        owned.stage_results(Some(&owned.folder().clone())),
        &["report.html was not written by phalanx", "move it"],
    );
    let staging = owned.stage(true).unwrap();
    fill(&staging, "second");
    checkpoint(&staging, 2, "second");
    std::fs::write(staging.path().join("diary"), "mine").unwrap();
    refused(owned.publish(&staging), &["iteration-000000002.safetensors was not written by phalanx"]);
    assert_eq!(text(&owned.folder().model()), "first");
    std::fs::remove_file(path.join("checkpoints/iteration-000000002.safetensors")).unwrap();
    owned.publish(&staging).unwrap();
    let after = contents(&path);
    for (name, wanted) in [
        ("report.html", "mine"),
        ("checkpoints/notes", "mine"),
        ("unfinished/diary", "mine"),
        ("model.safetensors", "second"),
        ("checkpoints/iteration-000000002.safetensors", "second"),
    ] {
        assert_eq!(after[name], wanted, "{name}");
    }
    assert!(!after.contains_key("checkpoints/iteration-000000001.safetensors"));
    drop(owned);
    refused(open(&path).stage(true), &["unfinished holds files that phalanx did not write"]);
}

#[test]
fn results_and_copies_are_not_lost_by_accident() {
    let parent = tempfile::tempdir().unwrap();
    let mut results = Owned::create(&parent.path().join("results"), "test").unwrap();
    let run = Folder::new(&parent.path().join("other"));
    let staging = results.stage_results(Some(&run)).unwrap();
    for name in RESULTS {
        std::fs::write(staging.path().join(name), "results").unwrap();
    }
    results.publish_results(&staging).unwrap();
    refused(results.vacant(false), &["holds the results of a backtest (metrics.json)", "--force"]);
    results.vacant(true).unwrap();
    results.stage_results(Some(&run)).unwrap();

    let path = parent.path().join("run");
    let mut owned = Owned::create(&path, "test").unwrap();
    let staging = owned.stage(false).unwrap();
    fill(&staging, "first");
    // A complete model that could not be published.
    refused(owned.vacant(false), &["holds an unfinished run"]);
    checkpoint(&staging, 1, "first");
    owned.publish(&staging).unwrap();
    let first = owned.folder().run_number();
    refused(owned.stage_results(Some(results.folder())), &["holds another run", "--out"]);
    let copy = path.join("unfinished.new");
    std::fs::create_dir(&copy).unwrap();
    std::fs::write(copy.join("config.toml"), "mine").unwrap();
    refused(owned.reopen(), &["unfinished.new holds files that phalanx did not write"]);
    assert_eq!(text(&copy.join("config.toml")), "mine");
    let staging = owned.stage(true).unwrap();
    fill(&staging, "first");
    owned.publish(&staging).unwrap();
    assert!(first.is_some() && owned.folder().run_number() != first, "the same files, another run");
}

#[cfg(unix)]
#[test]
fn links_in_a_run_are_not_followed() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    let elsewhere = parent.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::create_dir_all(&path).unwrap();
    let thesis = elsewhere.join("thesis.txt");
    std::fs::write(&thesis, "mine").unwrap();
    std::os::unix::fs::symlink(&thesis, path.join("phalanx.lock")).unwrap();
    refused(Owned::create(&path, "test"), &["phalanx.lock"]);
    assert_eq!(text(&thesis), "mine");
    std::fs::remove_file(path.join("phalanx.lock")).unwrap();
    let owned = Owned::create(&path, "test").unwrap();
    for name in ["unfinished", "checkpoints"] {
        std::os::unix::fs::symlink(&elsewhere, path.join(name)).unwrap();
        refused(owned.stage(true), &[name, "not a link"]);
        std::fs::remove_file(path.join(name)).unwrap();
    }
    assert_eq!(text(&thesis), "mine");
}

#[test]
fn a_marker_cannot_name_files_elsewhere() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    drop(Owned::create(&path, "test").unwrap());
    for name in [
        "../victim",
        "/etc/passwd",
        "checkpoints/../../victim",
        "notes.txt",
        "checkpoints/iteration-.safetensors",
    ] {
        let marker = serde_json::json!({"format": 1, "version": "x", "files": [name]});
        std::fs::write(path.join(MARKER), marker.to_string()).unwrap();
        refused(Owned::open(&path, "test"), &[MARKER, "`files` lists", name]);
    }
    std::fs::write(path.join(MARKER), r#"{"format": 2, "version": "9.0", "files": []}"#).unwrap();
    refused(Owned::open(&path, "test"), &["format 2", "9.0"]);
    std::fs::write(path.join(MARKER), "{").unwrap();
    refused(Owned::open(&path, "test"), &[MARKER]);
}

#[test]
fn a_second_process_is_kept_out() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    let owned = Owned::create(&path, "train").unwrap();
    // The same process, another handle: as another process.
    let wanted = [&format!("process {} (trainer train)", std::process::id()), "is in use by", "--out"];
    refused(Owned::open(&path, "backtest"), &wanted);
    refused(Owned::create(&path, "train"), &wanted);
    drop(owned);
    open(&path);
    assert_eq!(text(&path.join("phalanx.lock")), "", "names nobody");
}

#[test]
fn a_finished_run_is_reopened_only_to_train_it_further() {
    let parent = tempfile::tempdir().unwrap();
    let mut owned = Owned::create(&parent.path().join("run"), "test").unwrap();
    let folder = owned.folder().clone();
    let staging = owned.stage(false).unwrap();
    fill(&staging, "finished");
    checkpoint(&staging, 7, "state");
    assert_eq!(owned.resumable(true).unwrap().path(), staging.path(), "the interrupted run goes first");
    owned.publish(&staging).unwrap();
    refused(owned.resumable(false), &["no unfinished run", "--iterations"]);
    assert_eq!(owned.resumable(true).unwrap().path(), folder.path());
    let reopened = owned.reopen().unwrap();
    let state = "iteration-000000007.safetensors";
    assert_eq!(text(&reopened.checkpoints().join(state)), "state");
    assert_eq!(text(&reopened.metrics()), "finished");
    assert_eq!(text(&reopened.model()), "finished");
    assert!(folder.model().exists() && folder.checkpoints().join(state).exists());
    assert_eq!(owned.unfinished().unwrap().path(), reopened.path());
    owned.discard(&reopened);
    assert!(!reopened.path().exists());
    std::fs::remove_dir_all(folder.checkpoints()).unwrap();
    refused(owned.resumable(true), &["without checkpoints", "--init"]);
}

#[test]
fn an_unfinished_run_is_not_lost_by_accident() {
    let parent = tempfile::tempdir().unwrap();
    let owned = Owned::create(&parent.path().join("run"), "test").unwrap();
    refused(owned.unfinished(), &["no unfinished run"]);
    let staging = owned.stage(false).unwrap();
    std::fs::write(staging.settings(), "settings").unwrap();
    checkpoint(&staging, 1, "state");
    refused(owned.stage(false), &["--resume", "--force"]);
    assert_eq!(owned.unfinished().unwrap().settings(), staging.settings());
    assert!(!owned.stage(true).unwrap().checkpoints().exists());
}

#[test]
fn a_run_of_an_earlier_version_is_known_by_its_settings() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    let folder = Folder::new(&path.join("unfinished"));
    checkpoint(&folder, 1, "state");
    crate::settings::write_resolved(&folder.settings(), &crate::run::Settings::default()).unwrap();
    let owned = open(&path);
    assert_eq!(owned.unfinished().unwrap().path(), folder.path());
    refused(owned.vacant(false), &["--resume"]);
    assert!(path.join(MARKER).exists() && folder.path().join(MARKER).exists());
    // Neither a few settings nor files that only look like a run are one.
    let empty = Folder::new(&parent.path().join("empty"));
    create_folders(&empty.path().join("unfinished")).unwrap();
    for text in ["", "[data]\ngaps = \"drop\"\n"] {
        std::fs::write(empty.path().join("unfinished/config.toml"), text).unwrap();
        refused(Owned::open(empty.path(), "test"), &["not empty"]);
    }
    let other = Folder::new(&parent.path().join("other"));
    create_folders(other.path()).unwrap();
    fill(&other, "mine");
    refused(Owned::open(other.path(), "test"), &["not empty"]);
}

/// A temporary folder, in memory where possible: thousands of flushes take minutes on a disk.
pub fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A folder with a published run, its backtest and a file of the user's, and a complete staged run.
fn staged() -> (TempDir, PathBuf) {
    let parent = in_memory();
    let path = parent.path().join("run");
    let mut owned = Owned::create(&path, "test").unwrap();
    let staging = owned.stage(false).unwrap();
    fill(&staging, "old");
    checkpoint(&staging, 1, "old");
    checkpoint(&staging, 2, "old");
    owned.publish(&staging).unwrap();
    let results = owned.stage_results(Some(&owned.folder().clone())).unwrap();
    for name in RESULTS {
        std::fs::write(results.path().join(name), "old").unwrap();
    }
    owned.publish_results(&results).unwrap();
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    (parent, path)
}

/// The run in the folder, `old` or `new`, and nothing of the other.
fn whole(path: &Path) -> String {
    let mut all = contents(path);
    assert_eq!(all.remove("notes.txt").as_deref(), Some("mine"));
    let marker: Marker = serde_json::from_str(&all.remove(MARKER).unwrap()).unwrap();
    let staging = ["unfinished/", "unfinished.new/", "backtest.unfinished/"];
    all.retain(|name, _| !staging.iter().any(|folder| name.starts_with(folder)));
    let names: Vec<_> = all.keys().cloned().collect();
    assert!(marker.files.iter().eq(names.iter()), "{:?} and {names:?}", marker.files);
    let run = all["model.safetensors"].clone();
    for name in RUN {
        assert_eq!(all[name], run, "{name}");
    }
    // The new run was trained without events.
    assert_eq!(all.get(EVENTS).map(String::as_str), (run == "old").then_some("old"));
    let checkpoints: Vec<_> = names.iter().filter(|name| name.starts_with("checkpoints/")).collect();
    assert_eq!(checkpoints.len(), if run == "old" { 2 } else { 1 }, "{names:?}");
    assert!(checkpoints.iter().all(|name| all[*name] == run));
    run
}

/// Injects every fault at every operation of `work`, and checks what the next process finds.
fn survives(work: impl Fn(&mut Owned) -> Result<()>, check: impl Fn(&Path, &Result<()>)) -> (usize, usize) {
    let (mut injected, mut renames) = (0, 0);
    for kind in KINDS {
        for at in 0.. {
            let (_parent, path) = staged();
            let fault = Fault::inject(kind, at);
            let result = Owned::open(&path, "test").and_then(|owned| work(&mut owned.unwrap()));
            let (struck, operations) = (fault.struck(), fault.operations());
            drop(fault);
            if !struck {
                assert!(at > 30, "{operations:?}");
                result.unwrap();
                break;
            }
            injected += 1;
            renames += usize::from(kind == Kind::Killed && operations[at] == Operation::Rename);
            if kind == Kind::ShortWrite {
                result.as_ref().unwrap();
            }
            // The next process.
            drop(open(&path));
            check(&path, &result);
        }
    }
    (injected, renames)
}

#[test]
fn the_old_run_or_the_new_one_is_whole_after_every_fault() {
    let (injected, renames) = survives(
        |owned| {
            let staging = owned.stage(true)?;
            for name in RUN {
                write_atomically(&staging.path().join(name), b"new")?;
            }
            create_folders(&staging.checkpoints())?;
            write_atomically(&staging.checkpoints().join("iteration-000000003.safetensors"), b"new")?;
            owned.publish(&staging)
        },
        |path, result| {
            let found = whole(path);
            assert!(found == "new" || result.is_err(), "it claims to be published");
            assert_eq!(path.join("report.html").exists(), found == "old");
            assert!(!path.join("unfinished.done").exists());
            // Whatever happened, the next run can be trained.
            let mut owned = open(path);
            let staging = owned.stage(true).unwrap();
            fill(&staging, "next");
            owned.publish(&staging).unwrap();
            assert_eq!(text(&owned.folder().model()), "next");
        },
    );
    println!("{injected} faults, {renames} of them kills at renames");
    assert!(injected > 300 && renames >= 15, "{injected} {renames}");
}

#[test]
fn the_old_results_or_the_new_ones_are_whole_after_every_fault() {
    let (injected, renames) = survives(
        |owned| {
            let staging = owned.stage_results(Some(&owned.folder().clone()))?;
            for name in RESULTS {
                write_atomically(&staging.path().join(name), b"new")?;
            }
            owned.publish_results(&staging)
        },
        |path, result| {
            assert_eq!(whole(path), "old");
            let found = text(&path.join("report.html"));
            assert!(RESULTS.iter().all(|name| text(&path.join(name)) == found));
            assert!(found == "new" || result.is_err());
        },
    );
    println!("{injected} faults, {renames} of them kills at renames");
    assert!(injected > 150 && renames > 10, "{injected} {renames}");
}

#[test]
fn the_finished_run_is_whole_after_every_fault_of_reopening_it() {
    let (injected, renames) = survives(
        |owned| owned.reopen().map(drop),
        |path, _| {
            assert_eq!(whole(path), "old");
            let owned = open(path);
            if let Ok(staging) = owned.unfinished() {
                assert_eq!(staging.checkpoint_names().unwrap().len(), 2);
            }
            owned.reopen().unwrap();
        },
    );
    println!("{injected} faults, {renames} of them kills at renames");
    assert!(injected > 100 && renames > 5, "{injected} {renames}");
}
