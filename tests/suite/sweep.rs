//! `trainer sweep`: a journal that processes share, trials that a kill does not change, and errors with file and line.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use phalanx::backtest::Backtest;
use phalanx::env::TradingSettings;
use phalanx::market::{Candles, ExtraFeatures, GapPolicy, MarketData, Scaling, Splits};
use phalanx::policy::Policy;
use phalanx::research::Trials;
use serde_json::Value as Json;

use crate::common::program::{DEMO, SMALL, Workplace, refused, rows, succeeded, wait_for};
use crate::common::replay_options;
use crate::testing::unchecked_gpu;

/// Settings that share compiled kernels with all other trainings of this size.
const SPACE: &str = "
[mappo]
actor_learning_rate = { from = 1e-4, to = 1e-2, log = true }
epochs = { from = 1, to = 3 }
entropy = { choices = [0.0, 0.01] }

[market]
drawdown_penalty = { from = 0.0, to = 2.0 }
";

/// The arguments of a sweep.
fn sweep<'a>(out: &'a str, trials: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = ["sweep", "--data", DEMO, "--space", "space.toml", "--out", out, "--trials", trials];
    let often =
        ["--set", "evaluation.every=1", "--set", "checkpoints.every=1", "--set", "logging.tensorboard=false"];
    let pruning = ["--startup-trials", "2"];
    // Without the epochs, which are swept.
    let settings: Vec<&str> =
        SMALL.chunks(2).filter(|set| !set[1].contains("epochs")).flatten().copied().collect();
    [&start[..], &settings, &often, &pruning, more].concat()
}

fn workplace() -> Workplace {
    let place = Workplace::new();
    place.write("space.toml", SPACE);
    place
}

/// The events of a journal without the names of processes and the lines of a resumed trial.
fn events(out: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(out.join("sweep.jsonl")).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind<'a>(events: &'a [Json], kind: &str) -> Vec<&'a Json> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// The log return of a policy on the evaluation bars of the demo's candles.
fn log_return(policy: &Policy) -> f64 {
    let candles = Candles::load(&[DEMO], GapPolicy::Reject).unwrap();
    let train = Splits::by_fraction(candles.bars(), 0.75).unwrap().train;
    let evaluated = train.end - (train.len() as f64 * 0.2).round() as usize..train.end;
    let gpu = unchecked_gpu();
    let scaling = Scaling::Given(policy.market().unwrap().scaling.clone());
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &scaling).unwrap();
    let targets = policy.targets(&gpu, &data, &evaluated).unwrap();
    let settings = TradingSettings::default();
    let options = replay_options(&settings, &candles);
    let account = Backtest::replay(&candles, evaluated, targets.view(), &options).unwrap();
    account.metrics.total_return.ln_1p()
}

#[test]
fn a_sweep_finds_the_best_of_its_trials_and_again_the_same_after_a_kill() {
    let place = workplace();
    let output = place.run(&sweep("one", "4", &[]));
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stdout);
    let all = events(&place.path("one"));
    assert_eq!(of_kind(&all, "started").len(), 4);
    let (finished, pruned) = (of_kind(&all, "finished"), of_kind(&all, "pruned"));
    assert_eq!(finished.len() + pruned.len(), 4, "{said}");
    assert!(finished.len() >= 2, "the first two are never pruned");
    assert!(said.contains(&format!("4 trials: {} finished", finished.len())), "{said}");

    // The table has the journal's numbers, and the best trial is that of the highest evaluation.
    let table = rows(&place.path("one/trials.csv"));
    assert_eq!(table.len(), 5);
    assert_eq!(
        table[0][7..],
        ["mappo.actor_learning_rate", "mappo.entropy", "mappo.epochs", "market.drawdown_penalty"]
    );
    for event in &finished {
        let row = &table[event["trial"].as_u64().unwrap() as usize];
        assert_eq!(row[1], "finished");
        for (column, key) in [(2, "score"), (5, "test_return"), (6, "test_sharpe")] {
            assert_eq!(row[column].parse().ok(), event[key].as_f64(), "{key}");
        }
    }
    let score = |event: &&&Json| event["score"].as_f64().unwrap();
    let best = finished
        .iter()
        .max_by(|a, b| score(a).total_cmp(&score(b)).then(b["trial"].as_u64().cmp(&a["trial"].as_u64())));
    let best = best.unwrap()["trial"].as_u64().unwrap();
    let own = std::fs::read_to_string(place.path(&format!("one/trials/{best}/config.toml"))).unwrap();
    assert_eq!(std::fs::read_to_string(place.path("one/best.toml")).unwrap(), own);
    assert!(said.contains(&format!("Settings of trial {best}")), "{said}");
    for event in &pruned {
        let row = &table[event["trial"].as_u64().unwrap() as usize];
        assert_eq!(row[1], "pruned");
        for (column, key) in [(5, "test_return"), (6, "test_sharpe")] {
            assert!(
                row[column].parse::<f64>().is_ok() && row[column].parse().ok() == event[key].as_f64(),
                "{key}"
            );
        }
        let run = place.path(&format!("one/trials/{}", event["trial"]));
        assert!(!run.join("model.safetensors").exists() && !run.join("unfinished").exists());
    }

    // Every finished trial is in the one ledger, beside the sweep, also for a backtest of one of them.
    let names = |place: &Workplace| {
        let ledger = Trials::open(&place.path("phalanx-trials.jsonl")).unwrap();
        ledger.trials().iter().map(|trial| trial.run.clone()).collect::<Vec<_>>()
    };
    let recorded = names(&place);
    for event in finished.iter().chain(&pruned) {
        assert!(recorded.contains(&format!("one/trials/{}", event["trial"])), "{recorded:?}");
    }
    let backtest = place.backtest(DEMO, &format!("one/trials/{best}"), &[]);
    succeeded(&backtest);
    assert_eq!(names(&place), recorded, "the same account counts once");
    let metrics: Json = serde_json::from_slice(
        &std::fs::read(place.path(&format!("one/trials/{best}/metrics.json"))).unwrap(),
    )
    .unwrap();
    let event = finished.iter().find(|event| event["trial"] == best).unwrap();
    assert_eq!(metrics["strategy"]["sharpe"], event["test_sharpe"]);

    // Scores are log returns on the evaluation bars, whatever reward a trial has; the held-out bars decide nothing.
    let run = place.path(&format!("one/trials/{best}/model.safetensors"));
    let earned = log_return(&Policy::load(&run).unwrap());
    let score = event["score"].as_f64().unwrap();
    assert!((earned - score).abs() < 1e-3, "{earned} {score}");

    // In another folder, killed while it trains its second trial.
    let mut child =
        place.command(&sweep("two", "4", &[])).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let second = place.path("two/trials/2/unfinished/checkpoints");
    wait_for(&mut child, || std::fs::read_dir(&second).is_ok_and(|mut all| all.next().is_some()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.path("two/trials.csv").exists());
    let resumed = place.run(&sweep("two", "4", &[]));
    succeeded(&resumed);
    assert!(String::from_utf8_lossy(&resumed.stderr).contains("Trial     2 of 4, begun by another process"));
    let files = ["trials.csv", "best.toml"];
    for file in files {
        let [one, two] =
            ["one", "two"].map(|out| std::fs::read_to_string(place.path(out).join(file)).unwrap());
        assert_eq!(one, two, "{file}");
    }

    // A trial more; another space, other settings.
    succeeded(&place.run(&sweep("two", "5", &[])));
    assert_eq!(rows(&place.path("two/trials.csv"))[..5], table);
    assert_eq!(rows(&place.path("two/trials.csv")).len(), 6);
    refused(
        &place.run(&sweep("two", "5", &["--set", "mappo.gamma=0.5"])),
        &["other settings (`mappo.gamma`)", "--out"],
    );
    place.write("space.toml", &SPACE.replace("to = 3", "to = 4"));
    refused(&place.run(&sweep("two", "5", &[])), &["a sweep with another space"]);
}

#[test]
fn processes_share_a_sweep() {
    let place = workplace();
    let start = || {
        let mut command = place.command(&sweep("out", "5", &["--no-pruning"]));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children = [start(), start()];
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    outputs.iter().for_each(succeeded);
    let all = events(&place.path("out"));
    let started = of_kind(&all, "started");
    let numbers: Vec<u64> = started.iter().map(|event| event["trial"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let processes: BTreeSet<_> = started.iter().map(|event| event["process"].to_string()).collect();
    assert_eq!(processes.len(), 2, "both took trials");
    assert_eq!(of_kind(&all, "finished").len(), 5);
    assert!(of_kind(&all, "resumed").is_empty());
    // The process that ended last has summed up.
    let table = rows(&place.path("out/trials.csv"));
    assert!(table[1..].iter().all(|row| row[1] == "finished") && table.len() == 6);
}

#[test]
fn a_trial_that_cannot_be_trained_fails_and_the_sweep_goes_on() {
    let place = workplace();
    // Each value is right beside the other settings, but not both together.
    let space = "[mappo]\nnum_envs = { choices = [4] }\nmemory_budget_mb = { choices = [1] }\n";
    place.write("space.toml", space);
    let output = place.run(
        &[
            &[
                "sweep",
                "--data",
                DEMO,
                "--space",
                "space.toml",
                "--out",
                "out",
                "--trials",
                "9",
                "--iterations",
                "2",
            ][..],
            &[
                "--set",
                "evaluation.every=1",
                "--set",
                "mappo.hidden=[8]",
                "--set",
                "market.episode_length=16",
            ],
        ]
        .concat(),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: all 3 trials that have ended failed"), "{said}");
    let all = events(&place.path("out"));
    assert!(
        of_kind(&all, "failed").iter().all(|event| event["reason"].as_str().unwrap().contains("MiB")),
        "{all:?}"
    );
}

#[test]
fn sweeps_that_cannot_be_are_refused_before_anything_is_written() {
    let place = workplace();
    let error = |more: &[&str], wanted: &[&str]| {
        refused(&place.run(&sweep("out", "4", more)), wanted);
        assert!(!place.path("out").exists());
    };
    error(&["--set", "evaluation.every=0"], &["`evaluation.every`", "above 0"]);
    error(&["--set", "evaluation.every=9"], &["there will be no evaluation"]);
    error(
        &["--set", "mappo.epochs=2"],
        &["space.toml:4: setting `mappo.epochs`: it is also given by --set mappo.epochs=2"],
    );
    place.write("space.toml", "[mappo]\n\nepoch = { from = 1, to = 8 }\n");
    error(&[], &["space.toml:3: unknown setting `mappo.epoch`; did you mean `mappo.epochs`?"]);
    place.write("space.toml", "[mappo]\nepochs = { from = 8, to = 1 }\n");
    error(&[], &["space.toml:2: setting `mappo.epochs`: `from` (8) has to be less than `to` (1)"]);
    place.write("space.toml", "[mappo]\ngamma = { from = 0.0, to = 0.9, log = true }\n");
    error(&[], &["space.toml:2: setting `mappo.gamma`: with `log = true`"]);
    place.write("space.toml", "[mappo]\ngamma = { from = 0.9, to = 1.5 }\n");
    error(&[], &["space.toml:2: setting `mappo.gamma`"]);
    place.trained("run");
    place.write("space.toml", SPACE);
    refused(&place.run(&sweep("run", "4", &[])), &["is not empty and holds no sweep", "--out"]);
}
