//! A resumed run keeps the statistics with which it scales its features, and its candles.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::mappo::snapshot::read_metadata;
use phalanx::mappo::{Snapshots, Trainer};
use phalanx::market::{Candles, ExtraFeatures, GapPolicy, MarketData, Scaling, ScalingStatistics, Splits};
use phalanx::policy::Policy;
use safetensors::SafeTensors;

use crate::common::program::{DEMO, Workplace, refused, succeeded, wait_for};
use crate::testing::unchecked_gpu;

fn latest(run: &Path) -> PathBuf {
    Snapshots::open(&run.join("checkpoints"), 1).unwrap().latest().unwrap().unwrap()
}

fn scaling_of_model(run: &Path) -> ScalingStatistics {
    Policy::load(&run.join("model.safetensors")).unwrap().market().unwrap().scaling.clone()
}

/// Trains the run in a folder once more, with other statistics, and puts the checkpoint where its own was.
fn saved_with_other_digits(run: &Path) -> ScalingStatistics {
    let path = latest(run);
    let metadata = read_metadata(&path).unwrap();
    let fitted = metadata.scaling().cloned().unwrap();
    assert_eq!(fitted, scaling_of_model(run));
    let mut other = fitted.clone();
    for value in other.moments.as_flattened_mut() {
        *value = f32::from_bits(value.to_bits() + 1);
    }
    let gpu = unchecked_gpu();
    let candles = Candles::load(&[DEMO], GapPolicy::Reject).unwrap();
    let train = Splits::by_fraction(candles.bars(), 0.75).unwrap().train;
    // As in `SMALL`.
    let settings = TradingSettings { episode_length: 16, ..TradingSettings::default() };
    let trainer = |scaling: &ScalingStatistics| {
        let scaling = Scaling::Given(scaling.clone());
        let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &scaling).unwrap();
        let episodes = Episodes::Random(train.start.max(data.first_bar())..train.end);
        Trainer::new(&gpu, &Trading::new(&data, &settings, &episodes).unwrap(), &metadata.config).unwrap()
    };
    trainer(&fitted).resume(&path).unwrap();
    let mut trained = trainer(&other);
    assert!(trained.resume(&path).unwrap_err().to_string().contains("another environment"));
    trained.train_until(metadata.iteration, |_| -> phalanx::Result<()> { Ok(()) }).unwrap();
    trained.save(&path, None).unwrap();
    other
}

/// Removes candles and statistics from the latest checkpoint of a run: earlier versions wrote none.
fn as_of_an_older_version(run: &Path) {
    let path = latest(run);
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let envelope = &mut header["__metadata__"]["phalanx training"];
    let mut parts: serde_json::Value = serde_json::from_str(envelope.as_str().unwrap()).unwrap();
    let metadata = parts["head"].as_str().unwrap();
    let metadata = format!("{}}}", &metadata[..metadata.find(",\"candles\":").unwrap()]);
    let mut crc = flate2::Crc::new();
    crc.update(metadata.as_bytes());
    let mut tensors = file.tensors();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, view) in &tensors {
        crc.update(name.as_bytes());
        crc.update(view.data());
    }
    parts["head"] = metadata.into();
    parts["crc32"] = crc.sum().into();
    *envelope = parts.to_string().into();
    let header = header.to_string();
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()).unwrap();
    let metadata = read_metadata(&path).unwrap();
    assert!(metadata.scaling().is_none() && metadata.candles.is_none());
}

/// The demo's candles as text.
fn demo() -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(DEMO).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// The same without the last column.
fn without_volume(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.rsplit_once(',').unwrap().0)).collect()
}

#[test]
fn a_resumed_run_keeps_the_statistics_of_its_checkpoint() {
    let place = Workplace::new();
    place.trained("run");
    let run = place.path("run");
    let given = saved_with_other_digits(&run);
    let resume = ["train", "--data", DEMO, "--out", "run", "--resume", "--iterations", "4"];
    let output = place.run(&resume);
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Resumed   from iteration 2"));
    assert_eq!(scaling_of_model(&run), given);
    assert_eq!(read_metadata(&latest(&run)).unwrap().scaling().unwrap(), &given);
}

#[test]
fn other_candles_are_refused() {
    let place = Workplace::new();
    place.trained("run");
    let text = demo();
    // A close in the training bars, by a 200,000th.
    let nearly = text.replace(",21.1242,76544300", ",21.1243,76544300");
    assert_ne!(nearly, text);
    let before = std::fs::read(latest(&place.path("run"))).unwrap();
    let other = place.write("other.csv", &nearly);
    let command = ["train", "--data", &other, "--out", "run", "--resume", "--iterations", "4"];
    refused(&place.run(&command), &["it is from another environment: `market of 4 instruments, "]);
    let renamed = place.write("renamed.csv", &text.replace("IBM", "ABC"));
    let command = ["train", "--data", &renamed, "--out", "run", "--resume", "--iterations", "4"];
    refused(&place.run(&command), &["it is from another environment: `market of 4 instruments, "]);
    assert!(std::fs::read(latest(&place.path("run"))).unwrap() == before);
    assert!(!place.path("run/unfinished").exists());
}

#[test]
fn other_volumes_are_refused() {
    let place = Workplace::new();
    place.trained("run");
    let text = demo();
    let before = std::fs::read(latest(&place.path("run"))).unwrap();
    // In the training bars.
    let one = text.replace(",21.1242,76544300", ",21.1242,76544301");
    assert_ne!(one, text);
    for (candles, kind) in [(one, "with"), (without_volume(&text), "without")] {
        let other = place.write("other.csv", &candles);
        let command = ["train", "--data", &other, "--out", "run", "--resume", "--iterations", "4"];
        let kind = format!("bars {kind} volume");
        refused(&place.run(&command), &["it is from other candles: `", "bars with volume", &kind, "` here"]);
    }
    assert!(std::fs::read(latest(&place.path("run"))).unwrap() == before);
    assert!(!place.path("run/unfinished").exists());
}

#[test]
fn a_finished_run_of_an_older_version_keeps_the_statistics_of_its_model() {
    let place = Workplace::new();
    place.trained("run");
    let run = place.path("run");
    let given = saved_with_other_digits(&run);
    let further = |data: &str, iterations: &str| {
        let command = ["train", "--data", data, "--out", "run", "--resume", "--iterations", iterations];
        command.map(String::from)
    };
    let resume = |data: &str, iterations: &str| {
        place.run(&further(data, iterations).each_ref().map(|argument| argument.as_str()))
    };
    succeeded(&resume(DEMO, "4"));
    as_of_an_older_version(&run);
    let other = place.write("other.csv", &without_volume(&demo()));
    let difference =
        "the run was trained on other candles: these are candles without volume instead of candles with it";
    refused(&resume(&other, "6"), &["model.safetensors", difference]);

    // A damaged model has no statistics, and those that are fitted differ.
    let model = std::fs::read(run.join("model.safetensors")).unwrap();
    std::fs::write(run.join("model.safetensors"), &model[..model.len() - 1]).unwrap();
    let output = resume(DEMO, "6");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("warning: the features are scaled by new statistics, not by those of the model: "),
        "{said}"
    );
    assert!(said.contains("it is from another environment: `market of 4 instruments, "), "{said}");
    std::fs::write(run.join("model.safetensors"), &model).unwrap();

    // Killed before it saved a checkpoint of its own.
    let arguments = further(DEMO, "100000");
    let arguments = arguments.each_ref().map(|argument| argument.as_str());
    let mut child = place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&mut child, || run.join("unfinished/config.toml").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let output = resume(DEMO, "200");
    succeeded(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Resumed   from iteration 4"));
    assert_eq!(scaling_of_model(&run), given);
    assert_eq!(read_metadata(&latest(&run)).unwrap().scaling().unwrap(), &given);
}
