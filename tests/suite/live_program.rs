//! `trainer live`, `serve`, `validate` and `readiness`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use phalanx::market::{Candles, GapPolicy};
use serde_json::Value;

use crate::common::program::{DEMO, Workplace, refused, succeeded};

/// Bars of history before the first live one.
const HISTORY: usize = 300;

/// Live bars.
pub const BARS: usize = 40;

/// Writes the history as a candle file. Returns the live bars as rows of a table, an instrument each, and as JSON, a line of all.
pub fn bars(place: &Workplace) -> (Vec<String>, Vec<String>) {
    let candles = Candles::load(&[DEMO], GapPolicy::Reject).unwrap();
    let row = |bar: usize, i: usize| {
        let at = [i, bar];
        let volume = candles.volume.as_ref().unwrap()[at];
        let (time, symbol) = (candles.timestamps[bar].date(), &candles.symbols[i]);
        let [open, high, low, close] =
            [&candles.open, &candles.high, &candles.low, &candles.close].map(|prices| prices[at]);
        (
            format!("{time},{symbol},{open},{high},{low},{close},{volume}"),
            format!(
                r#""{symbol}":{{"open":{open},"high":{high},"low":{low},"close":{close},"volume":{volume}}}"#
            ),
        )
    };
    let header = "timestamp,symbol,open,high,low,close,volume";
    let all = |bar: usize| (0..candles.instruments()).map(move |i| (bar, i));
    let history = (0..HISTORY).flat_map(all).map(|(bar, i)| row(bar, i).0);
    place.write("history.csv", &format!("{header}\n{}\n", history.collect::<Vec<_>>().join("\n")));
    let live = HISTORY..HISTORY + BARS;
    let rows = live.clone().flat_map(all).map(|(bar, i)| row(bar, i).0);
    let rows = std::iter::once(header.to_string()).chain(rows).collect();
    let json = live.map(|bar| {
        let bars: Vec<_> = all(bar).map(|(bar, i)| row(bar, i).1).collect();
        format!(r#"{{"time":"{}","bars":{{{}}}}}"#, candles.timestamps[bar].date(), bars.join(","))
    });
    (rows, json.collect())
}

/// Runs `live` on lines; returns the lines of its output, and standard error.
pub fn live(place: &Workplace, more: &[&str], lines: &[String]) -> (Vec<Value>, String) {
    live_of(place, "run", more, lines)
}

/// The same with another run.
pub fn live_of(place: &Workplace, run: &str, more: &[&str], lines: &[String]) -> (Vec<Value>, String) {
    let arguments = [&["live", "--run", run, "--data", "history.csv"], more].concat();
    let mut child = started(place.command(&arguments));
    let mut input = child.stdin.take().unwrap();
    let text = lines.join("\n") + "\n";
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    succeeded(&output);
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, String::from_utf8(output.stderr).unwrap())
}

pub fn started(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The decisions without what depends on the clock.
pub fn decisions(lines: &[Value]) -> Vec<Value> {
    let decided = lines.iter().filter(|line| line.get("targets").is_some());
    let timeless = |line: &Value| {
        let mut line = line.clone();
        line.as_object_mut().unwrap().retain(|key, _| key != "latency_us" && key != "resumed");
        line
    };
    decided.map(timeless).collect()
}

#[test]
fn decisions_on_rows_and_on_json_are_the_same_and_bad_lines_change_nothing() {
    let place = Workplace::new();
    place.trained("run");
    let (rows, json) = bars(&place);
    let (of_rows, said) = live(&place, &[], &rows);
    let expected = decisions(&of_rows);
    assert_eq!(expected.len(), BARS);
    assert!(said.contains(&format!("Decisions {BARS}, latency p50 ")), "{said}");
    assert!(
        expected[0]["targets"]["AAPL"].is_number() && expected[0]["probabilities"]["MSFT"][2].is_number()
    );
    // Every decision but the last is in the account of the next bar.
    assert!(expected.windows(2).any(|pair| pair[0]["equity"] != pair[1]["equity"]));

    let mut lines = json.clone();
    lines.insert(3, "no bar".into());
    lines.insert(5, json[2].clone());
    lines.insert(7, r#"{"time":"2010-01-01","symbol":"XYZ","open":1,"high":1,"low":1,"close":1}"#.into());
    lines.insert(9, json[9].replace("\"open\":", "\"open\":-"));
    lines.insert(11, "x".repeat(2 << 20));
    let (of_json, said) = live(&place, &["--set", "live.latency_limit_ms=0.001"], &lines);
    assert_eq!(decisions(&of_json), expected);
    let errors: Vec<_> = of_json.iter().filter_map(|line| line.get("error")).map(Value::to_string).collect();
    let wanted = ["not a bar in JSON", "is late", "XYZ", "open is -", "more than 1 MiB"];
    assert_eq!(errors.len(), wanted.len(), "{errors:?}");
    for (error, wanted) in errors.iter().zip(wanted) {
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    assert!(said.contains(&format!("; {BARS} above 0.001 ms")), "{said}");
    assert!(said.contains("5 lines could not be used"), "{said}");
}

#[test]
fn a_killed_program_goes_on_with_the_same_decisions() {
    let place = Workplace::new();
    place.trained("run");
    let (_, json) = bars(&place);
    let expected = decisions(&live(&place, &[], &json).0);
    let state = ["--state", "journal", "--save-every", "7"];
    let arguments = [&["live", "--run", "run", "--data", "history.csv"], &state as &[_]].concat();
    let mut child = started(place.command(&arguments));
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut first = Vec::new();
    for line in &json[..17] {
        writeln!(input, "{line}").unwrap();
        first.push(read_line(&mut output));
    }
    // Without a chance to save anything.
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(decisions(&first), expected[..17]);
    // A torn line, as a crash of the machine may leave it.
    let journal = std::fs::read_to_string(place.path("journal")).unwrap();
    let torn = journal.trim_end().rfind('\n').unwrap() + 30;
    std::fs::write(place.path("journal"), &journal[..torn]).unwrap();
    let (rest, said) = live(&place, &["--state", "journal", "--resume"], &json[16..]);
    assert!(said.contains("the last line was incomplete") && said.contains("after 16 bars"), "{said}");
    assert_eq!(rest[0]["resumed"], true);
    assert_eq!(decisions(&rest), expected[15..]);
    // Once more, without any new bar: the journal has them all.
    let (again, said) = live(&place, &["--state", "journal", "--resume"], &[]);
    assert!(said.contains(&format!("after {BARS} bars")), "{said}");
    assert_eq!(decisions(&again), expected[BARS - 1..]);
    let again = place.run(&[&["live", "--run", "run", "--data", "history.csv"], &state as &[_]].concat());
    refused(&again, &["journal exists", "--resume"]);
    let other = place.run(&["live", "--run", "run", "--state", "journal", "--resume"]);
    refused(&other, &["began after other candles"]);
}

fn read_line(output: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn what_cannot_be_served_is_refused() {
    let place = Workplace::new();
    place.trained("run");
    refused(&place.run(&["live", "--run", "nothing"]), &["holds no trained model"]);
    refused(&place.run(&["live", "--run", "run", "--data", "absent.csv"]), &["absent.csv"]);
    refused(&place.run(&["live", "--run", "run", "--set", "mappo.gamma=1"]), &["mappo.gamma=1", "`live.`"]);
    refused(
        &place.run(&["live", "--run", "run", "--set", "live.latency_limit_ms=0"]),
        &["live.latency_limit_ms"],
    );
    refused(&place.run(&["serve", "--run", "run", "--listen", "0.0.0.0:0"]), &["--token-file"]);
    place.write("token", "short");
    refused(
        &place.run(&["serve", "--run", "run", "--listen", "0.0.0.0:0", "--token-file", "token"]),
        &["at least 16"],
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&place.run(&["serve", "--run", "run", "--listen", &address]), &["--listen", "another port"]);
    let model = place.path("run").join("model.safetensors");
    let bytes = std::fs::read(&model).unwrap();
    std::fs::write(&model, &bytes[..bytes.len() / 2]).unwrap();
    refused(&place.run(&["live", "--run", "run"]), &["model.safetensors", "truncated"]);
}

/// A server that ends with the test.
pub struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    pub fn start(place: &Workplace, more: &[&str]) -> Self {
        let arguments =
            [&["serve", "--run", "run", "--data", "history.csv", "--listen", "127.0.0.1:0"], more].concat();
        let mut child = started(place.command(&arguments));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("Listening on http://").unwrap().trim_end_matches('/').to_string();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Status and body.
    pub fn request(&self, method: &str, path: &str, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // The server may answer before it has read everything.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        (head.split(' ').nth(1).unwrap_or("0").parse().unwrap(), body.to_string())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn bars_over_http_get_the_decisions_of_live_whatever_other_clients_do() {
    let place = Workplace::new();
    place.trained("run");
    let (_, json) = bars(&place);
    let expected = decisions(&live(&place, &[], &json).0);
    let server = Serving::start(&place, &["--state", "journal"]);
    // A client that never reads its events, one that never ends its body, and one that claims to send a gibibyte.
    let mut deaf = server.connect();
    deaf.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut slow = server.connect();
    slow.write_all(b"POST /bars HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{").unwrap();
    let mut large = server.connect();
    large
        .write_all(
            format!("POST /bars HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 1u64 << 30)
                .as_bytes(),
        )
        .unwrap();
    let chunk = vec![b' '; 1 << 20];
    let sent = Instant::now();
    while large.write_all(&chunk).is_ok() {
        assert!(sent.elapsed() < Duration::from_secs(20), "a gibibyte is read");
    }
    let answers: Vec<Value> = json
        .iter()
        .map(|line| {
            let (status, body) = server.request("POST", "/bars", "", line.as_bytes());
            assert_eq!(status, 200, "{body}");
            serde_json::from_str(&body).unwrap()
        })
        .collect();
    assert_eq!(decisions(&answers), expected);
    for (body, status, wanted) in [
        ("no bar", 400, "not a bar"),
        (&json[3], 400, "is late"),
        (r#"{"time":"2020-01-01","bars":{"XYZ":{"open":1,"high":1,"low":1,"close":1}}}"#, 400, "XYZ"),
        (r#"{"time":"2100-01-01","bars":{}}"#, 400, "lies in the future"),
        (&" ".repeat(2 << 20), 413, "1 MiB"),
    ] {
        let (got, body) = server.request("POST", "/bars", "", body.as_bytes());
        assert!(
            got == status && body.contains(wanted) || status == 413 && got == 0,
            "{status}: {got} {body}"
        );
    }
    let (status, health) = server.request("GET", "/health", "", b"");
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!((status, &health["status"], &health["decisions"]), (200, &"ready".into(), &BARS.into()));
    let (_, last) = server.request("GET", "/last", "", b"");
    assert_eq!(decisions(&[serde_json::from_str(&last).unwrap()]), expected[BARS - 1..]);
    let (_, metrics) = server.request("GET", "/metrics", "", b"");
    for line in [
        &format!("phalanx_decisions_total {BARS}"),
        "phalanx_refused_messages_total 3",
        &format!("phalanx_decision_latency_seconds_count {BARS}"),
        "phalanx_target_level{symbol=\"AAPL\"}",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let (_, page) = server.request("GET", "/", "", b"");
    assert!(page.contains("EventSource") && !page.contains("http://") && !page.contains("https://"));
    let mut events = server.connect();
    events.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let state =
        BufReader::new(events).lines().map(Result::unwrap).find(|line| line.starts_with("data: ")).unwrap();
    let state: Value = serde_json::from_str(state.trim_start_matches("data: ")).unwrap();
    assert_eq!(state["recent"].as_array().unwrap().len(), BARS);
    assert_eq!(server.request("GET", "/nothing", "", b"").0, 404);
    drop(server);
    // The journal is that of `live`.
    let (again, _) = live(&place, &["--state", "journal", "--resume"], &[]);
    assert_eq!(decisions(&again), expected[BARS - 1..]);
}

#[test]
fn a_token_is_asked_for_everywhere() {
    let place = Workplace::new();
    place.trained("run");
    bars(&place);
    place.write("token", "0123456789abcdef\n");
    let server = Serving::start(&place, &["--token-file", "token"]);
    for path in ["/", "/events", "/health", "/last", "/metrics"] {
        assert_eq!(server.request("GET", path, "", b"").0, 401, "{path}");
        assert_eq!(server.request("GET", path, "Authorization: Bearer 0123456789abcdeF\r\n", b"").0, 401);
    }
    assert_eq!(server.request("POST", "/bars", "", b"{}").0, 401);
    assert_eq!(server.request("GET", "/health", "Authorization: Bearer 0123456789abcdef\r\n", b"").0, 200);
    assert_eq!(server.request("GET", "/?token=0123456789abcdef", "", b"").0, 200);
}

#[test]
fn a_model_is_validated_within_seconds() {
    let place = Workplace::new();
    place.trained("run");
    // The driver's cache is warm after the first.
    succeeded(&place.run(&["validate", "--run", "run", "--data", DEMO, "--set", "validate.seconds=60"]));
    let output =
        place.run(&["validate", "--run", "run", "--data", DEMO, "--json", "--set", "validate.seconds=60"]);
    succeeded(&output);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["passed"], report["episodes"].as_array().unwrap().len()), (&true.into(), 5));
    assert_eq!(report["latency_ms"]["decisions"], 255);
    println!("validate: {} s", report["seconds"]);
    let strict = place.run(&["validate", "--run", "run", "--data", DEMO, "--set", "validate.min_return=10"]);
    assert_eq!(strict.status.code(), Some(1));
    let said = String::from_utf8(strict.stdout).unwrap();
    assert!(said.contains("FAIL  mean return") && said.contains("did not pass"), "{said}");
    let rows: Vec<_> = std::iter::once("timestamp,symbol,open,high,low,close,volume".to_string())
        .chain((1..=28).flat_map(|day| {
            ["AAPL", "GOOG", "IBM", "MSFT"].map(|symbol| format!("2024-02-{day:02},{symbol},1,2,1,2,5"))
        }))
        .collect();
    place.write("short.csv", &rows.join("\n"));
    let short = place.run(&["validate", "--run", "run", "--data", "short.csv"]);
    assert_eq!(short.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&short.stderr).contains("expected 500 at least"));
}

#[test]
fn readiness_is_computed() {
    let place = Workplace::new();
    let output = place.run(&["readiness", "--quick", "--json", "--threshold", "0"]);
    succeeded(&output);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let promises = report["promises"].as_array().unwrap();
    let weight = |of: &dyn Fn(&Value) -> bool| -> f64 {
        promises.iter().filter(|promise| of(promise)).map(|promise| promise["weight"].as_f64().unwrap()).sum()
    };
    let score = weight(&|promise| promise["verdict"] == "kept") / weight(&|_| true);
    assert!((report["score"].as_f64().unwrap() - score).abs() < 1e-9);
    for (promise, kept) in
        [("same bytes", true), ("allocates nothing", true), ("micro-batches", true), ("f16 halves", true)]
    {
        let found =
            promises.iter().find(|found| found["promise"].as_str().unwrap().contains(promise)).unwrap();
        assert_eq!(found["verdict"] == "kept", kept, "{found}");
    }
    let strict = place.run(&["readiness", "--quick", "--threshold", "1"]);
    assert_eq!(strict.status.code(), Some(1), "something is always left out by --quick");
}
