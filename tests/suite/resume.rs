//! Interrupted and resumed runs end with the same bytes as uninterrupted ones.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use phalanx::env::communication::Task;
use phalanx::env::spread::Definition;
use phalanx::env::{Communication, CpuEnv, Environment, Outcome, Simulator, Spec, Spread};
use phalanx::gpu::Gpu;
use phalanx::mappo::{Algorithm, Config, Precision, Snapshots, Trainer};
use phalanx::mappo::{CriticInput, Sharing};
use phalanx::random::Stream;

use crate::common::program::{DEMO, SMALL, Workplace, columns, refused, succeeded, wait_for};
use crate::testing::unchecked_gpu;

fn config(precision: Precision) -> Config {
    let mut config = Config::on_policy_mpe();
    config.ppo.num_envs = 8;
    // Not a multiple of the episode length: rollouts end within episodes.
    config.ppo.rollout_steps = 10;
    config.ppo.epochs = 2;
    config.ppo.iterations = 6;
    config.network.hidden = vec![16];
    config.optimizer.learning_rate_decay = true;
    config.device.precision = precision;
    config
}

fn trainer(gpu: &Gpu, config: &Config) -> Trainer {
    Trainer::new(gpu, &Spread::new(Definition::Mpe2), config).unwrap()
}

fn train(trainer: &mut Trainer, until: u32) {
    trainer.train_until(until, |_| -> phalanx::Result<()> { Ok(()) }).unwrap();
}

/// Every setting with state between iterations.
fn configs() -> Vec<Config> {
    let mut all = config(Precision::F32);
    all.ppo.algorithm = Algorithm::Happo;
    // One subgroup of quads.
    all.ppo.num_envs = 32;
    all.ppo.epochs = 3;
    all.ppo.minibatches = 3;
    all.ppo.entropy_end = Some(0.0);
    all.ppo.target_kl = 1e-4;
    all.network.observation_norm = true;
    all.network.recurrent = true;
    all.network.chunk_length = 4;
    all.network.networks = Sharing::Separate;
    all.device.accumulation = 2;
    vec![config(Precision::F32), config(Precision::F16), all]
}

#[test]
fn a_resumed_run_ends_with_the_same_bytes() {
    let gpu = unchecked_gpu();
    let spread = Spread::new(Definition::Mpe2);
    configs().iter().for_each(|config| goes_on(&gpu, &spread, config));
    for (task, precision) in [(Task::SpeakerListener, Precision::F16), (Task::Reference, Precision::F32)] {
        let mut config = config(precision);
        config.network.networks = Sharing::Separate;
        goes_on(&gpu, &Communication::new(task), &config);
    }
    goes_on(&gpu, &CpuEnv::new("drift", Drift::default), &config(Precision::F32));
}

/// The critics read the global state of slot 0, which was uploaded in the rollout before.
#[test]
fn a_resumed_run_with_a_global_state_ends_with_the_same_bytes() {
    let gpu = unchecked_gpu();
    for precision in [Precision::F32, Precision::F16] {
        let observation_norm = precision == Precision::F16;
        let mut config = config(precision);
        config.network.critic_input = CriticInput::State;
        config.network.observation_norm = observation_norm;
        goes_on(&gpu, &CpuEnv::new("drift", Drift::default), &config);
    }
}

fn goes_on(gpu: &Gpu, environment: &dyn Environment, config: &Config) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let trainer = || Trainer::new(gpu, environment, config).unwrap();
    let mut whole = trainer();
    train(&mut whole, 6);
    whole.save(&path("whole"), None).unwrap();
    // Interrupted twice, and resumed each time in a trainer with another state.
    let mut first = trainer();
    train(&mut first, 2);
    first.save(&path("2"), None).unwrap();
    let mut second = trainer();
    train(&mut second, 3);
    assert_eq!(second.resume(&path("2")).unwrap().iteration, 2);
    let mut steps = Vec::new();
    second
        .train_until(4, |progress| -> phalanx::Result<()> {
            steps.push((progress.iteration, progress.env_steps));
            Ok(())
        })
        .unwrap();
    let per_iteration = u64::from(config.ppo.num_envs * config.ppo.rollout_steps);
    assert_eq!(steps, [(3, 3 * per_iteration), (4, 4 * per_iteration)]);
    second.save(&path("4"), None).unwrap();
    let mut third = trainer();
    third.resume(&path("4")).unwrap();
    train(&mut third, 6);
    third.save(&path("parts"), None).unwrap();
    let bytes = |name: &str| std::fs::read(path(name)).unwrap();
    assert!(bytes("whole") == bytes("parts"), "{config:?}");
    assert!(bytes("whole") != bytes("4"));
}

/// Has internal state, observations of changes only, and sparse rewards.
#[derive(Default)]
struct Drift {
    place: f32,
    taken: u32,
}

impl Simulator for Drift {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 3, actions: 3 }
    }

    fn time_limit(&self) -> Option<u32> {
        Some(7)
    }

    fn state_dim(&self) -> u32 {
        2
    }

    fn state(&self, state: &mut [f32]) {
        state.copy_from_slice(&[self.place, self.taken as f32 / 7.0]);
    }

    fn reset(&mut self, seed: u64, seen: &mut [f32]) {
        *self = Self { place: (seed % 9) as f32 - 4.0, taken: 0 };
        (seen[0], seen[2]) = (self.place, 1.0);
    }

    fn step(&mut self, actions: &[u32], seen: &mut [f32], rewards: &mut [f32]) -> Outcome {
        self.place += actions[0] as f32 - 1.0;
        self.taken += 1;
        seen[0] = self.place;
        if self.place == 0.0 {
            (seen[1], rewards[0]) = (1.0, 1.0);
        }
        if self.taken == 7 { Outcome::Truncated } else { Outcome::Continues }
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some([self.place.to_le_bytes(), self.taken.to_le_bytes()].concat())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let [place, taken] = bytes.as_chunks::<4>().0 else { return Err("eight bytes are wanted".into()) };
        *self = Self { place: f32::from_le_bytes(*place), taken: u32::from_le_bytes(*taken) };
        Ok(())
    }
}

#[test]
fn mismatched_snapshots_are_rejected_and_change_nothing() {
    let gpu = unchecked_gpu();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    let own = config(Precision::F32);
    let mut saved = trainer(&gpu, &own);
    train(&mut saved, 1);
    saved.save(&path, None).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut other = trainer(&gpu, &own);
    let before = other.weights().unwrap();
    let refused = |bytes: &[u8], trainer: &mut Trainer, wanted: &str| {
        let damaged = folder.path().join("damaged.safetensors");
        std::fs::write(&damaged, bytes).unwrap();
        let error = trainer.resume(&damaged).unwrap_err().to_string();
        assert!(error.contains("damaged.safetensors") && error.contains(wanted), "{error}");
        assert_eq!(std::fs::read(&damaged).unwrap(), bytes, "nothing is written");
    };
    for length in [0, 9, bytes.len() / 2, bytes.len() - 1] {
        refused(&bytes[..length], &mut other, "not a safetensors file, or truncated");
    }
    // A modified bit of the weights, and a modified digit of the metadata.
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 4;
    refused(&altered, &mut other, "checksum mismatch: the file was modified or is corrupt");
    let at = bytes.windows(11).position(|w| w == b"iteration\\\\").unwrap();
    let digit = at + bytes[at..].iter().position(u8::is_ascii_digit).unwrap();
    let mut altered = bytes.clone();
    altered[digit] ^= 2;
    refused(&altered, &mut other, "checksum mismatch: the file was modified or is corrupt");
    refused(b"my diary", &mut other, "not a safetensors file, or truncated");
    let (mut discounted, mut shorter) = (own.clone(), own.clone());
    discounted.ppo.gamma = 0.9;
    shorter.ppo.iterations = 5;
    for (config, wanted) in [
        (discounted, "`gamma` is 0.99 in the file, 0.9 here"),
        (shorter, "`iterations` is 6 in the file, 5 here"),
        (config(Precision::F16), "`precision` is \"f32\" in the file, \"f16\" here"),
    ] {
        refused(&bytes, &mut trainer(&gpu, &config), wanted);
    }
    let rules = Spread::new(Definition::OnPolicy);
    refused(&bytes, &mut Trainer::new(&gpu, &rules, &own).unwrap(), "another environment");
    assert_eq!(other.weights().unwrap(), before);
    assert_eq!(other.iteration(), 0);
}

#[test]
fn the_latest_snapshots_and_the_best_are_kept() {
    let gpu = unchecked_gpu();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(Precision::F32);
    config.optimizer.learning_rate_decay = false;
    let mut run = trainer(&gpu, &config);
    std::fs::write(folder.path().join("best.safetensors.AbCdEfGhIjKl.phalanx-tmp"), "a crash").unwrap();
    let snapshots = Snapshots::open(folder.path(), 2).unwrap();
    assert_eq!((snapshots.latest().unwrap(), snapshots.best()), (None, None));
    for (iteration, score) in [(1, -3.0), (2, -1.0), (3, -2.0), (4, -1.5)] {
        train(&mut run, iteration);
        snapshots.save(&run, Some(score)).unwrap();
    }
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["best.safetensors", "iteration-000000003.safetensors", "iteration-000000004.safetensors"]
    );
    let head = |path: &Path| phalanx::mappo::snapshot::read_metadata(path).unwrap();
    assert_eq!(head(&snapshots.latest().unwrap().unwrap()).iteration, 4);
    let best = head(&snapshots.best().unwrap());
    assert_eq!((best.iteration, best.score), (2, Some(-1.0)));
    // Without schedules, a finished run can be continued with more iterations.
    let latest = snapshots.latest().unwrap().unwrap();
    config.ppo.iterations = 8;
    trainer(&gpu, &config).resume(&latest).unwrap();
    // A damaged snapshot is skipped.
    std::fs::write(&latest, "half a file").unwrap();
    let before = snapshots.latest().unwrap().unwrap();
    assert!(before.ends_with("iteration-000000003.safetensors"));
    std::fs::write(&before, "").unwrap();
    assert!(snapshots.latest().unwrap_err().to_string().contains("iteration-000000004"));
    // If the best snapshot is unreadable, the next one becomes the best.
    std::fs::write(snapshots.best().unwrap(), "").unwrap();
    train(&mut run, 5);
    snapshots.save(&run, Some(-9.0)).unwrap();
    assert_eq!(head(&snapshots.best().unwrap()).score, Some(-9.0));
}

/// The learning rate decays over the iterations: the longer run follows the schedule of its own number.
#[test]
fn a_finished_run_is_trained_further_and_lends_its_weights() {
    let place = Workplace::new();
    place.trained("run");
    let resume = ["train", "--data", DEMO, "--out", "run", "--resume"];
    let further = |iterations| place.run(&[&resume as &[&str], &["--iterations", iterations]].concat());
    refused(&place.run(&resume), &["no unfinished run", "--iterations"]);
    refused(&further("2"), &["has completed 2 iterations"]);
    let other = ["--iterations", "5", "--set", "mappo.gamma=0.5"];
    refused(
        &place.run(&[&resume as &[&str], &other].concat()),
        &["--set mappo.gamma", "a run keeps its settings"],
    );
    let limit = ["--iterations", "5", "--set", "data.limits.bars=100"];
    refused(&place.run(&[&resume as &[&str], &limit].concat()), &["us4_daily.csv.gz", "data.limits.bars"]);
    refused(&place.backtest(DEMO, "run", &limit[2..]), &["us4_daily.csv.gz", "data.limits.bars"]);
    assert!(!place.path("run/unfinished").exists());
    let before = std::fs::read(place.path("run/model.safetensors")).unwrap();
    let output = further("5");
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Resumed   from iteration 2"));
    let metrics = place.path("run/metrics.csv");
    assert_eq!(columns(&metrics, "iteration"), [1.0, 2.0, 3.0, 4.0, 5.0]);
    let events = place.path("run/events.out.tfevents.phalanx");
    assert_eq!(crate::watching::event_steps(&events), columns(&metrics, "env_steps"));
    let rates = columns(&metrics, "learning_rate");
    // 1e-3 (1 - iteration / iterations): of two iterations, then of five.
    let wanted = [1e-3, 5e-4, 6e-4, 4e-4, 2e-4];
    assert!(rates.iter().zip(wanted).all(|(rate, wanted)| (rate / wanted - 1.0).abs() < 1e-5), "{rates:?}");
    assert!(std::fs::read_to_string(place.path("run/config.toml")).unwrap().contains("iterations = 5"));
    assert!(std::fs::read(place.path("run/model.safetensors")).unwrap() != before);
    assert!(!place.path("run/unfinished").exists());

    let model = ["--init", "run/model.safetensors"];
    let output = place.train(DEMO, "other", &model);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Weights   from run/model.safetensors"));
    let narrower = [&model as &[&str], &["--set", "mappo.hidden=[6]"]].concat();
    refused(&place.train(DEMO, "third", &narrower), &["run/model.safetensors", "expected F32"]);
    assert!(!place.path("third").exists());
}

/// Starts the program and kills it as soon as `exists` holds.
fn killed(place: &Workplace, arguments: &[&str], exists: impl Fn() -> bool) {
    let mut child = place.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&mut child, exists);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_with_given_weights_is_resumed_with_them_before_its_first_checkpoint() {
    let place = Workplace::new();
    place.trained("run");
    let start = |out: &'static str| {
        let init = [
            "--init",
            "run/model.safetensors",
            "--set",
            "mappo.iterations=60",
            "--set",
            "checkpoints.every=0",
        ];
        [&["train", "--data", DEMO, "--out", out] as &[&str], &SMALL, &init].concat()
    };
    succeeded(&place.run(&start("whole")));
    killed(&place, &start("parts"), || place.path("parts/unfinished/config.toml").exists());
    let output = place.run(&["train", "--data", DEMO, "--out", "parts", "--resume"]);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Resumed   from the weights of --init"));
    let model = |out: &str| std::fs::read(place.path(out).join("model.safetensors")).unwrap();
    assert!(model("parts") == model("whole"), "the same bytes");
}

#[test]
fn a_refused_change_of_the_iterations_leaves_the_settings() {
    let place = Workplace::new();
    let long = ["--set", "mappo.iterations=400", "--set", "checkpoints.every=1"];
    let start = [&["train", "--data", DEMO, "--out", "run"] as &[&str], &SMALL, &long].concat();
    let saved = || {
        let folder = std::fs::read_dir(place.path("run/unfinished/checkpoints"));
        folder.is_ok_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| file.path().extension().is_some_and(|end| end == "safetensors"))
            })
        })
    };
    killed(&place, &start, saved);
    let resume = ["train", "--data", DEMO, "--out", "run", "--resume", "--iterations", "399"];
    // The learning rate decays over the iterations, and part of them is done.
    refused(&place.run(&resume), &["`iterations`", "400", "399"]);
    let settings = std::fs::read_to_string(place.path("run/unfinished/config.toml")).unwrap();
    assert!(settings.contains("iterations = 400"), "{settings}");
}

/// Kills the program (`kill -9`) at random times between the first checkpoint and the last file, `PHALANX_KILLS` times (default
/// 5; `make test-nightly`: 20).
#[test]
fn a_repeatedly_killed_trainer_ends_with_the_same_bytes() {
    let place = Workplace::new();
    let long =
        ["--set", "mappo.iterations=400", "--set", "checkpoints.every=3", "--set", "checkpoints.keep=2"];
    let start = |out: &'static str| {
        let train = ["train", "--data", DEMO, "--out", out];
        [&train as &[&str], &SMALL, &long].concat()
    };
    let began = std::time::Instant::now();
    succeeded(&place.run(&start("whole")));
    let whole = began.elapsed().as_secs_f64();
    let resume = ["train", "--data", DEMO, "--out", "parts", "--resume"];
    refused(&place.run(&resume), &["parts", "no unfinished run"]);

    let wanted = std::env::var("PHALANX_KILLS").map_or(5, |kills| kills.parse::<u32>().expect("a number"));
    let mut stream = Stream::new(20, 1);
    let (mut kills, mut runs) = (0, 0);
    let (mut at, mut resumed) = (Vec::new(), Vec::new());
    loop {
        let started = place.path("parts/unfinished/config.toml").exists();
        let first = start("parts");
        let arguments = if started { &resume as &[&str] } else { &first };
        let mut command = place.command(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        runs += 1;
        // A process that is killed before its first checkpoint, or finishes, resumes nothing: at least two must resume.
        let enough = kills >= wanted && resumed.len() >= 2;
        if !enough {
            // Late enough for checkpoints: a process first opens the device and compiles kernels.
            std::thread::sleep(Duration::from_secs_f64(whole * (0.2 + 0.6 * stream.uniform())));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                kills += 1;
            }
        }
        let output = child.wait_with_output().unwrap();
        let status = output.status;
        let done = place.path("parts/model.safetensors").exists() && !place.path("parts/unfinished").exists();
        if done {
            if enough {
                break;
            }
            // The run finished before it was killed: start again.
            std::fs::remove_dir_all(place.path("parts")).unwrap();
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(status.code(), None, "{said}");
            at.push(written(&place));
            resumed.extend(
                said.split("Resumed   from iteration ")
                    .nth(1)
                    .map(|rest| rest.split_whitespace().next().unwrap().parse::<u32>().unwrap()),
            );
        }
        assert!(runs < 100, "{kills} kills in {runs} runs");
    }
    println!("iterations written when it was killed: {at:?}; resumed from: {resumed:?}");
    assert!(resumed.len() >= 2 && resumed.iter().all(|iteration| iteration.is_multiple_of(3)), "{resumed:?}");
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert!(bytes("whole/model.safetensors") == bytes("parts/model.safetensors"));
    for column in ["iteration", "env_steps", "mean_reward", "policy_loss", "value_loss", "entropy"] {
        let of = |run: &str| columns(&place.path(run).join("metrics.csv"), column);
        let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(of("whole")), bits(of("parts")), "{column}");
    }
    assert_eq!(columns(&place.path("parts/metrics.csv"), "iteration").len(), 400);
    // Every step once, and no torn record between or after them.
    let steps = crate::watching::event_steps(&place.path("parts/events.out.tfevents.phalanx"));
    assert_eq!(steps, columns(&place.path("parts/metrics.csv"), "env_steps"));
    assert!(!place.path("parts/unfinished").exists());
}

/// Iterations in the metrics of the unfinished run.
fn written(place: &Workplace) -> usize {
    let metrics = std::fs::read_to_string(place.path("parts/unfinished/metrics.csv"));
    metrics.map_or(0, |text| text.lines().count().saturating_sub(1))
}
