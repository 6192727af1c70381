//! Replays the corpus of the fuzzers (`fuzz/`): what they found once is not lost again.
//!
//! When a format has changed and a seed is no longer accepted, `PHALANX_WRITE_SEEDS=1` writes those of models and checkpoints anew.

use std::path::PathBuf;

use crate::common::program::Workplace;

#[path = "../../fuzz/targets.rs"]
mod targets;

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus")).join(name)
}

/// Runs a target on its corpus, of which it has to accept a part.
fn replay(name: &str, target: impl Fn(&[u8]) -> bool) {
    let mut files: Vec<_> =
        std::fs::read_dir(corpus(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let accepted = files.iter().filter(|path| {
        println!("{}", path.display());
        target(&std::fs::read(path).unwrap())
    });
    let accepted = accepted.count();
    assert!(accepted > 0, "all {} inputs are refused", files.len());
}

fn writes_seeds() -> bool {
    std::env::var_os("PHALANX_WRITE_SEEDS").is_some()
}

#[test]
fn candle_files() {
    replay("candles", targets::candles);
}

#[test]
fn models() {
    if writes_seeds() {
        let place = Workplace::new();
        place.trained("run");
        std::fs::copy(place.path("run/model.safetensors"), corpus("model").join("seed.safetensors")).unwrap();
    }
    replay("model", targets::model);
}

#[test]
fn checkpoints() {
    if writes_seeds() {
        let mut trainer = targets::trainer();
        trainer.train_until(2, |_| ()).unwrap();
        trainer.save(&corpus("checkpoint").join("seed.safetensors"), None).unwrap();
    }
    replay("checkpoint", targets::checkpoint);
}

#[test]
fn live_bars() {
    replay("live_bars", targets::live_bars);
}
