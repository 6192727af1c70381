//! Signals, closed pipes, full disks, and signs of life.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::common::program::{DEMO, SMALL, Workplace, columns, succeeded, wait_for};

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn an_interrupted_training_saves_a_checkpoint_and_ends_with_the_same_bytes() {
    let place = Workplace::new();
    // No checkpoints otherwise.
    let sets = ["mappo.iterations=120", "checkpoints.every=0", "evaluation.every=7"];
    let sets = sets.map(|set| ["--set", set]).concat();
    let start = |out| [&["train", "--data", DEMO, "--out", out] as &[&str], &SMALL, &sets].concat();
    succeeded(&place.run(&start("whole")));
    let mut arguments = start("a run");
    for (name, status) in [("-INT", 130), ("-TERM", 143)] {
        let metrics = place.path("a run/unfinished/metrics.csv");
        let lines = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
        let before = lines();
        let mut child =
            place.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for(&mut child, || lines() > before + 3);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{said}");
        let iteration = columns(&metrics, "iteration").len();
        assert!(
            iteration < 120 && said.contains(&format!("Interrupted after iteration {iteration} of 120")),
            "{said}"
        );
        assert!(said.contains("train --resume --data") && said.contains("--out 'a run'"), "{said}");
        arguments = vec!["train", "--data", DEMO, "--out", "a run", "--resume"];
    }
    let output = place.run(&arguments);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Resumed   from iteration"));
    let model = |out: &str| std::fs::read(place.path(out).join("model.safetensors")).unwrap();
    assert!(model("whole") == model("a run"), "the same bytes");
    assert_eq!(columns(&place.path("a run/metrics.csv"), "iteration").len(), 120);
}

/// A training whose first iteration takes minutes.
fn endless(place: &Workplace) -> Child {
    let sets = ["mappo.num_envs=4", "mappo.rollout_steps=65536", "mappo.hidden=[64]", "mappo.iterations=9"];
    let sets = sets.map(|set| ["--set", set]).concat();
    let arguments = [&["train", "--data", DEMO, "--out", "run"] as &[&str], &sets].concat();
    place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[cfg(unix)]
#[test]
fn a_long_iteration_gives_signs_of_life_and_a_second_signal_ends_it() {
    let place = Workplace::new();
    let mut child = endless(&place);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut last, mut silences) = (Instant::now(), Vec::new());
    let mut signs = 0;
    for line in lines.by_ref() {
        let line = line.unwrap();
        silences.push(last.elapsed());
        last = Instant::now();
        signs += usize::from(line.starts_with("Working   iteration 1 of 9"));
        if signs == 2 {
            break;
        }
    }
    // The second one comes after four seconds; a busy machine is granted as much again.
    let [before @ .., second] = silences.as_slice() else { panic!("no line") };
    assert!(before.iter().all(|silence| *silence < Duration::from_secs(4)), "{silences:?}");
    assert!(*second < Duration::from_secs(8), "{silences:?}");
    let start = Instant::now();
    signal(&child, "-INT");
    assert!(lines.any(|line| line.unwrap().starts_with("Stopping  after this iteration")));
    // An echo of the first one.
    signal(&child, "-INT");
    std::thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none(), "the first signal waits for the iteration");
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // The iteration would take minutes.
    assert!(start.elapsed() < Duration::from_secs(30));
}

/// Standard error without the signs of life that a slow machine gives.
#[cfg(target_os = "linux")]
fn said(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| !line.starts_with("Working   ")).collect::<Vec<_>>().join("\n")
}

#[cfg(target_os = "linux")]
#[test]
fn closed_pipes_are_quiet_and_full_disks_are_errors() {
    let place = Workplace::new();
    place.trained("run");
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    // The reader is gone before the program starts.
    let closed = || std::io::pipe().unwrap().1;
    let commands: [&[&str]; 4] = [
        &["doctor"],
        &["--help"],
        &["indicators", "--data", DEMO, "--out", "out.csv", "--indicator", "rsi"],
        &["backtest", "--run", "run", "--data", DEMO, "--from", "2012-06-01"],
    ];
    for arguments in commands {
        let output = place.command(arguments).stdout(closed()).output().unwrap();
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""), "{arguments:?}");
        let output = place.command(arguments).stdout(full()).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains("No space left"), "{said}");
    }
    let train = |out| [&["train", "--data", DEMO, "--out", out] as &[&str], &SMALL].concat();
    let output = place.command(&train("quiet")).stderr(closed()).stdout(closed()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    // The model is worth more than the lines about it.
    let output = place.command(&train("full")).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let model = |out: &str| std::fs::read(place.path(out).join("model.safetensors")).unwrap();
    assert!(model("quiet") == model("full") && !place.path("full/unfinished").exists());
    // An invalid command with nobody to hear it.
    for arguments in [&["backtest", "--run", "none", "--data", DEMO] as &[&str], &["dance"]] {
        for stderr in [Stdio::from(closed()), full().into()] {
            let status = place.command(arguments).stderr(stderr).status().unwrap();
            assert!(matches!(status.code(), Some(1 | 2)), "{arguments:?}: {status}");
        }
    }
}

#[test]
fn logs_in_files_have_no_colours_and_no_escapes_of_the_input() {
    let place = Workplace::new();
    place.trained("run");
    let symbol = "A\u{1b}[31mred\u{7}";
    let data =
        place.write("bad.csv", &format!("date,symbol,open,high,low,close\n2020-01-02,{symbol},1,x,1,1\n"));
    let mut output = place.backtest(&data, "run", &[]);
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.trim_end().chars().all(|character| !character.is_control()), "{said:?}");
    // A warning of the library.
    let model = place.path("run/model.safetensors");
    let log = ["doctor", "--adapter", "nosuch"];
    output = place.command(&log).env("RUST_LOG", "debug").output().unwrap();
    assert!(!output.stderr.contains(&0x1b), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(model.exists());
}
