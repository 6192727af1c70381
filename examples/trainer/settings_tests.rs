use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Precision {
    F16,
    F32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ppo {
    learning_rate: f32,
    epochs: u32,
    target_kl: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    ppo: Ppo,
    name: String,
    seed: u64,
    precision: Precision,
    hidden: Vec<u32>,
    positions: Vec<f64>,
    train_end: Option<String>,
    shuffle: bool,
    limit: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ppo: Ppo { learning_rate: 3e-4, epochs: 4, target_kl: None },
            name: "demo".into(),
            seed: 1,
            precision: Precision::F16,
            hidden: vec![64, 64],
            positions: vec![-1.0, 0.0, 1.0],
            train_end: None,
            shuffle: true,
            limit: f64::INFINITY,
        }
    }
}

fn resolve<T: Default + Serialize + DeserializeOwned>(
    file: Option<&Path>,
    sets: &[String],
) -> anyhow::Result<T> {
    super::resolve(file, sets, &[], |_| Ok(()))
}

/// Resolves a file with this text; errors contain `FILE` instead of its path.
fn resolve_text(text: &str, sets: &[&str]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.toml");
    std::fs::write(&path, text).unwrap();
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    resolve(Some(&path), &sets).map_err(|error| format!("{error:#}").replace(path.to_str().unwrap(), "FILE"))
}

fn error(text: &str, sets: &[&str]) -> String {
    resolve_text(text, sets).unwrap_err()
}

#[test]
fn empty_layers_give_the_defaults() {
    assert_eq!(resolve::<Settings>(None, &[]).unwrap(), Settings::default());
    assert_eq!(resolve_text("", &[]).unwrap(), Settings::default());
    assert_eq!(resolve_text("# only a comment\n[ppo]\n", &["ppo={}"]).unwrap(), Settings::default());
}

#[test]
fn later_layers_win() {
    let text = "seed = 5\r\nname = 'file'\r\n[ppo]\r\nepochs = 9\r\nlearning_rate = 0.01\r\n";
    let got = resolve_text(text, &["seed=6", "ppo.epochs = 7", "seed=8"]).unwrap();
    let ppo = Ppo { learning_rate: 0.01, epochs: 7, target_kl: None };
    assert_eq!(got, Settings { seed: 8, name: "file".into(), ppo, ..Settings::default() });
}

#[test]
fn optional_settings_are_known_and_typed() {
    let got = resolve_text("train_end = 2018-12-31\n[ppo]\ntarget_kl = 0.02\n", &[]).unwrap();
    assert_eq!((got.ppo.target_kl, got.train_end.as_deref()), (Some(0.02), Some("2018-12-31")));
    let got = resolve_text("", &["ppo.target_kl=1", "train_end=2019-01-01"]).unwrap();
    assert_eq!((got.ppo.target_kl, got.train_end.as_deref()), (Some(1.0), Some("2019-01-01")));
    let got = error("seed = 3\n\n[ppo]\nepochs = 2\ntarget_kl = 'small'\n", &["seed=4"]);
    assert_eq!(got, "FILE:5: setting `ppo.target_kl`: invalid type: string \"small\", expected f64");
}

#[test]
fn integers_convert_to_floats_but_not_the_reverse() {
    let got = resolve_text("positions = [0, 1, 0.5]\nlimit = 3", &["ppo.learning_rate=1"]).unwrap();
    assert_eq!((got.positions, got.limit, got.ppo.learning_rate), (vec![0.0, 1.0, 0.5], 3.0, 1.0));
    assert_eq!(
        error("", &["ppo.epochs=2.0"]),
        "--set ppo.epochs=2.0: setting `ppo.epochs`: invalid type: floating point `2.0`, expected u32"
    );
    assert_eq!(
        error("hidden = [64, 3.5]", &[]),
        "FILE:1: setting `hidden[1]`: invalid type: floating point `3.5`, expected u32"
    );
}

#[test]
fn tables_and_texts_of_a_set_reach_their_settings() {
    let got = resolve_text("", &["ppo={epochs=9, target_kl=1}", "train_end=7"]).unwrap();
    let ppo = Ppo { epochs: 9, target_kl: Some(1.0), ..Settings::default().ppo };
    assert_eq!(got, Settings { ppo, train_end: Some("7".into()), ..Settings::default() });
    assert_eq!(
        error("seed = 1", &["ppo={epochs=true}", "seed=2"]),
        "--set ppo={epochs=true}: setting `ppo.epochs`: invalid type: boolean `true`, expected u32"
    );
}

#[test]
fn a_value_that_a_later_one_replaces_has_to_be_valid() {
    let message = error("seed = 'x'", &["seed=2"]);
    assert!(message.starts_with("FILE:1: setting `seed`: invalid type: string"), "{message}");
    let message = error("ppo = 1", &["ppo.epochs=3"]);
    assert!(message.starts_with("FILE:1: setting `ppo`: invalid type: integer"), "{message}");
}

#[test]
fn a_bare_word_is_a_string() {
    let got = resolve_text("", &["precision=f32", "name=my run = 2"]).unwrap();
    assert_eq!((got.precision, got.name.as_str()), (Precision::F32, "my run = 2"));
    for (set, name) in
        [("name=12", "12"), ("name=2019-01-01", "2019-01-01"), ("name=\"a b\"", "a b"), ("name=", "")]
    {
        assert_eq!(resolve_text("", &[set]).unwrap().name, name, "{set}");
    }
    assert!(error("", &["hidden=[64"]).starts_with("--set hidden=[64: "));
    assert!(error("", &["seed"]).contains("expected `key=value`"));
    assert!(error("", &["ppo..epochs=1"]).contains("`ppo..epochs` is not a valid key"));
}

#[test]
fn unknown_settings_are_rejected_with_a_suggestion() {
    assert_eq!(
        error("seed = 1\n[ppo]\n# a comment\nlearnig_rate = 1.0\n", &[]),
        "FILE:4: unknown setting `ppo.learnig_rate`; did you mean `ppo.learning_rate`?"
    );
    assert_eq!(
        error("", &["learning_rate=0.1"]),
        "--set learning_rate=0.1: unknown setting `learning_rate`; did you mean `ppo.learning_rate`?"
    );
    assert_eq!(
        error("seed = 1\n[pppo]\n\nepochs = 1\n", &[]),
        "FILE:2: unknown setting `pppo`; did you mean `ppo`?"
    );
    assert_eq!(
        error("ppo = { zzz = 1 }", &[]),
        "FILE:1: unknown setting `ppo.zzz`; known here: epochs, learning_rate, target_kl"
    );
}

#[test]
fn wrong_types_say_what_was_expected() {
    for (text, want) in [
        ("\nseed = 'one'", "FILE:2: setting `seed`: invalid type: string \"one\", expected u64"),
        ("shuffle = 1", "FILE:1: setting `shuffle`: invalid type: integer `1`, expected a boolean"),
        ("name = 1", "FILE:1: setting `name`: invalid type: integer `1`, expected a string"),
        ("ppo = 1", "FILE:1: setting `ppo`: invalid type: integer `1`, expected struct Ppo"),
        ("[seed]\na = 1", "FILE:1: setting `seed`: invalid type: map, expected u64"),
        (
            "ppo.learning_rate = true",
            "FILE:1: setting `ppo.learning_rate`: invalid type: boolean `true`, expected f32",
        ),
    ] {
        assert_eq!(error(text, &[]), want);
    }
}

#[test]
fn rejected_values_are_located() {
    assert_eq!(
        error("seed = 2\n\nppo.epochs = -1\nname = 'x'\n", &["seed=3"]),
        "FILE:3: setting `ppo.epochs`: invalid value: integer `-1`, expected u32"
    );
    assert_eq!(
        error("seed = 2\n", &["precision=f8", "seed=3"]),
        "--set precision=f8: setting `precision`: unknown variant `f8`, expected `f16` or `f32`"
    );
}

#[test]
fn toml_syntax_errors_are_located() {
    assert!(error("seed = 1\nname = 'open\n", &[]).starts_with("FILE:2: "));
    assert!(error("seed = 1\nseed = 2\n", &[]).starts_with("FILE:2: "));
    let missing = resolve::<Settings>(Some(Path::new("no/such/file.toml")), &[]).unwrap_err();
    assert!(format!("{missing:#}").starts_with("no/such/file.toml: cannot be read: "));
}

#[test]
fn written_settings_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolved.toml");
    let ppo = Ppo { learning_rate: 0.1, epochs: 3, target_kl: Some(0.015) };
    let settings =
        Settings { ppo, hidden: vec![], train_end: Some("2020-02-02".into()), ..Settings::default() };
    write_resolved(&path, &Settings::default()).unwrap();
    write_resolved(&path, &settings).unwrap();
    assert_eq!(resolve::<Settings>(Some(&path), &[]).unwrap(), settings);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is gone");

    // If a folder has the same name, the rename fails, and the temporary file is removed.
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    let error = write_resolved(&taken, &settings).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("taken: ") && text.to_lowercase().contains("directory"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[path = "../../fuzz/settings.rs"]
mod fuzz_target;

/// The finds of the fuzzer of settings are not lost again.
#[test]
fn the_corpus_of_the_fuzzer_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/settings");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let accepted = files.filter(|path| fuzz_target::settings(&std::fs::read(path).unwrap()));
    assert!(accepted.count() > 0);
}
