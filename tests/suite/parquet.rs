//! Candles from Parquet are those from CSV to the last bit of what is trained on them.

use std::path::Path;

use phalanx::env::{Episodes, Trading, TradingSettings};
use phalanx::mappo::{Config, Trainer};
use phalanx::market::{Candles, ExtraFeatures, GapPolicy, MarketData, Scaling};
use phalanx::policy::{MarketMetadata, TrainingBars};

use crate::testing::gpu;

/// The bytes of `model.safetensors` after three iterations on the candles of a fixture.
fn model(name: &str) -> Vec<u8> {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/candles")).join(name);
    let candles = Candles::load(&[file], GapPolicy::Reject).unwrap();
    let gpu = gpu();
    let bars = candles.bars();
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..bars)).unwrap();
    let market = TradingSettings { episode_length: 4, ..TradingSettings::default() };
    let environment = Trading::new(&data, &market, &Episodes::Random(data.first_bar()..bars)).unwrap();
    let mut config = Config::default();
    config.ppo.num_envs = 4;
    config.ppo.rollout_steps = 8;
    config.ppo.iterations = 3;
    config.network.hidden = vec![8];
    let mut trainer = Trainer::new(&gpu, &environment, &config).unwrap();
    trainer.train(|_| ()).unwrap();
    let market = MarketMetadata {
        settings: market,
        scaling: data.scaling().clone(),
        train_from: candles.timestamps[data.first_bar()],
        train_to: candles.timestamps[bars - 1],
        test_from: candles.timestamps[bars - 1],
        bars: Some(TrainingBars::of(&candles)),
    };
    let path = tempfile::NamedTempFile::new().unwrap();
    trainer.policy().unwrap().with_market(market).unwrap().save(path.path()).unwrap();
    std::fs::read(path.path()).unwrap()
}

#[test]
fn a_model_trained_on_parquet_has_the_bytes_of_one_trained_on_csv() {
    let csv = model("candles.csv");
    for name in ["candles_pandas.parquet", "candles_polars.parquet", "candles_int96.parquet"] {
        assert!(model(name) == csv, "{name}");
    }
}

#[test]
fn limits_are_checked_before_anything_is_decoded() {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/candles/candles_pandas.parquet"));
    let bytes = std::fs::read(file).unwrap();
    let refused = |change: fn(&mut phalanx::market::LoadLimits)| {
        let mut options = phalanx::market::LoadOptions::default();
        change(&mut options.limits);
        let loaded = Candles::load_bytes(&[("a.parquet", &bytes)], &options);
        loaded.map_or_else(|error| error.to_string(), |_| "accepted".into())
    };
    assert_eq!(refused(|_| ()), "accepted");
    for (change, expected) in [
        (
            (|limits| limits.bars = 79) as fn(&mut phalanx::market::LoadLimits),
            "a.parquet: the files have more than 79 bars: ",
        ),
        (|limits| limits.fields = 3, "a.parquet: the file has 7 columns, and at most 3 are read: "),
        (|limits| limits.symbols = 1, "the files have more than 1 instruments: "),
        (
            |limits| (limits.unpacked_bytes, limits.unpacked_ratio) = (1, 0),
            "no candles are: check where the file comes from, or raise data.limits.unpacked_ratio",
        ),
    ] {
        let error = refused(change);
        assert!(error.contains(expected), "{error}");
    }
}

/// The limits of CSV files hold for Parquet too: the values are checked at one place.
#[test]
fn values_that_no_feature_can_hold_are_refused_with_their_row() {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/candles/beyond_f32.parquet"));
    let error = Candles::load(&[file], GapPolicy::Reject).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("beyond_f32.parquet, column `volume`: row 2: beyond_f32 2024-01-02: volume is 1.7976931348623157e308; "),
        "{error}"
    );
}
