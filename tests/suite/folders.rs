//! The trainer program replaces and removes nothing that it did not make, and does not let two processes write one run.

use std::path::Path;
use std::process::Stdio;

use crate::common::program::{DEMO, SMALL, Workplace, columns, contents, refused, succeeded, wait_for};

#[test]
fn folders_of_others_are_left_alone() {
    let place = Workplace::new();
    let mine = place.path("mine");
    std::fs::create_dir_all(mine.join("checkpoints")).unwrap();
    std::fs::create_dir_all(mine.join("unfinished")).unwrap();
    for name in [
        "checkpoints/a",
        "unfinished/b",
        "equity.csv",
        "trades.csv",
        "report.html",
        "metrics.json",
        "training.json",
    ] {
        std::fs::write(mine.join(name), "mine").unwrap();
    }
    let before = contents(&mine);
    let wanted = ["mine is not empty and holds no run of phalanx", "nothing was written", "--out"];
    for more in [&[] as &[&str], &["--force"]] {
        refused(&place.train(DEMO, "mine", more), &wanted);
        assert_eq!(contents(&mine), before);
    }
    refused(&place.run(&["train", "--data", DEMO, "--out", "mine", "--resume"]), &wanted);
    place.trained("run");
    let run = contents(&place.path("run"));
    refused(&place.backtest(DEMO, "run", &["--out", "mine"]), &wanted);
    assert_eq!((contents(&mine), contents(&place.path("run"))), (before, run));

    // Inside a run, what the user put there under our names stays too.
    let report = place.path("run/report.html");
    std::fs::write(&report, "mine").unwrap();
    refused(&place.backtest(DEMO, "run", &[]), &["report.html was not written by phalanx", "move it"]);
    assert_eq!(std::fs::read(&report).unwrap(), b"mine");
    succeeded(&place.train(DEMO, "run", &["--force", "--seed", "4"]));
    assert_eq!(std::fs::read(&report).unwrap(), b"mine");
}

#[test]
fn a_run_of_a_version_without_markers_is_used_and_replaced() {
    let place = Workplace::new();
    place.trained("run");
    let marker = place.path("run/phalanx-run.json");
    std::fs::remove_file(&marker).unwrap();
    std::fs::remove_file(place.path("run/phalanx.lock")).unwrap();
    let before = contents(&place.path("run"));
    succeeded(&place.backtest(DEMO, "run", &["--out", "elsewhere"]));
    assert_eq!(contents(&place.path("run")), before, "reading marks nothing");
    refused(&place.train(DEMO, "run", &[]), &["holds a run already"]);
    succeeded(&place.backtest(DEMO, "run", &[]));
    assert!(marker.exists());
    succeeded(&place.train(DEMO, "run", &["--force"]));
    assert!(!place.path("run/report.html").exists(), "of the run before");
}

#[test]
fn two_processes_do_not_write_one_run() {
    let place = Workplace::new();
    place.trained("run");
    let long = ["--force", "--set", "mappo.iterations=100000", "--set", "checkpoints.every=1"];
    let start = [&["train", "--data", DEMO, "--out", "run"] as &[&str], &SMALL, &long].concat();
    let mut first = place.command(&start).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&mut first, || {
        place.path("run/unfinished/checkpoints/iteration-000000001.safetensors").exists()
    });
    let holder = format!("process {} (trainer train)", first.id());
    let wanted = ["run is in use by", &holder, "--out"];
    refused(&place.train(DEMO, "run", &[]), &wanted);
    refused(&place.train(DEMO, "run", &["--force"]), &wanted);
    refused(&place.run(&["train", "--data", DEMO, "--out", "run", "--resume"]), &wanted);
    refused(&place.backtest(DEMO, "run", &[]), &wanted);
    // The old run is still there to be traded.
    succeeded(&place.backtest(DEMO, "run", &["--out", "elsewhere"]));
    first.kill().unwrap();
    first.wait().unwrap();
    // The system released the lock.
    refused(&place.train(DEMO, "run", &[]), &["holds a run already"]);
    succeeded(&place.backtest(DEMO, "run", &[]));
    succeeded(&place.train(DEMO, "run", &["--force"]));
}

#[test]
fn of_simultaneous_starts_one_trains() {
    let place = Workplace::new();
    let start = |seed: &str| {
        let arguments =
            [&["train", "--data", DEMO, "--out", "run", "--seed", seed] as &[&str], &SMALL].concat();
        place.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children = ["1", "2", "3"].map(start);
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    let won: Vec<usize> = (0..3).filter(|at| outputs[*at].status.success()).collect();
    assert_eq!(won.len(), 1, "{outputs:?}");
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let said = String::from_utf8_lossy(&output.stderr);
        let known = ["in use by", "holds a run already", "is being written by another process"];
        assert!(known.iter().any(|text| said.contains(text)), "{said}");
    }
    let settings = std::fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(settings.contains(&format!("seed = {}", won[0] + 1)), "{settings}");
    assert_eq!(columns(&place.path("run/metrics.csv"), "iteration"), [1.0, 2.0]);
}

fn indicators(place: &Workplace, data: &str, out: &str) -> std::process::Output {
    place.run(&["indicators", "--data", data, "--out", out, "--indicator", "rsi"])
}

#[test]
fn an_output_that_is_an_input_is_refused() {
    let place = Workplace::new();
    let bytes = std::fs::read(DEMO).unwrap();
    std::fs::create_dir(place.path("data")).unwrap();
    std::fs::write(place.path("data/a.csv.gz"), &bytes).unwrap();
    for (data, out) in [("data/a.csv.gz", "data/a.csv.gz"), ("data", "data/../data/a.csv.gz")] {
        refused(&indicators(&place, data, out), &["--out", "is one of the inputs", "a.csv.gz"]);
    }
    assert_eq!(std::fs::read(place.path("data/a.csv.gz")).unwrap(), bytes);
}

#[cfg(unix)]
#[test]
fn devices_pipes_links_and_permissions_stay() {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
    let place = Workplace::new();
    succeeded(&indicators(&place, DEMO, "plain.csv"));
    let wanted = std::fs::read(place.path("plain.csv")).unwrap();
    // A device like /dev/null, but in a folder where it could be replaced; making one takes root.
    let device = place.path("null");
    let made = std::process::Command::new("mknod").arg(&device).args(["c", "1", "3"]).output();
    let device = if made.is_ok_and(|output| output.status.success()) { device } else { "/dev/null".into() };
    succeeded(&indicators(&place, DEMO, device.to_str().unwrap()));
    assert!(std::fs::metadata(&device).unwrap().file_type().is_char_device());

    let fifo = place.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::read(fifo).unwrap()
    });
    succeeded(&indicators(&place, DEMO, "fifo"));
    assert!(reader.join().unwrap() == wanted);
    assert!(std::fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());

    std::fs::write(place.path("secret.csv"), "old").unwrap();
    std::fs::set_permissions(place.path("secret.csv"), std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("secret.csv", place.path("link.csv")).unwrap();
    succeeded(&indicators(&place, DEMO, "link.csv"));
    assert!(std::fs::symlink_metadata(place.path("link.csv")).unwrap().is_symlink());
    assert!(std::fs::read(place.path("secret.csv")).unwrap() == wanted);
    assert_eq!(std::fs::metadata(place.path("secret.csv")).unwrap().permissions().mode() & 0o777, 0o600);
    refused(&place.train(DEMO, "/dev/null", &[]), &["/dev/null is not a folder"]);
}

#[test]
fn temporary_files_of_dead_processes_go() {
    let place = Workplace::new();
    place.trained("run");
    let stale = |folder: &Path| folder.join("model.safetensors.AbCdEfGhIjKl.phalanx-tmp");
    for folder in [place.path("run"), place.path("run/checkpoints")] {
        std::fs::write(stale(&folder), "half").unwrap();
    }
    std::fs::write(place.path("run/mine.tmp"), "mine").unwrap();
    succeeded(&place.backtest(DEMO, "run", &[]));
    assert!(!stale(&place.path("run")).exists() && !stale(&place.path("run/checkpoints")).exists());
    assert!(place.path("run/mine.tmp").exists());
}
