//! `trainer walk-forward`: agents know nothing of the bars that they are tested on, and an interrupted walk ends with the same bytes.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Output, Stdio};

use ndarray::Array2;
use phalanx::backtest::Backtest;
use phalanx::env::TradingSettings;
use phalanx::market::{Candles, ExtraFeatures, GapPolicy, MarketData, Scaling};
use phalanx::policy::Policy;
use phalanx::research::Trials;

use crate::common::program::{DEMO, SMALL, Workplace, columns, refused, rows, succeeded, wait_for};
use crate::common::replay_options;
use crate::testing::unchecked_gpu;

/// The arguments of a walk with two folds and two seeds.
fn walk<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = ["walk-forward", "--data", DEMO, "--out", out, "--folds", "2", "--seeds", "2"];
    let often = ["--set", "checkpoints.every=1", "--set", "logging.tensorboard=false"];
    [&start[..], &SMALL, &often, more].concat()
}

/// The results and models of a walk.
fn results(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files =
        ["config.toml", "folds.csv", "metrics.json", "equity.csv", "trades.csv"].map(String::from).to_vec();
    for fold in ["expanding-1-of-2", "expanding-2-of-2"] {
        files.extend([1, 2].map(|seed| format!("folds/{fold}-seed-{seed}/model.safetensors")));
    }
    files.into_iter().map(|name| (name.clone(), std::fs::read(out.join(name)).unwrap())).collect()
}

#[test]
fn a_walk_is_resumed_after_a_kill_and_its_folds_know_nothing_of_their_tests() {
    let place = Workplace::new();
    succeeded(&place.run(&walk("whole", &[])));
    let whole = results(&place.path("whole"));

    // Each fold is scaled and trained before its test, and its run, traded alone, has its row's figures.
    let candles = Candles::load(&[DEMO], GapPolicy::Reject).unwrap();
    let table = rows(&place.path("whole/folds.csv"));
    assert_eq!(table.len(), 4);
    for (row, fold) in table[1..3].iter().zip(1..) {
        for seed in [1, 2] {
            let run = place.path(&format!("whole/folds/expanding-{fold}-of-2-seed-{seed}"));
            let policy = Policy::load(&run.join("model.safetensors")).unwrap();
            let market = policy.market().unwrap();
            assert!(market.train_to < market.test_from);
            assert_eq!(market.train_to.date().to_string(), row[2]);
            assert_eq!(market.test_from.date().to_string(), row[3]);
        }
    }
    let bar = |date: &str| candles.timestamps.iter().position(|it| it.date().to_string() == date).unwrap();
    assert_eq!((bar(&table[1][3]), bar(&table[2][3])), (1074, 1611), "half of the bars, then a quarter each");
    assert_eq!(bar(&table[1][2]) + 1, bar(&table[1][3]));
    assert_eq!(bar(&table[2][2]) + 1, bar(&table[2][3]));
    assert_eq!(bar(&table[2][4]), candles.bars() - 1);

    let text = std::fs::read_to_string(place.path("whole/metrics.json")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (fold, row) in metrics["folds"].as_array().unwrap().iter().zip(&table[1..3]) {
        let dates = ["train_from", "train_to", "test_from", "test_to"].map(|key| fold[key].as_str().unwrap());
        assert_eq!(dates[..], row[1..5]);
        assert_eq!(fold["strategy"]["total_return"].as_f64(), row[5].parse().ok());
    }
    let page = std::fs::read_to_string(place.path("whole/report.html")).unwrap();
    assert!(page.contains("Returns by month") && page.contains("Profit by instrument"));
    let settings = std::fs::read_to_string(place.path("whole/config.toml")).unwrap();
    assert!(settings.contains("iterations = 2") && !settings.contains("test_from"), "{settings}");
    refused(&place.train(DEMO, "whole", &[]), &["holds the results of a walk-forward test", "--force"]);

    // Killed while it trains the second fold.
    let mut child =
        place.command(&walk("killed", &[])).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let second = place.path("killed/folds/expanding-2-of-2-seed-1");
    let checkpoints = second.join("unfinished/checkpoints");
    wait_for(&mut child, || std::fs::read_dir(&checkpoints).is_ok_and(|mut all| all.next().is_some()));
    child.kill().unwrap();
    child.wait().unwrap();
    // Another one, killed before it wrote its settings.
    let third = place.path("killed/folds/expanding-2-of-2-seed-2");
    std::fs::create_dir_all(third.join("unfinished")).unwrap();
    for folder in [&third, &third.join("unfinished")] {
        std::fs::copy(second.join("unfinished/phalanx-run.json"), folder.join("phalanx-run.json")).unwrap();
    }
    assert!(!place.path("killed/folds.csv").exists());
    // Nothing else is put beside the trainings that are left.
    let mine = ["holds a walk-forward test that is not finished", "killed/folds", "--out"];
    refused(&place.train(DEMO, "killed", &[]), &mine);
    refused(&place.train(DEMO, "killed", &["--force"]), &mine);
    refused(&place.backtest(DEMO, "whole/folds/expanding-1-of-2-seed-1", &["--out", "killed"]), &mine);
    let resumed = place.run(&walk("killed", &[]));
    succeeded(&resumed);
    assert_eq!(String::from_utf8_lossy(&resumed.stderr).matches("is trained already").count(), 2);
    assert!(results(&place.path("killed")) == whole);

    refused(&place.run(&walk("whole", &["--set", "mappo.gamma=0.5"])), &["with other settings", "--force"]);
    assert!(results(&place.path("whole")) == whole, "nothing was lost");

    // Prices that differ in one bar are other candles, and begin anew with --force.
    let text = candles_of_demo();
    let other = place.write("other.csv", &text.replace(",24.6843,34849700", ",24.6844,34849700"));
    let mut command = walk("whole", &[]);
    command[2] = &other;
    let refusal = place.run(&command);
    let said = String::from_utf8_lossy(&refusal.stderr);
    assert!(said.contains("trained on other candles"), "{said}");
    assert!(results(&place.path("whole")) == whole);
    command.push("--force");
    let anew = place.run(&command);
    succeeded(&anew);
    assert!(!String::from_utf8_lossy(&anew.stderr).contains("is trained already"));
}

fn candles_of_demo() -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(DEMO).unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_fold_traded_alone_has_the_figures_of_its_row() {
    let place = Workplace::new();
    let split = ["--folds", "2", "--seeds", "1", "--scheme", "rolling", "--purge", "3"];
    let command = [&["walk-forward", "--data", DEMO, "--out", "out"][..], &split, &SMALL].concat();
    succeeded(&place.run(&command));
    let table = rows(&place.path("out/folds.csv"));
    for fold in [1, 2] {
        let run = format!("out/folds/rolling-{fold}-of-2-seed-1");
        succeeded(&place.backtest(DEMO, &run, &[]));
        let text = std::fs::read_to_string(place.path(&run).join("metrics.json")).unwrap();
        let metrics: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (column, key) in [(5, "total_return"), (6, "sharpe"), (7, "max_drawdown")] {
            let figure: f64 = table[fold][column].parse().unwrap();
            assert_eq!(metrics["strategy"][key].as_f64(), Some(figure), "{key} of fold {fold}");
        }
        assert_eq!(metrics["period"]["to"].as_str(), Some(table[fold][4].as_str()));
    }
}

/// Combinations: six folds of four parts, three paths; the same bytes whether they train one after the other or at the same time.
#[test]
fn every_part_of_a_combination_is_traded_by_agents_that_had_not_seen_it() {
    let place = Workplace::new();
    let combined = |out: &str, jobs: &str| {
        let start = ["walk-forward", "--data", DEMO, "--out", out, "--scheme", "cpcv", "--folds", "4"];
        let more = ["--seeds", "1", "--jobs", jobs, "--purge", "2", "--embargo", "40"];
        let quick = ["--iterations", "1", "--set", "logging.tensorboard=false"];
        succeeded(&place.run(&[&start[..], &SMALL, &more, &quick].concat()));
    };
    combined("out", "1");
    combined("together", "2");
    for file in ["folds.csv", "equity.csv"] {
        let [one, other] = ["out", "together"].map(|out| std::fs::read(place.path(out).join(file)).unwrap());
        assert!(one == other, "{file}");
    }

    let gpu = unchecked_gpu();
    let candles = Candles::load(&[DEMO], GapPolicy::Reject).unwrap();
    let size = candles.bars() / 4;
    let parts: Vec<_> = (0..4).map(|part| part * size..(part + 1) * size).collect();
    assert_eq!(candles.bars(), 4 * size);
    // The folds in lexicographic order, and the fold that trades each part on the second path.
    let tested = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]];
    let path: [usize; 4] = std::array::from_fn(|part| {
        tested.iter().enumerate().filter(|(_, chosen)| chosen.contains(&part)).nth(1).unwrap().0
    });
    let mut targets = Array2::zeros((0, 4));
    let mut first = 0;
    for (part, fold) in path.into_iter().enumerate() {
        let run = place.path(&format!("out/folds/cpcv-{}-of-6-seed-1", fold + 1));
        let policy = Policy::load(&run.join("model.safetensors")).unwrap();
        // Two bars before a test and forty-two after it are not trained on, and do not scale.
        let mut train = Vec::new();
        let mut next = 0;
        for test in tested[fold].map(|part| parts[part].clone()) {
            train.push(next..test.start.saturating_sub(2));
            next = test.end + 42;
        }
        train.push(next..candles.bars());
        train.retain(|range| range.len() > 1);
        let scaling = Scaling::FitWithin(train);
        let fitted = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &scaling).unwrap();
        let market = policy.market().unwrap();
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
        assert!(
            market.scaling.moments.iter().flatten().zip(fitted.scaling().moments.iter().flatten()).all(near)
        );

        let scaling = Scaling::Given(market.scaling.clone());
        let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &scaling).unwrap();
        if part == 0 {
            first = data.first_bar();
        }
        let bars = parts[part].start.max(first)..(parts[part].end + 1).min(candles.bars());
        targets.append(ndarray::Axis(0), policy.targets(&gpu, &data, &bars).unwrap().view()).unwrap();
    }
    let settings = TradingSettings::default();
    let options = replay_options(&settings, &candles);
    let account = Backtest::replay(&candles, first..candles.bars(), targets.view(), &options).unwrap();
    let table = rows(&place.path("out/folds.csv"));
    let names: Vec<_> = table.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ["fold", "1", "2", "3", "4", "path 1", "path 2", "path 3", "all"]);
    assert_eq!(table[6][5].parse::<f64>().unwrap(), account.metrics.total_return);
    assert_ne!(table[5][5], table[6][5]);

    // A backtest of a fold trades its first held-out period, which it does not know.
    let output = place.backtest(DEMO, "out/folds/cpcv-4-of-6-seed-1", &[]);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("do not predict"), "{said}");
    let equity = rows(&place.path("out/folds/cpcv-4-of-6-seed-1/equity.csv"));
    let [begins, ends] = [parts[1].start - 2, parts[2].end + 41].map(|bar| candles.timestamps[bar]);
    let dates = [&equity[1][0], &equity[equity.len() - 1][0]].map(String::as_str);
    assert_eq!(dates, [begins, ends].map(|moment| moment.date().to_string()).each_ref().map(String::as_str));
    let output = place.backtest(DEMO, "out/folds/cpcv-4-of-6-seed-1", &["--to", "2013-01-01"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("not in a held-out period"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("Verdict   none"), "{output:?}");
}

/// The trainings share the memory; where it is short, fewer train at the same time, and the results are the same.
#[test]
fn trainings_at_the_same_time_share_the_memory() {
    let place = Workplace::new();
    // A plan of 10 MiB, which shrinks to 8 MiB.
    let sets = ["mappo.num_envs=256", "mappo.rollout_steps=64", "mappo.iterations=1"];
    let sets: Vec<_> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let run = |out: &str, mebibytes: &str, jobs: &str| {
        let arguments = [&walk(out, &["--jobs", jobs])[..], &sets].concat();
        let output = place.command(&arguments).env("PHALANX_MEMORY_BUDGET_MB", mebibytes).output().unwrap();
        succeeded(&output);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(!run("alone", "16", "1").contains("Memory"));
    let many = run("many", "64", "3");
    assert!(many.contains("MiB for each of 3 trainings at the same time"), "{many}");
    let short = run("short", "16", "4");
    assert!(short.contains("Memory    for 1 of the 4 trainings"), "{short}");
    for out in ["many", "short"] {
        assert!(results(&place.path(out)) == results(&place.path("alone")), "{out}");
    }
}

#[test]
fn walks_that_cannot_be_are_refused_before_anything_is_written() {
    let place = Workplace::new();
    let error = |more: &[&str], wanted: &[&str]| {
        let output: Output = place.run(&walk("out", more));
        refused(&output, wanted);
        assert!(!place.path("out").exists());
    };
    error(&["--set", "data.test_from=2010-01-01"], &["data.test_from", "the folds decide"]);
    error(&["--set", "data.train_to=2010-01-01"], &["data.train_to", "the folds decide"]);
    error(
        &["--set", "data.held_out=[[\"2010-01-01\",\"2011-01-01\"]]"],
        &["data.held_out", "the folds decide"],
    );
    error(&["--embargo", "5"], &["--embargo means nothing with --scheme expanding"]);
    error(&["--scheme", "cpcv", "--train-fraction", "0.5"], &["--train-fraction means nothing"]);
    error(&["--scheme", "cpcv", "--test-groups", "2"], &["--test-groups: 2 of 2 groups leaves nothing"]);
    error(&["--jobs", "0"], &["--jobs 0: out of range"]);
    error(&["--train-fraction", "1"], &["--train-fraction: 1 is not between 0 and 1"]);
    error(&["--set", "data.train_from=2013-02-28"], &["folds are too many"]);
    error(
        &["--set", "data.train_from=2013-02-01"],
        &["fold 1 has room for episodes of 9 bars", "`market.episode_length` = 16", "--folds"],
    );
    error(&["--purge", "100000"], &["fold 1 of 2 has fewer than 2 bars to train on"]);
    error(&["--set", "mappo.seed=9223372036854775807"], &["mappo.seed", "more seeds"]);
    place.trained("run");
    refused(&place.run(&walk("run", &[])), &["holds a run", "--out"]);
}

/// Orders that cost a fifth of their value ruin every fold's account.
#[test]
fn a_fold_that_is_ruined_says_when() {
    let place = Workplace::new();
    let costs = ["--set", "market.commission_bps=1000", "--set", "market.bankruptcy_level=0.9"];
    let output = place.run(&walk("out", &[&costs[..], &["--iterations", "1"]].concat()));
    succeeded(&output);
    let table = rows(&place.path("out/folds.csv"));
    let column = table[0].iter().position(|name| name == "bankrupt_at").unwrap();
    let text = std::fs::read_to_string(place.path("out/metrics.json")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&text).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = said.lines().skip_while(|line| !line.starts_with("fold ")).collect();
    assert!(lines[0].ends_with("bankrupt"), "{said}");
    for (index, row) in table[1..3].iter().enumerate() {
        let ruin = &row[column];
        // After the first test bar, up to the last.
        assert!(row[3] < *ruin && *ruin <= row[4], "{row:?}");
        assert_eq!(metrics["folds"][index]["bankrupt_at"].as_str(), Some(ruin.as_str()));
        assert!(lines[index + 1].ends_with(ruin.as_str()), "{said}");
    }
    assert_eq!(table[3][column], table[1][column], "the joined account is that of the first fold");
    let page = std::fs::read_to_string(place.path("out/report.html")).unwrap();
    assert!(page.contains("<th scope=\"col\">Bankrupt</th>") && !page.contains("NaN"));
}

/// The joined account, computed from the models: each fold's agents decide its bars, the last one of a part for the first open of the
/// next, and the seeds' positions are averaged.
#[test]
fn the_joined_account_is_that_of_the_models() {
    let place = Workplace::new();
    succeeded(&place.run(&walk("out", &["--set", "market.commission_bps=3"])));
    let gpu = unchecked_gpu();
    let candles = Candles::load(&[DEMO], GapPolicy::Reject).unwrap();
    let (first, second, end) = (1074, 1611, candles.bars());
    let mut mean = Array2::zeros((end - first - 1, 4));
    for (fold, bars) in [(1, first..second + 1), (2, second..end)] {
        for seed in [1, 2] {
            let run = format!("out/folds/expanding-{fold}-of-2-seed-{seed}/model.safetensors");
            let policy = Policy::load(&place.path(&run)).unwrap();
            let scaling = Scaling::Given(policy.market().unwrap().scaling.clone());
            let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &scaling).unwrap();
            let targets = policy.targets(&gpu, &data, &bars).unwrap();
            assert_eq!(targets.nrows(), bars.len() - 1);
            for (row, own) in targets.outer_iter().enumerate() {
                let mut row = mean.row_mut(bars.start - first + row);
                row.scaled_add(0.5, &own);
            }
        }
    }
    let settings = TradingSettings { commission_bps: 3.0, ..TradingSettings::default() };
    let options = replay_options(&settings, &candles);
    let account = Backtest::replay(&candles, first..end, mean.view(), &options).unwrap();
    assert_eq!(columns(&place.path("out/equity.csv"), "equity"), account.equity);
    let all = rows(&place.path("out/folds.csv")).pop().unwrap();
    assert_eq!(all[5].parse::<f64>().unwrap(), account.metrics.total_return);
    // The seeds differ, and so do the folds.
    assert!(mean.iter().any(|level| level.fract() != 0.0));

    // The result is in the ledger beside the folder, and its receipt in the folder.
    let ledger = Trials::open(&place.path("phalanx-trials.jsonl")).unwrap();
    let receipt = std::fs::read_to_string(place.path("out/trial.json")).unwrap();
    assert!(ledger.holds(&serde_json::from_str(&receipt).unwrap()));
    let trial = &ledger.trials()[0];
    assert_eq!((trial.command.as_str(), trial.run.as_str()), ("walk-forward", "out"));
    assert_eq!((trial.total_return, trial.returns.len()), (account.metrics.total_return, end - first - 1));
}

#[test]
fn trials_are_counted_and_lost_ones_are_told() {
    let place = Workplace::new();
    place.trained("run");
    let backtest = |more: &[&str]| {
        let output = place.backtest(DEMO, "run", more);
        succeeded(&output);
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let [first, _] = backtest(&[]);
    let verdict = first.strip_prefix("Verdict   ").and_then(|rest| rest.lines().next()).unwrap_or_default();
    let verdict = verdict.split(':').next().unwrap();
    assert!(verdict.len() > 5, "the verdict comes first: {first}");
    assert!(first.contains("over 1 trial on these bars") || first.contains("never traded"), "{first}");
    let report = std::fs::read_to_string(place.path("run/report.html")).unwrap();
    let (initial, rest) = verdict.split_at(1);
    assert!(report.contains(&format!("<h1>{}{rest}</h1>", initial.to_uppercase())), "{verdict}");
    assert!(report.contains("Skill or luck"));
    // Too few bars for a verdict are traded all the same, and are no trial.
    let [few, _] = backtest(&["--from", "2013-02-27", "--out", "few"]);
    assert!(few.starts_with("Verdict   none: fewer than 20 bars\n"), "{few}");
    assert!(few.contains("Total return") && place.path("few/report.html").exists());
    // Nor are bars that trained the model.
    let [known, _] = backtest(&["--from", "2004-08-19", "--out", "known"]);
    assert!(known.starts_with("Verdict   none: some of the bars trained"), "{known}");
    // The same once more, then another period.
    backtest(&[]);
    let ledger = place.path("phalanx-trials.jsonl");
    let lines = || std::fs::read_to_string(&ledger).unwrap().lines().count();
    assert_eq!(lines(), 1);
    let [_, stderr] = backtest(&["--from", "2012-01-03"]);
    assert!(!stderr.contains("trials were removed"), "{stderr}");
    assert_eq!(lines(), 2);

    // A ledger without its last trial, and one with a changed one.
    let text = std::fs::read_to_string(&ledger).unwrap();
    std::fs::write(&ledger, text.split_inclusive('\n').next().unwrap()).unwrap();
    let [_, stderr] = backtest(&["--from", "2012-06-01"]);
    assert!(stderr.contains("run/trial.json names a trial that"), "{stderr}");
    std::fs::write(&ledger, text.replacen("\"run\":\"run\"", "\"run\":\"ran\"", 1)).unwrap();
    refused(&place.backtest(DEMO, "run", &[]), &["phalanx-trials.jsonl:1: checksum mismatch"]);
}
