//! The target of the fuzzer of settings files, and of the test of the program that replays its corpus.

use crate::run::Settings;
use crate::settings::write_resolved;

/// Reads a settings file. What is accepted is written as a run writes it, and is the same when it is read again. Returns whether it
/// was accepted.
pub fn settings(data: &[u8]) -> bool {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), data).unwrap();
    let settings = match Settings::read(Some(file.path()), &[]) {
        Ok(settings) => settings,
        Err(error) => {
            assert!(!format!("{error:#}").is_empty());
            return false;
        }
    };
    write_resolved(file.path(), &settings).unwrap();
    assert!(Settings::read(Some(file.path()), &[]).unwrap() == settings);
    true
}
