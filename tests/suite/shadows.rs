//! `trainer live --shadow`: a second policy decides on the same bars and changes nothing.

use std::io::Write as _;
use std::time::{Duration, Instant};

use phalanx::mappo::Precision;
use phalanx::policy::Policy;
use serde_json::Value;

use crate::common::program::{DEMO, Workplace, refused, succeeded};
use crate::live_program::{BARS, Serving, bars, decisions, live, live_of, started};

const SHADOW: [&str; 4] = ["--state", "journal", "--shadow", "other"];

/// A trained run, another one, and the live bars.
fn place_of_two() -> (Workplace, Vec<String>) {
    let place = Workplace::new();
    place.trained("run");
    succeeded(&place.train(DEMO, "other", &["--seed", "9", "--set", "mappo.hidden=[6,6]"]));
    let json = bars(&place).1;
    (place, json)
}

fn text(place: &Workplace, name: &str) -> String {
    std::fs::read_to_string(place.path(name)).unwrap_or_default()
}

/// Keeps the first bars of a journal.
fn cut(place: &Workplace, name: &str, bars: usize) {
    let lines: String = text(place, name).lines().take(bars + 1).map(|line| format!("{line}\n")).collect();
    place.write(name, &lines);
}

/// Waits until a journal has so many bars.
fn wait_for(place: &Workplace, name: &str, bars: usize) {
    let start = Instant::now();
    while text(place, name).matches('\n').count() < bars + 1 {
        assert!(start.elapsed() < Duration::from_secs(120), "{name} takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_shadow_changes_nothing_and_keeps_the_journal_of_a_session_of_its_own() {
    let (place, json) = place_of_two();
    // From the sixth bar on the account is what its owner says; that of the shadow stays a simulated one.
    let held = |(bar, line): (usize, &String)| match bar {
        ..5 => line.clone(),
        _ => format!(
            "{},\"holdings\":{{\"equity\":{},\"units\":{{\"IBM\":7}}}}}}",
            &line[..line.len() - 1],
            9000 + bar
        ),
    };
    let with_holdings: Vec<_> = json.iter().enumerate().map(held).collect();
    let expected = decisions(&live(&place, &["--state", "alone"], &with_holdings).0);
    assert_eq!(expected.len(), BARS);
    let (lines, said) = live(&place, &SHADOW, &with_holdings);
    assert_eq!(decisions(&lines), expected);
    assert_eq!(lines.len(), BARS, "nothing but the acting policy's decisions");
    assert!(
        said.contains("Shadow    other: equity ")
            && said.contains("`trainer compare journal shadow-journal`"),
        "{said}"
    );
    assert!(text(&place, "journal") == text(&place, "alone"), "the journal of the acting policy");
    let own = decisions(&live_of(&place, "other", &["--state", "own"], &json).0);
    assert!(text(&place, "shadow-journal") == text(&place, "own"), "the journal of the shadow");

    // Both journals are accounts.
    let output = place.run(&["compare", "journal", "shadow-journal", "--resamples", "100"]);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with(&format!("{BARS} bars, ")) && said.contains("\nshadow-journal\n"), "{said}");
    let equity = |line: &Value| line["equity"].as_f64().unwrap();
    let gain = equity(own.last().unwrap()) / equity(&own[0]) - 1.0;
    let shown = said.split_once("\nshadow-journal\n").unwrap().1;
    assert!(shown.contains(&format!("{:.2} %", gain * 100.0)), "{gain}: {said}");
}

#[test]
fn a_restart_resumes_both() {
    let (place, json) = place_of_two();
    let expected = decisions(&live(&place, &["--state", "alone"], &json).0);
    live_of(&place, "other", &["--state", "own"], &json);
    let arguments = [&["live", "--run", "run", "--data", "history.csv"], &SHADOW as &[_]].concat();
    let mut child = started(place.command(&arguments));
    let mut input = child.stdin.take().unwrap();
    json[..17].iter().for_each(|line| writeln!(input, "{line}").unwrap());
    wait_for(&place, "shadow-journal", 17);
    child.kill().unwrap();
    child.wait().unwrap();
    // A crash of the machine kept more of the shadow's journal than of the other.
    cut(&place, "journal", 12);
    let resume = [&SHADOW as &[_], &["--resume"]].concat();
    let (lines, _) = live(&place, &resume, &json[12..]);
    assert_eq!(decisions(&lines), expected[11..]);
    let same = || {
        assert!(text(&place, "journal") == text(&place, "alone"));
        assert!(text(&place, "shadow-journal") == text(&place, "own"));
    };
    same();
    // The shadow was killed before it had decided on all bars, or came later.
    for bars in [8, 0] {
        cut(&place, "shadow-journal", bars);
        if bars == 0 {
            std::fs::remove_file(place.path("shadow-journal")).unwrap();
        }
        let (lines, said) = live(&place, &resume, &[]);
        assert_eq!(decisions(&lines), expected[BARS - 1..]);
        assert!(said.contains(&format!("other decides afterwards on {} bars", BARS - bars)), "{said}");
        same();
    }
    // A journal of another session.
    live_of(&place, "other", &["--state", "later"], &json[1..]);
    std::fs::copy(place.path("later"), place.path("shadow-journal")).unwrap();
    let arguments = [&["live", "--run", "run", "--data", "history.csv"], &resume[..]].concat();
    let output = place.run(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--shadow other: ") && said.contains("is that of another session"), "{said}");
}

#[test]
fn a_shadow_that_fails_is_told_once_and_stops_nothing() {
    let (place, json) = place_of_two();
    let expected = decisions(&live(&place, &[], &json).0);
    let path = place.path("other/model.safetensors");
    let policy = Policy::load(&path).unwrap();
    // f16 ends at 65,504.
    let large = policy.weights().iter().map(|weight| weight * 1e6).collect();
    let huge = Policy::new(policy.metadata().clone(), large).unwrap();
    huge.with_precision(Precision::F16).unwrap().save(&path).unwrap();
    let (lines, said) = live(&place, &SHADOW, &json);
    assert_eq!(decisions(&lines), expected);
    assert_eq!(said.matches("the shadow other ends, and the acting policy goes on").count(), 1, "{said}");
    assert!(!said.contains("equity"), "{said}");
}

#[test]
fn shadows_that_need_other_bars_are_refused() {
    let (place, _) = place_of_two();
    let header = "timestamp,symbol,open,high,low,close,volume\n";
    let rows = |symbols: &[&str], time: &dyn Fn(usize) -> String| -> String {
        let row = |bar: usize, symbol: &&str| {
            let price = 10 + (bar * 7 + symbol.len()) % 13;
            format!(
                "{},{symbol},{price},{},{},{},{}\n",
                time(bar),
                price + 2,
                price - 2,
                price + bar % 3 - 1,
                1000 + bar
            )
        };
        (0..400).flat_map(|bar| symbols.iter().map(move |symbol| row(bar, symbol))).collect()
    };
    let hours = |bar: usize| format!("2024-01-{:02}T{:02}:00", 1 + bar / 24, bar % 24);
    let four =
        place.write("hours.csv", &format!("{header}{}", rows(&["AAPL", "GOOG", "IBM", "MSFT"], &hours)));
    let two = place.write("two.csv", &format!("{header}{}", rows(&["AAPL", "GOOG"], &hours)));
    succeeded(&place.train(&four, "hourly", &[]));
    succeeded(&place.train(&two, "two", &[]));
    let run = |shadow: &str| {
        place.run(&[
            "live",
            "--run",
            "run",
            "--data",
            "history.csv",
            "--state",
            "journal",
            "--shadow",
            shadow,
        ])
    };
    refused(&run("two"), &["--shadow two: it trades AAPL, GOOG, and run trades AAPL, GOOG, IBM, MSFT"]);
    refused(&run("absent"), &["absent holds no trained model"]);
    let wanted = "--shadow hourly: it was trained on bars 1h apart instead of 24h, unlike run";
    refused(&run("hourly"), &[wanted]);
    assert!(!place.path("journal").exists());
    place.write("shadow-journal", "");
    refused(&run("other"), &["shadow-journal exists"]);
    assert!(!place.path("journal").exists());
    let output = place.run(&["live", "--run", "run", "--shadow", "other"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--state"));
}

#[test]
fn a_server_has_a_shadow_too() {
    let (place, json) = place_of_two();
    let expected = decisions(&live(&place, &[], &json).0);
    live_of(&place, "other", &["--state", "own"], &json);
    let server = Serving::start(&place, &SHADOW);
    let (status, body) = server.request("POST", "/bars", "", json.join("\n").as_bytes());
    assert_eq!(status, 200);
    let answers: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(decisions(&answers), expected);
    wait_for(&place, "shadow-journal", BARS);
    assert!(text(&place, "shadow-journal") == text(&place, "own"));
}
