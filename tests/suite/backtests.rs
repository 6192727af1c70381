//! The trainer program's choice of a model, and what its backtests tell.

use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::program::{DEMO, Market, SMALL, Workplace, columns, refused, succeeded};

const SYMBOLS: [&str; 4] = ["AAPL", "GOOG", "IBM", "MSFT"];

fn json(place: &Workplace, path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(place.path(path)).unwrap()).unwrap()
}

/// Values of a column of `metrics.csv` that are empty in some rows.
fn scores(place: &Workplace, run: &str) -> Vec<Option<f64>> {
    let rows = crate::common::program::rows(&place.path(run).join("metrics.csv"));
    let column = rows[0].iter().position(|name| name == "evaluation").unwrap();
    rows[1..].iter().map(|row| row[column].parse().ok()).collect()
}

#[test]
fn the_model_is_the_best_by_evaluation_also_after_a_resume() {
    let place = Workplace::new();
    let sets = ["mappo.iterations=6", "evaluation.every=1", "mappo.actor_learning_rate=0.05"];
    let sets = sets.map(|set| ["--set", set]).concat();
    succeeded(&place.train(DEMO, "run", &sets));
    let best = |run: &str| {
        let scores: Vec<f64> = scores(&place, run).into_iter().map(Option::unwrap).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (scores.iter().position(|score| *score == highest).unwrap() + 1, highest)
    };
    let chosen = |run: &str| {
        let summary = json(&place, &format!("{run}/training.json"));
        (summary["model_iteration"].as_u64().unwrap() as usize, summary["model_score"].as_f64())
    };
    let (iteration, score) = best("run");
    assert_eq!(chosen("run"), (iteration, Some(score)));
    let weights = |run: &str| {
        let bytes = std::fs::read(place.path(run).join("model.safetensors")).unwrap();
        SafeTensors::deserialize(&bytes).unwrap().tensor("actor.1.weight").unwrap().data().to_vec()
    };
    let of_best = weights("run");
    succeeded(&place.train(DEMO, "last", &[&sets as &[&str], &["--set", "evaluation.model=last"]].concat()));
    assert_eq!(chosen("last"), (6, None));
    assert_eq!(weights("last") == of_best, iteration == 6);
    assert_eq!(scores(&place, "last"), scores(&place, "run"), "the choice does not affect training");
    // The best of a longer run may lie in its first part, which another process trained.
    let further = |iterations| {
        let output =
            place.run(&["train", "--data", DEMO, "--out", "run", "--resume", "--iterations", iterations]);
        succeeded(&output);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    further("7");
    assert_eq!(best("run"), (iteration, score), "otherwise this shows nothing: choose another seed");
    assert_eq!(chosen("run"), (iteration, Some(score)));
    assert!(weights("run") == of_best);
    // A damaged best checkpoint is no reason not to resume.
    std::fs::write(place.path("run/checkpoints/best.safetensors"), "half a file").unwrap();
    let said = further("8");
    assert!(said.contains("warning: the best policy so far is lost"), "{said}");
}

#[test]
fn backtests_show_results_in_sample_beside_the_held_out_ones() {
    let place = Workplace::new();
    place.trained("run");
    let said = |more: &[&str]| {
        let output = place.backtest(DEMO, "run", more);
        succeeded(&output);
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let [stdout, stderr] = said(&[]);
    assert!(stdout.contains("In sample, on the bars it was trained on: return "), "{stdout}");
    assert!(!stderr.contains("Skipped"), "{stderr}");
    let page = std::fs::read_to_string(place.path("run/report.html")).unwrap();
    assert!(page.contains("In sample and out of sample"));
    // Bars that chose a model are not held out.
    succeeded(&place.train(DEMO, "chosen", &["--set", "evaluation.every=1", "--force"]));
    let output = place.backtest(DEMO, "chosen", &["--from", "2010-06-01"]);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("chose the model"), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("In sample"));
    // Bars of the training are in sample themselves.
    let [stdout, stderr] = said(&["--from", "2004-08-19"]);
    assert!(!stdout.contains("In sample"), "{stdout}");
    assert!(stderr.contains("Skipped ") && stderr.contains("bars of history"), "{stderr}");
}

#[test]
fn a_bankruptcy_is_told() {
    let place = Workplace::new();
    let sets = ["--set", "market.bankruptcy_level=0.99", "--set", "market.commission_bps=200"];
    succeeded(&place.train(DEMO, "run", &sets));
    let output = place.backtest(DEMO, "run", &[]);
    succeeded(&output);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("went bankrupt at 20") && stdout.contains("stayed closed"), "{stdout}");
    let equity = columns(&place.path("run/equity.csv"), "equity");
    assert_eq!(equity[equity.len() - 1], equity[equity.len() - 2], "a closed account stays as it is");
}

#[test]
fn bars_of_another_kind_are_refused_unless_forced() {
    let place = Workplace::new();
    let market = Market::new(&SYMBOLS, 400);
    let daily = place.write("daily.csv", &market.csv());
    succeeded(&place.train(&daily, "run", &[]));
    let refuse = |text: &str, wanted: &[&str]| {
        let file = place.write("other.csv", text);
        let results =
            || ["report.html", "metrics.json"].map(|name| std::fs::read(place.path("run").join(name)).ok());
        let before = results();
        refused(&place.backtest(&file, "run", &["--from", "2024-01-03"]), wanted);
        assert!(results() == before, "nothing is written");
        let output = place.backtest(&file, "run", &["--from", "2024-01-03", "--force"]);
        succeeded(&output);
        assert!(String::from_utf8_lossy(&output.stderr).contains("warning: the model was trained on"));
    };
    let cells = |line: &str| line.split(',').map(String::from).collect::<Vec<_>>();
    let mut lines: Vec<Vec<String>> = market.csv().lines().map(cells).collect();
    // The same rows, an hour apart: row k of an instrument in hour k of 2024.
    let hourly = |lines: &mut Vec<Vec<String>>| {
        let mut bars = std::collections::BTreeMap::new();
        for line in lines.iter_mut().skip(1) {
            let bar = bars.entry(line[1].clone()).or_insert(0);
            line[0] = format!("2024-01-{:02}T{:02}:00", 1 + *bar / 24, *bar % 24);
            *bar += 1;
        }
    };
    hourly(&mut lines);
    let text = |lines: &[Vec<String>]| lines.iter().map(|line| line.join(",") + "\n").collect::<String>();
    refuse(&text(&lines), &["trained on other candles: these are bars 1h apart instead of 24h", "--force"]);
    lines = market.csv().replace("2001-", "2024-").replace("2002-", "2025-").lines().map(cells).collect();
    lines.iter_mut().for_each(|line| line.truncate(6));
    refuse(&text(&lines), &["these are candles without volume instead of candles with it"]);
}

#[test]
fn damaged_files_of_a_run_are_refused() {
    let place = Workplace::new();
    place.trained("run");
    let file = |name: &str| place.path("run").join(name);
    let summary = std::fs::read_to_string(file("training.json")).unwrap();
    let seconds = summary.lines().find(|line| line.contains("\"seconds\"")).unwrap();
    for (value, wanted) in
        [("1e300", "1e300 is out of range"), ("-1.0", "-1 is out of range"), ("null", "invalid type")]
    {
        std::fs::write(file("training.json"), summary.replace(seconds, &format!("\"seconds\": {value},")))
            .unwrap();
        refused(&place.backtest(DEMO, "run", &[]), &["training.json", "`seconds`: ", wanted]);
    }
    std::fs::write(file("training.json"), &summary).unwrap();

    let settings = std::fs::read_to_string(file("config.toml")).unwrap();
    std::fs::write(
        file("config.toml"),
        settings.replace("train_fraction", "periods_per_year = nan\ntrain_fraction"),
    )
    .unwrap();
    refused(
        &place.backtest(DEMO, "run", &[]),
        &["config.toml:", "`data.periods_per_year`: NaN is out of range"],
    );
    std::fs::write(file("config.toml"), &settings).unwrap();

    let model = std::fs::read(file("model.safetensors")).unwrap();
    let mut flipped = model.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(file("model.safetensors"), &flipped).unwrap();
    refused(&place.backtest(DEMO, "run", &[]), &["model.safetensors", "checksum mismatch"]);
    // As older versions wrote it.
    let (length, rest) = model.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = std::str::from_utf8(header).unwrap();
    let start = header.find(",\\\"crc32\\\":").unwrap();
    let end = start + header[start..].find('}').unwrap();
    let older = format!("{}{}", &header[..start], &header[end..]);
    let bytes = [&(older.len() as u64).to_le_bytes(), older.as_bytes(), data].concat();
    std::fs::write(file("model.safetensors"), bytes).unwrap();
    let output = place.backtest(DEMO, "run", &[]);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("WARN") && said.contains("no checksum") && said.contains("model.safetensors"),
        "{said}"
    );
}

/// No adapter has this name: settings are refused before one is looked for.
#[test]
fn settings_are_refused_when_given() {
    let place = Workplace::new();
    let train = |more: &[&str]| {
        let start = ["train", "--adapter", "no such adapter", "--data", DEMO, "--out", "run"];
        place.run(&[&start as &[&str], &SMALL, more].concat())
    };
    for (more, wanted) in [
        (["--set", "data.periods_per_year=0"], &["`data.periods_per_year`: 0 is out of range"] as &[&str]),
        (["--set", "data.periods_per_year=nan"], &["`data.periods_per_year`: NaN is out of range"]),
        (["--set", "evaluation.fraction=nan"], &["`evaluation.fraction`: NaN is out of range"]),
        (["--set", "checkpoints.keep=0"], &["`checkpoints.keep`: 0 is out of range"]),
        (["--set", "mappo.hidden=[0]"], &["`mappo.hidden`: 0 is out of range"]),
        (
            ["--set", "market.spreads_bps={ZZZ=1}"],
            &["`spreads_bps`: `ZZZ` is not an instrument of the candles"],
        ),
        (
            ["--seed", "18446744073709551615"],
            &["`mappo.seed`: 18446744073709551615 is out of range", "9223372036854775807"],
        ),
    ] {
        let output = train(&more);
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap();
        assert_eq!(output.status.code(), Some(1), "{more:?}: {said}");
        assert!(said.starts_with("error: ") && !said.contains("adapter"), "{more:?}: {said}");
        assert!(wanted.iter().all(|part| said.contains(part)), "{more:?}: {said}");
    }
    let output = train(&["--seed", "9223372036854775807"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no GPU adapter matches"), "{said}");
}
