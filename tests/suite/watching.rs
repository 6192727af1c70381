//! `watch`, `train --dashboard`, `train --jsonl` and events for TensorBoard.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::common::program::{DEMO, SMALL, Workplace, columns, refused, rows, succeeded, wait_for};
use crate::common::screen_picture::svg;
use crate::common::terminal::Terminal;

/// The columns of `metrics.csv`.
const HEADER: &str = "iteration,env_steps,seconds,steps_per_second,mean_return,episodes,mean_length,terminated,mean_reward,\
policy_loss,value_loss,entropy,approx_kl,clip_fraction,actor_grad_norm,critic_grad_norm,learning_rate,value_mean,value_deviation,\
skipped_updates,epochs,running_return,explained_variance,active_fraction,evaluation,evaluation_sampled,loss_scale,rollout_seconds,\
values_seconds,update_seconds,gpu_memory_bytes,host_memory_bytes\n";

/// A finished run of 200 iterations whose metrics are formulas, so that the screen is always the same.
fn finished(place: &Workplace, name: &str) {
    let run = place.path(name);
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join("config.toml"), "[mappo]\niterations = 200\n").unwrap();
    let mut text = HEADER.to_string();
    for n in 1..=200u32 {
        let at = f64::from(n) / 200.0;
        // A triangle wave of decreasing height.
        let wave = (f64::from((n + 10) % 40) - 20.0).abs() / 20.0 * (1.0 - at);
        let every = |period: u32, value: f64| {
            if n.is_multiple_of(period) { value.to_string() } else { String::new() }
        };
        let numbers = [2048.0 * f64::from(n), 0.5 * f64::from(n), 4096.0];
        let numbers = numbers.map(|number| number.to_string()).join(",");
        let (evaluation, sampled) = (every(10, at * at), every(10, at * at - 0.25));
        let phases = [0.3 - 0.1 * at, 0.05, 0.15 + 0.1 * at].map(|seconds| every(20, seconds)).join(",");
        writeln!(
            text,
            "{n},{numbers},{},16,128,0,0.01,{},{},{},{},{},{},{},0.0005,0,1,0,4,{},{},1,{evaluation},{sampled},65536,{phases},{},{}",
            2.0 * at - 1.0 + wave,
            0.01 * wave - 0.02 * at,
            0.5 * (1.0 - at) + 0.1,
            1.0986 - 0.5 * at,
            0.004 * wave,
            0.1 * wave,
            0.3 + wave,
            2.0 - at,
            2.0 * at - 1.0,
            at / (0.2 + at),
            41_943_040 + u64::from(n / 100) * 8_388_608,
            300_000_000 + u64::from(n) * 100_000,
        )
        .unwrap();
    }
    std::fs::write(run.join("metrics.csv"), text).unwrap();
}

/// Waits until the screen is that of a file in `tests/fixtures/screens`.
#[track_caller]
fn same_as(name: &str, terminal: &mut Terminal) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/screens").join(name);
    if std::env::var_os("PHALANX_WRITE_SCREENS").is_some() {
        std::thread::sleep(Duration::from_secs(1));
        std::fs::write(&path, terminal.text()).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    // A frame may arrive in parts.
    for _ in 0..500 {
        if terminal.text() == wanted {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it is not as in {}:\n{}", path.display(), terminal.text());
}

#[test]
fn a_finished_run_is_shown_on_wide_and_narrow_terminals() {
    let place = Workplace::new();
    finished(&place, "run");
    let watch = ["watch", "--run", "run"];
    let mut wide = Terminal::run(&place, &watch, (100, 30));
    wide.wait(&["finished", "Return mean", "q: quit"]);
    same_as("return-100x30.txt", &mut wide);
    wide.press("\t");
    wide.wait(&["Policy loss", "q: quit"]);
    same_as("losses-100x30.txt", &mut wide);
    wide.press("\t3");
    wide.wait(&["Actor gradient norm"]);
    // The arrow to the right.
    wide.press("\x1b[C");
    wide.wait(&["Host memory", "q: quit"]);
    same_as("machine-100x30.txt", &mut wide);
    wide.press("q");
    assert_eq!(wide.end(), (0, String::new()));

    let mut narrow = Terminal::run(&place, &watch, (40, 12));
    narrow.wait(&["finished", "Return mean", "1 of 4"]);
    same_as("return-40x12.txt", &mut narrow);
    // Down, and the fourth view.
    narrow.press("4\x1b[B");
    narrow.wait(&["Time rollout", "2 of 4"]);
    same_as("machine-40x12.txt", &mut narrow);
    narrow.resize((20, 4));
    narrow.wait(&["Terminal too small:", "20x4"]);
    narrow.resize((100, 30));
    narrow.wait(&["Host memory", "q: quit"]);
    same_as("machine-100x30.txt", &mut narrow);
    // Ctrl-C.
    narrow.press("\x03");
    assert_eq!(narrow.end(), (0, String::new()));
}

#[test]
fn a_running_training_is_shown_in_its_terminal_and_in_others() {
    let place = Workplace::new();
    let long =
        ["--set", "mappo.iterations=300", "--set", "checkpoints.every=0", "--set", "evaluation.every=50"];
    let start = |out, more: &[&'static str]| {
        [&["train", "--data", DEMO, "--out", out] as &[&str], &SMALL, &long, more].concat()
    };
    let untimed =
        start("whole", &["--set", "logging.phase_times_every=0", "--set", "logging.tensorboard=false"]);
    succeeded(&place.run(&untimed));
    assert!(!place.path("whole/events.out.tfevents.phalanx").exists());

    let timed = start("run", &["--set", "logging.phase_times_every=3", "--dashboard"]);
    let mut training = Terminal::run(&place, &timed, (100, 30));
    training.wait(&["iteration ", "/300", "q: stop", "Return mean"]);
    let mut watching = Terminal::run(&place, &["watch", "--run", "run"], (100, 30));
    watching.wait(&["training", "iteration ", "/300", "q: quit"]);
    watching.press("4");
    watching.wait(&["Time rollout", "GPU memory", "MiB", "Host memory"]);
    training.press("2");
    training.wait(&["Policy loss", "Approximate KL"]);
    training.press("4");
    training.wait(&["Steps/s now", "Time rollout"]);
    training.press("q");
    let (status, screen) = training.end();
    assert_eq!(status, 130, "{screen}");
    for wanted in ["Stopping  after this iteration", "Interrupted after iteration", "train --resume --data"] {
        assert!(screen.contains(wanted), "{screen}");
    }
    watching.wait(&["interrupted"]);
    // Ends with the same bytes, also when it was timed and shown.
    let resume = ["train", "--data", DEMO, "--out", "run", "--resume", "--dashboard"];
    let mut training = Terminal::run(&place, &resume, (80, 24));
    watching.wait(&["finished", "iteration 300/300"]);
    training.wait(&["Trained for 9600 environment steps"]);
    assert_eq!(training.end().0, 0);
    watching.press("q");
    assert_eq!(watching.end().0, 0);
    let model = |out: &str| std::fs::read(place.path(out).join("model.safetensors")).unwrap();
    assert!(model("whole") == model("run"), "the same bytes");
    let metrics = place.path("run/metrics.csv");
    let table = rows(&metrics);
    let at = table[0].iter().position(|name| name == "update_seconds").unwrap();
    let timed: Vec<_> = (1..table.len()).filter(|row| !table[*row][at].is_empty()).collect();
    assert_eq!(timed, (2..=300).step_by(3).collect::<Vec<_>>());
    assert!(columns(&metrics, "host_memory_bytes").iter().all(|bytes| *bytes > 1e6));
    assert_eq!(event_steps(&place.path("run/events.out.tfevents.phalanx")), columns(&metrics, "env_steps"));
}

/// The steps of a file of TensorBoard's events, after the event of its version.
pub fn event_steps(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<8>().unwrap();
        // A checksum before the data, and one after it.
        let (data, after) = after[4..].split_at(u64::from_le_bytes(*length) as usize);
        rest = &after[4..];
        // The wall time, then the step as a varint.
        assert_eq!(data[0], 0x09);
        if data[9] == 0x10 {
            let digits = data[10..].iter().take_while(|byte| **byte >= 0x80).count();
            let step = data[10..=10 + digits]
                .iter()
                .rev()
                .fold(0u64, |step, byte| step << 7 | u64::from(byte & 0x7f));
            steps.push(step as f64);
        }
    }
    steps
}

#[test]
fn without_a_terminal_there_are_lines_and_json() {
    let place = Workplace::new();
    finished(&place, "run");
    let output = place.run(&["watch", "--run", "run"]);
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 21, "{text}");
    assert!(text.starts_with("iteration   1/200  2.05k steps  4.10k steps/s  return -"), "{text}");
    let last = text.lines().last().unwrap();
    assert!(
        last.starts_with("iteration 200/200  410k steps") && last.contains("return 1.0000 (running 1.0000)"),
        "{last}"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("Finished  after iteration 200 of 200"));

    let json = [
        &["train", "--data", DEMO, "--out", "new"] as &[&str],
        &SMALL,
        &["--jsonl", "--set", "evaluation.every=2"],
    ];
    let output = place.run(&json.concat());
    succeeded(&output);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("Trained for 64 environment steps") && said.contains("The model is the policy"),
        "{said}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let objects: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let table = rows(&place.path("new/metrics.csv"));
    assert_eq!(objects.len(), 2);
    for (object, row) in objects.iter().zip(&table[1..]) {
        assert_eq!(object.as_object().unwrap().len(), row.len());
        for (name, field) in table[0].iter().zip(row) {
            let wanted = if field.is_empty() { None } else { Some(field.parse::<f64>().unwrap()) };
            assert_eq!(object[name].as_f64(), wanted, "{name}");
        }
    }
    assert!(objects[1]["evaluation"].is_f64() && objects[0]["evaluation"].is_null());

    let dashboard = [&["train", "--data", DEMO, "--out", "third", "--dashboard"] as &[&str], &SMALL];
    let output = place.run(&dashboard.concat());
    succeeded(&output);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no dashboard, because standard input or standard error is no terminal"), "{said}");
    assert!(said.contains("iteration 2/2  ") && !said.contains('\x1b'), "{said}");
}

#[test]
fn a_training_is_followed_in_lines_until_it_ends() {
    let place = Workplace::new();
    let start =
        [&["train", "--data", DEMO, "--out", "run"] as &[&str], &SMALL, &["--set", "mappo.iterations=60"]];
    let mut training =
        place.command(&start.concat()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&mut training, || place.path("run/unfinished/phalanx-run.json").exists());
    let output = place.run(&["watch", "--run", "run"]);
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.lines().count() >= 2 && text.lines().last().unwrap().starts_with("iteration 60/60"),
        "{text}"
    );
    assert!(training.wait().unwrap().success());
}

#[test]
fn what_cannot_be_watched_is_refused_with_a_sentence() {
    let place = Workplace::new();
    std::fs::create_dir(place.path("empty")).unwrap();
    for run in ["none", "empty"] {
        refused(&place.run(&["watch", "--run", run]), &[run, "holds no run", "metrics.csv"]);
    }
    finished(&place, "run");
    let metrics = place.path("run/metrics.csv");
    let good = std::fs::read_to_string(&metrics).unwrap();
    std::fs::write(&metrics, good.replacen("\n7,", "\nseven,", 1)).unwrap();
    refused(&place.run(&["watch", "--run", "run"]), &["metrics.csv:8: field 1: "]);
    std::fs::write(&metrics, &good).unwrap();

    // Damage, removal, and a signal while the screen is open.
    let watch = || Terminal::run(&place, &["watch", "--run", "run"], (100, 30));
    let mut terminal = watch();
    terminal.wait(&["iteration 200/200"]);
    std::fs::write(&metrics, format!("{good}201,half a line\n")).unwrap();
    let (status, screen) = terminal.end();
    assert_eq!(status, 1);
    let wanted = "metrics.csv:202: 2 fields, and the header has 32: the file is damaged";
    assert!(screen.starts_with("error: ") && screen.replace('\n', "").contains(wanted), "{screen}");

    std::fs::write(&metrics, &good).unwrap();
    let mut terminal = watch();
    terminal.wait(&["iteration 200/200"]);
    std::fs::rename(place.path("run"), place.path("elsewhere")).unwrap();
    let (status, screen) = terminal.end();
    assert!(
        status == 1 && screen.contains("error: run is gone: it was moved or removed"),
        "{status} {screen}"
    );

    std::fs::rename(place.path("elsewhere"), place.path("run")).unwrap();
    #[cfg(unix)]
    {
        let mut terminal = watch();
        terminal.wait(&["iteration 200/200"]);
        let id = terminal.child.process_id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert_eq!(terminal.end(), (143, String::new()));
    }
    refused(
        &place.train(DEMO, "new", &["--set", "logging.phase_times_every=-1"]),
        &["logging.phase_times_every"],
    );
    let both = place.train(DEMO, "new", &["--dashboard", "--jsonl"]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn the_dashboard_gives_the_terminal_back_at_errors_and_at_a_second_key() {
    let place = Workplace::new();
    let start = |sets: &[&'static str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        ["train", "--data", DEMO, "--out", "run", "--dashboard"].into_iter().chain(sets).collect::<Vec<_>>()
    };
    // Checkpoints cannot be saved any more.
    let sets = ["mappo.num_envs=4", "mappo.rollout_steps=8", "mappo.hidden=[8]", "mappo.iterations=100000"];
    let arguments = start(&[&sets as &[&str], &["checkpoints.every=100"]].concat());
    let mut training = Terminal::run(&place, &arguments, (80, 24));
    training.wait(&["Return mean"]);
    std::fs::remove_dir_all(place.path("run")).unwrap();
    let (status, screen) = training.end();
    assert!(status == 1 && screen.contains("error: ") && screen.contains("checkpoints"), "{status} {screen}");

    // An iteration of minutes.
    let sets = ["mappo.num_envs=4", "mappo.rollout_steps=65536", "mappo.hidden=[64]", "mappo.iterations=9"];
    let mut training = Terminal::run(&place, &start(&sets), (80, 24));
    training.wait(&["no iteration of 9 is complete yet", "no episode has ended yet"]);
    training.press("q");
    training.wait(&["Stopping  after this iteration"]);
    // Later than an echo of the first.
    std::thread::sleep(Duration::from_secs(1));
    training.press("\x03");
    let (status, screen) = training.end();
    assert!(status == 130 && screen.contains("Stopping  after this iteration"), "{status} {screen}");
}

/// With `PHALANX_RUN`, the folder of a run, it draws `docs/images/dashboard.svg`: `make pictures`.
#[test]
fn picture_of_the_dashboard() {
    let run = std::env::var("PHALANX_RUN").ok().map(|run| std::fs::canonicalize(run).unwrap());
    let place = Workplace::new();
    match &run {
        #[cfg(unix)]
        Some(run) => std::os::unix::fs::symlink(run, place.path("demo")).unwrap(),
        _ => place.trained("demo"),
    }
    let mut terminal = Terminal::run(&place, &["watch", "--run", "demo"], (120, 32));
    terminal.wait(&["Return mean", "q: quit"]);
    // The whole screen has been written once it stays the same.
    std::thread::sleep(Duration::from_millis(300));
    let picture = terminal
        .with(|screen| svg(screen, "The dashboard of a training: curves of returns and of the critic"));
    terminal.press("q");
    assert_eq!(terminal.end().0, 0);
    assert!(picture.len() < 200_000, "{} bytes", picture.len());
    for text in ["<svg", "</svg>", "Return", "q: quit"] {
        assert!(picture.contains(text), "{text}");
    }
    if run.is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/images/dashboard.svg");
        std::fs::write(path, picture).unwrap();
    }
}
