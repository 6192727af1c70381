//! A resumed run keeps the statistics with which it scales its features, and its candles.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::mappo::snapshot::read_metadata;
use phalanx::mappo::{Snapshots, Trainer};
use phalanx::market::{Candles, ExtraFeatures, GapPolicy, MarketData, Scaling, ScalingStatistics, Splits};
use phalanx::policy::Policy;

use crate::common::program::{DEMO, Workplace, refused, succeeded};
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
    let fitted = metadata.scaling.clone().unwrap();
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
    assert_eq!(read_metadata(&latest(&run)).unwrap().scaling.unwrap(), given);
}

#[test]
fn other_candles_are_refused() {
    let place = Workplace::new();
    place.trained("run");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(DEMO).unwrap()).read_to_string(&mut text).unwrap();
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
