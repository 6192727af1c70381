//! The trainer program: command lines, files, messages, exit statuses.

use std::path::Path;

use phalanx::market::{Candles, GapPolicy};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::program::{DEMO, Market, Workplace, columns, contents, refused, rows, succeeded};
use crate::testing;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_run_writes_every_file_and_a_self_contained_report() {
    let place = Workplace::new();
    let (run, model) = (place.path("run"), place.path("run/model.safetensors"));
    place.trained("run");

    let settings: toml::Table = std::fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(settings["mappo"]["num_envs"].as_integer(), Some(4));
    assert_eq!(settings["mappo"]["gamma"].as_float(), Some(0.99), "defaults are written down as well");
    assert_eq!(settings["market"]["episode_length"].as_integer(), Some(16));
    let metrics = rows(&run.join("metrics.csv"));
    assert_eq!(metrics[0][..4], ["iteration", "env_steps", "seconds", "steps_per_second"]);
    assert!(metrics.iter().all(|row| row.len() == 32), "{metrics:?}");
    let steps: Vec<_> = metrics[1..].iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    assert_eq!(steps, [("1", "32"), ("2", "64")]);
    let training = json(&run.join("training.json"));
    assert_eq!(training["env_steps"], 64);
    assert!(training["adapter"].as_str().is_some_and(|name| !name.is_empty()));
    assert!(training["gpu_bytes"].as_u64().is_some_and(|bytes| bytes > 10_000));
    let bytes = std::fs::read(&model).unwrap();
    let weights = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(weights.tensor("actor.1.weight").unwrap().shape(), [8, 3]);

    let output = place.backtest(DEMO, "run", &[]);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("buy and hold"));
    assert_eq!(std::fs::read(&model).unwrap(), bytes, "a backtest does not touch the model");
    check_backtest(&run);

    let elsewhere = place.path("elsewhere");
    let before = contents(&run);
    succeeded(&place.backtest(DEMO, "run", &["--out", elsewhere.to_str().unwrap()]));
    assert_eq!(contents(&run), before, "--out keeps the results apart");
    for file in ["metrics.json", "equity.csv", "trades.csv"] {
        assert_eq!(std::fs::read(elsewhere.join(file)).unwrap(), before[&run.join(file)], "{file}");
    }
}

#[test]
fn half_precision_and_autotuned_kernels_train_and_backtest() {
    let place = Workplace::new();
    // A model file contains the statistics of its observations.
    let sets = ["mappo.precision=\"f16\"", "mappo.activation=\"gelu\"", "mappo.observation_norm=true"];
    let half = sets.map(|set| ["--set", set]).concat();
    succeeded(&place.train(DEMO, "plain", &half));
    assert_eq!(columns(&place.path("plain/metrics.csv"), "loss_scale"), [65_536.0, 65_536.0]);
    succeeded(&place.backtest(DEMO, "plain", &[]));

    let tune = ["--tune", "kernels.json"];
    succeeded(&place.train(DEMO, "tuned", &[&half, &tune as &[&str]].concat()));
    let measured = std::fs::read(place.path("kernels.json")).unwrap();
    assert_eq!(json(&place.path("kernels.json"))["entries"].as_object().unwrap().len(), 1);
    succeeded(&place.train(DEMO, "again", &[&half, &tune as &[&str]].concat()));
    assert_eq!(std::fs::read(place.path("kernels.json")).unwrap(), measured, "measured once");
    let model = |run: &str| std::fs::read(place.path(run).join("model.safetensors")).unwrap();
    assert_eq!(model("tuned"), model("again"), "the same file, the same bytes");
    place.write("kernels.json", "[1, 2]");
    refused(&place.train(DEMO, "spoilt", &tune), &["kernels.json", "not a file of measured kernels"]);
}

#[test]
fn evaluation_uses_separate_bars_and_keeps_the_best_checkpoint() {
    let place = Workplace::new();
    let sets = ["mappo.iterations=5", "evaluation.every=2", "checkpoints.every=4"].map(|set| ["--set", set]);
    succeeded(&place.train(DEMO, "run", &sets.concat()));
    let rows = rows(&place.path("run/metrics.csv"));
    let column = rows[0].iter().position(|name| name == "evaluation").unwrap();
    let scores: Vec<Option<f64>> = rows[1..].iter().map(|row| row[column].parse().ok()).collect();
    assert_eq!(scores.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false, true, false]);
    let checkpoints = place.path("run/checkpoints");
    let head = |name: &str| phalanx::mappo::snapshot::read_metadata(&checkpoints.join(name)).unwrap();
    let best = head("best.safetensors");
    let highest = scores[1].unwrap().max(scores[3].unwrap());
    assert_eq!(best.score, Some(highest));
    assert_eq!(scores[best.iteration as usize - 1], Some(highest));
    assert_eq!(head("iteration-000000005.safetensors").score, None);
    // Evaluation sets aside a fifth of the training bars, which changes the model.
    succeeded(&place.train(DEMO, "without", &["--set", "mappo.iterations=5"]));
    let model = |run: &str| std::fs::read(place.path(run).join("model.safetensors")).unwrap();
    assert_ne!(model("run"), model("without"));
    succeeded(&place.backtest(DEMO, "run", &[]));
    let few = ["--set", "evaluation.every=1", "--set", "evaluation.fraction=0.95"];
    refused(&place.train(DEMO, "few", &few), &["`evaluation.fraction`", "from 0.01 to 0.9"]);
}

/// Checks the results of a backtest on the demo's held-out bars.
fn check_backtest(run: &Path) {
    let candles = Candles::load(&[DEMO], GapPolicy::Reject).unwrap();
    let first = (candles.bars() as f64 * 0.75).round() as usize;
    let equity = rows(&run.join("equity.csv"));
    assert_eq!(equity.len() - 1, candles.bars() - first, "a row per held-out bar");
    assert_eq!(equity[1][0], candles.timestamps[first].date().to_string());
    assert_eq!(equity[equity.len() - 1][0], candles.timestamps[candles.bars() - 1].date().to_string());
    let levels: Vec<_> = candles.symbols.iter().map(|symbol| format!("position_{symbol}")).collect();
    assert_eq!(equity[0][5..], levels);

    let metrics = json(&run.join("metrics.json"));
    assert_eq!(metrics["period"]["bars"], equity.len() - 1);
    assert_eq!(metrics["symbols"], serde_json::json!(candles.symbols));
    for (who, column) in [("strategy", 1), ("buy_and_hold", 3)] {
        let total = metrics[who]["total_return"].as_f64().unwrap();
        let last: f64 = equity[equity.len() - 1][column].parse().unwrap();
        assert!((last / 100_000.0 - 1.0 - total).abs() < 1e-9, "{who}: {total} and {last}");
        assert!(metrics[who]["max_drawdown"].as_f64().unwrap() <= 0.0, "{who}");
    }
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let attribution = &metrics["attribution"];
    let instruments = attribution["instruments"].as_array().unwrap();
    let parts: f64 = instruments.iter().map(|it| number(&it["profit"])).sum();
    assert!((parts + number(&attribution["interest"]) - number(&attribution["profit"])).abs() < 1e-6);
    assert!(metrics["verdict"].is_string() && number(&metrics["trials"]) >= 1.0);
    assert_eq!(metrics["baselines"].as_array().unwrap().len(), 4);
    let worst = metrics["drawdowns"].as_array().unwrap().first().map_or(0.0, |it| number(&it["depth"]));
    assert_eq!(worst, number(&metrics["strategy"]["max_drawdown"]));
    let trades = rows(&run.join("trades.csv"));
    assert_eq!(trades[0][..3], ["timestamp", "symbol", "quantity"]);
    assert_eq!(metrics["strategy"]["trades"], trades.len() - 1);
    assert!(trades[1..].iter().all(|trade| candles.symbols.contains(&trade[1])));

    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    for outside in [
        "src=\"http",
        "href=\"http",
        "src='http",
        "href='http",
        "src=\"//",
        "<script",
        "<link",
        "url(",
        "@import",
    ] {
        assert!(!page.contains(outside), "the report has {outside}");
    }
    assert!(page.contains("</html>") && page.contains("<svg"));
    assert!(candles.symbols.iter().all(|symbol| page.contains(symbol.as_str())));
}

#[test]
fn a_seed_determines_every_byte() {
    let place = Workplace::new();
    for (name, seed) in [("a", "5"), ("b", "5"), ("c", "6")] {
        succeeded(&place.train(DEMO, name, &["--seed", seed]));
    }
    let model = |name: &str| std::fs::read(place.path(name).join("model.safetensors")).unwrap();
    assert_eq!(model("a"), model("b"));
    assert_ne!(model("a"), model("c"));

    // The resolved settings of a run are sufficient to reproduce it.
    let (written, again) = (place.path("a/config.toml"), place.path("again"));
    let [written, again] = [&written, &again].map(|path| path.to_str().unwrap());
    succeeded(&place.run(&["train", "--data", DEMO, "--out", again, "--config", written]));
    assert_eq!(model("a"), model("again"));
}

#[test]
fn a_run_is_replaced_only_with_force() {
    let place = Workplace::new();
    let run = place.path("run");
    place.trained("run");
    succeeded(&place.backtest(DEMO, "run", &[]));
    std::fs::write(run.join("notes.txt"), "mine").unwrap();
    let before = contents(&run);

    refused(&place.train(DEMO, "run", &["--seed", "2"]), &["holds a run already", "--force", "--out"]);
    assert_eq!(contents(&run), before);
    // With --force, an invalid command still leaves the old run intact.
    let missing = place.path("none.csv");
    refused(&place.train(missing.to_str().unwrap(), "run", &["--force"]), &["none.csv"]);
    refused(&place.train(DEMO, "run", &["--force", "--set", "mappo.gamma=2"]), &["`mappo.gamma`"]);
    assert_eq!(contents(&run), before);

    succeeded(&place.train(DEMO, "run", &["--seed", "2", "--force"]));
    let after = contents(&run);
    let model = run.join("model.safetensors");
    assert_ne!(after[&model], before[&model]);
    assert_eq!(after[&run.join("notes.txt")], b"mine");
    assert!(!run.join("report.html").exists(), "the old report must be removed");
}

#[test]
fn invalid_settings_are_rejected_before_anything_is_written() {
    let place = Workplace::new();
    let file = place.write("run.toml", "[mappo]\nepochs = 2\ngama = 0.9\n");
    let cases: [(&[&str], &[&str]); 14] = [
        (&["--set", "mappo.gama=0.9"], &["unknown setting `mappo.gama`", "did you mean `mappo.gamma`?"]),
        (&["--config", &file], &["run.toml:3", "did you mean `mappo.gamma`?"]),
        (&["--set", "mappo.gamma=1.5"], &["`mappo.gamma`", "1.5 is out of range: from 0 to 1"]),
        (&["--set", "mappo.epochs=many"], &["`mappo.epochs`", "expected u32"]),
        (&["--set", "data.gaps=ignore"], &["data.gaps", "forward-fill"]),
        (&["--set", "data.test_from=2011-02-31"], &["data.test_from", "2011-02-31"]),
        (&["--set", "market.episode_length=5000"], &["`episode_length`", "5000 steps do not fit"]),
        (&["--set", "market.borrow_rate=30"], &["`market.borrow_rate`", "from 0 to 10 a year"]),
        (&["--set", "market.positions=[-2.0, 0.0, 2.0]"], &["`market.positions`", "set `max_leverage`"]),
        (&["--set", "market.actions=\"weight\""], &["market.actions", "weights"]),
        (&["--set", "market.spreads_bps.AAPLE=3"], &["`spreads_bps`", "`AAPLE`", "AAPL, GOOG, IBM, MSFT"]),
        (&["--set", "mappo.hidden=[]"], &["hidden"]),
        (&["--iterations", "0"], &["`mappo.iterations`", "from 1"]),
        (&["--set", "mappo.critic_input=state"], &["`critic_input`", "this one has none"]),
    ];
    for (arguments, wanted) in cases {
        refused(&place.train(DEMO, "run", arguments), wanted);
        assert!(!place.path("run").exists(), "{arguments:?}");
    }
    // Sizes whose product exceeds 32 bits give an error about the budget, not an overflow.
    let giant = ["mappo.num_envs=1048576", "mappo.rollout_steps=65536", "mappo.memory_budget_mb=64"];
    let giant = giant.map(|set| ["--set", set]).concat();
    refused(
        &place.train(DEMO, "run", &giant),
        &["the budget is 64 MiB", "rollout_steps", "memory_budget_mb"],
    );
    assert!(!place.path("run").exists());
    // Invalid arguments are rejected by clap.
    for arguments in [&["train", "--data", DEMO] as &[&str], &["dance"], &[]] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Usage:"), "{arguments:?}");
    }
}

#[test]
fn invalid_candles_are_located_and_leave_no_files() {
    let place = Workplace::new();
    let good = Market::new(&["AAA", "BBB"], 160);
    let broken = place.write("broken.csv", &good.csv().replacen(",11,", ",zwölf,", 1));
    let line = good.csv().lines().position(|line| line.contains(",11,")).unwrap() + 1;
    let low = place.write("low.csv", "date,symbol,open,high,low,close,volume\n2020-01-02,AAA,10,9,8,9,1\n");
    let cases: [(&str, &[&str]); 5] = [
        ("none.csv", &["none.csv"]),
        (&broken, &[&format!("broken.csv:{line}"), "column `open`", "`zwölf` is not a number"]),
        (&low, &["low.csv:2", "column `open`", "AAA 2020-01-02", "outside the bar's range, low 8 to high 9"]),
        (&place.write("empty.csv", ""), &["empty.csv", "the file is empty"]),
        (&place.write("few.csv", &Market::new(&["AAA"], 20).csv()), &["have 20 bars, but at least"]),
    ];
    for (data, wanted) in cases {
        refused(&place.train(data, "run", &[]), wanted);
        assert!(!place.path("run").exists(), "{data}");
    }
}

#[test]
fn gaps_are_rejected_dropped_or_filled() {
    let place = Workplace::new();
    let data = place.write("gap.csv", &Market::new(&["AAA", "BBB"], 160).without("BBB", 100).csv());
    refused(&place.train(&data, "reject", &[]), &["BBB", "2001-04-11"]);
    for (policy, bars) in [("drop", 159), ("forward-fill", 160)] {
        let set = format!("data.gaps={policy}");
        let output = place.train(&data, policy, &["--set", &set]);
        succeeded(&output);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&format!("AAA BBB x {bars} bars")), "{said}");
        let counted = match policy {
            "drop" => "Dropped   AAA: 1 bar that other instruments lack; 159 bars are left",
            _ => "Filled    BBB 1 of 160 bars; no order fills at them",
        };
        assert!(said.contains(counted), "{said}");
        // The run stores the gap policy, which the backtest applies to the same gap.
        let output = place.backtest(&data, policy, &[]);
        succeeded(&output);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(counted) && !said.contains("warning"), "{said}");
        let page = std::fs::read_to_string(place.path(policy).join("report.html")).unwrap();
        assert!(page.contains(counted[10..].trim()), "the report says it as well");
        let held_out = bars - (f64::from(bars) * 0.75).round() as i32;
        assert_eq!(rows(&place.path(policy).join("equity.csv")).len() as i32, held_out + 1);
    }
}

#[test]
fn indicators_apply_the_gap_policy() {
    let place = Workplace::new();
    let data = place.write("gap.csv", &Market::new(&["AAA", "BBB"], 160).without("BBB", 100).csv());
    let run =
        |more: &[&str]| place.run(&[&["indicators", "--data", &data, "--out", "out.csv"], more].concat());
    for reject in [&[] as &[&str], &["--gaps", "reject"]] {
        refused(&run(reject), &["BBB", "2001-04-11"]);
        assert!(!place.path("out.csv").exists(), "{reject:?}");
    }
    for (policy, bars, of_the_gap) in [("drop", 159, 0), ("forward-fill", 160, 2)] {
        succeeded(&run(&["--gaps", policy]));
        let rows = rows(&place.path("out.csv"));
        assert_eq!(rows.len() - 1, 2 * bars, "{policy}");
        let met = rows.iter().filter(|row| row[0].starts_with("2001-04-11")).count();
        assert_eq!(met, of_the_gap, "{policy}");
        let values = |day: &str| {
            let row = rows.iter().find(|row| row[0].starts_with(day) && row[1] == "BBB");
            row.map(|row| row[2..].to_vec())
        };
        assert!(
            of_the_gap == 0 || values("2001-04-11") == values("2001-04-10"),
            "a filled bar moves no indicator"
        );
        assert_ne!(values("2001-04-12"), values("2001-04-10"));
    }
    let output = run(&["--gaps", "ignore"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("`reject`, `drop` or `forward-fill`"), "{said}");
}

#[test]
fn backtest_errors_are_explained() {
    let place = Workplace::new();
    place.trained("run");
    let before = contents(&place.path("run"));

    refused(&place.backtest(DEMO, "nowhere", &[]), &["nowhere", "holds no trained model"]);
    let other = place.write("other.csv", &Market::new(&["AAA", "BBB"], 160).csv());
    refused(&place.backtest(&other, "run", &[]), &["AAPL, GOOG, IBM, MSFT", "AAA, BBB"]);
    refused(&place.backtest("none.csv", "run", &[]), &["none.csv"]);
    for from in ["2013-03-02", "2013-03-01"] {
        let wanted = ["fewer than two bars", from, "2004-08-19", "2013-03-01"];
        refused(&place.backtest(DEMO, "run", &["--from", from]), &wanted);
    }
    refused(
        &place.backtest(DEMO, "run", &["--from", "2012-06-01", "--to", "2012-05-01"]),
        &["fewer than two bars"],
    );
    for (flag, date) in [("--from", "yesterday"), ("--to", "2012-13-01")] {
        refused(&place.backtest(DEMO, "run", &[flag, date]), &[flag, date]);
    }
    assert_eq!(contents(&place.path("run")), before, "nothing was written");

    // Trading bars of the training period prints a warning.
    let output = place.backtest(DEMO, "run", &["--from", "2010-06-01", "--to", "2010-06-30"]);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("trained on"), "{output:?}");
    let equity = rows(&place.path("run/equity.csv"));
    assert_eq!(
        (equity[1][0].as_str(), equity[22][0].as_str(), equity.len()),
        ("2010-06-01", "2010-06-30", 23)
    );

    let model = place.path("run/model.safetensors");
    let bytes = std::fs::read(&model).unwrap();
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&model, &bytes[..length]).unwrap();
        refused(
            &place.backtest(DEMO, "run", &[]),
            &["model.safetensors", "not a safetensors file, or truncated"],
        );
    }
}

#[test]
fn no_position_is_short_with_shorting_off() {
    let place = Workplace::new();
    let levels = |name: &str, sets: &[&str]| -> Vec<f64> {
        if sets.is_empty() {
            place.trained(name);
        } else {
            succeeded(&place.train(DEMO, name, sets));
        }
        succeeded(&place.backtest(DEMO, name, &[]));
        columns(&place.path(name).join("equity.csv"), "position_")
    };
    let free = levels("free", &[]);
    assert!(free.iter().any(|level| *level < 0.0), "the test needs short positions");
    let long = levels("long", &["--set", "market.shorting=false"]);
    assert!(long.iter().all(|level| *level >= 0.0));
    // With a single allowed position the account is flat before the first fill and holds that position afterwards.
    let one =
        levels("one", &["--set", "market.shorting=false", "--set", "market.positions=[-1.0, -0.5, 0.5]"]);
    assert!(one[..4].iter().all(|level| *level == 0.0) && one[4..].iter().all(|level| *level == 0.5));
}

#[test]
fn weights_train_and_backtest_with_every_cost() {
    let place = Workplace::new();
    let sets = [
        "market.actions=\"weights\"",
        "mappo.squash=true",
        "market.positions=[-2.0, 2.0]",
        "market.max_leverage=1.5",
        "market.spreads_bps.IBM=4",
        "market.min_commission=1",
        "market.commission_per_unit=0.005",
        "market.borrow_rate=0.03",
        "market.cash_rate=0.02",
        "market.margin_rate=0.05",
        "market.starting_equity=50000",
    ];
    succeeded(&place.train(DEMO, "run", &sets.map(|set| ["--set", set]).concat()));
    let output = place.backtest(DEMO, "run", &[]);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("Financing"), "{output:?}");
    let levels = columns(&place.path("run/equity.csv"), "position_");
    assert!(levels.iter().all(|level| level.abs() <= 2.0));
    assert!(levels.iter().any(|level| ![-2.0, 0.0, 2.0].contains(level)), "weights are continuous");
    assert_eq!(columns(&place.path("run/equity.csv"), "equity")[0], 50_000.0);
    let results = json(&place.path("run/metrics.json"));
    assert_eq!(results["costs"]["spread_bps"], serde_json::json!([0.0, 0.0, 4.0, 0.0]));
    assert!(results["strategy_financing"]["interest"].as_f64().is_some_and(|interest| interest != 0.0));
    let page = std::fs::read_to_string(place.path("run/report.html")).unwrap();
    assert!(page.contains("spread of IBM 4 bps") && page.contains("borrowing 3.0"), "costs in the report");
}

#[test]
fn the_doctor_names_adapter_and_plan() {
    let place = Workplace::new();
    let output = place.run(&["doctor"]);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let gpu = testing::gpu();
    for wanted in [
        gpu.info().name.as_str(),
        "Memory plan",
        "MiB of a budget of",
        "micro-batches",
        "subgroups",
        "MiB for this process",
    ] {
        assert!(said.contains(wanted), "`{wanted}` is missing in {said}");
    }
    // The source of the figure of memory.
    assert!(said.contains(&format!("({})", gpu.memory().source)), "{said}");
    assert!(said.lines().count() <= 24 && said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let output = place.run(&["doctor", "--verbose"]);
    succeeded(&output);
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    for wanted in ["nn/tile/forward", "observations", "invocations"] {
        assert!(all.contains(wanted) && !said.contains("nn/tile/forward"), "`{wanted}` is missing in {all}");
    }
    let wanted = ["no GPU adapter matches `nosuch`", gpu.info().name.as_str(), "PHALANX_ADAPTER"];
    refused(&place.run(&["doctor", "--adapter", "nosuch"]), &wanted);
    refused(&place.train(DEMO, "run", &["--adapter", "nosuch"]), &wanted);
    assert!(!place.path("run").exists());
    // Part of the name, in upper or lower case, is sufficient.
    let part = gpu.info().name.split_whitespace().next().unwrap().to_uppercase();
    succeeded(&place.run(&["--adapter", &part, "doctor"]));
}
