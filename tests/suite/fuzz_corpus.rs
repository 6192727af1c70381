//! Replays the corpus of the fuzzers (`fuzz/`): what they found once is not lost again.

#[path = "../../fuzz/targets.rs"]
mod targets;

fn replay(name: &str, target: impl Fn(&[u8])) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
    let mut files: Vec<_> =
        std::fs::read_dir(format!("{folder}/{name}")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        println!("{}", path.display());
        target(&std::fs::read(&path).unwrap());
    }
}

#[test]
fn candle_files() {
    replay("candles", targets::candles);
}

#[test]
fn models() {
    replay("model", targets::model);
}

#[test]
fn checkpoints() {
    replay("checkpoint", targets::checkpoint);
}

#[test]
fn live_bars() {
    replay("live_bars", targets::live_bars);
}
