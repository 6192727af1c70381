use jiff::civil::date;

use super::super::metadata::NetworkMetadata;
use super::*;
use crate::env::TradingSettings;
use crate::mappo::Config;
use crate::market::ScalingStatistics;

fn metadata() -> ModelMetadata {
    let day = date(2020, 1, 1).at(0, 0, 0, 0);
    let mut config = Config::default();
    config.network.hidden = vec![4];
    let market = MarketMetadata {
        settings: TradingSettings::default(),
        scaling: ScalingStatistics {
            features: vec!["return".into()],
            symbols: vec!["AAA".into(), "BBB".into()],
            moments: vec![[0.0, 1.0]; 2],
        },
        train_from: day,
        train_to: day,
        test_from: day,
        bars: None,
    };
    let actions = ActionSpec::Discrete { choices: vec![3] };
    ModelMetadata {
        features: market.features(),
        observation_moments: vec![[0.0, 0.0, 1.0, 1.0]; 6],
        market: Some(market),
        ..ModelMetadata::of_training(&config, [2, 3, 0], actions)
    }
}

fn with_market(change: impl FnOnce(&mut MarketMetadata)) -> ModelMetadata {
    let mut metadata = metadata();
    change(metadata.market.as_mut().unwrap());
    metadata
}

#[test]
fn files_with_invalid_settings_statistics_or_weights_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let good = metadata();
    let layout = good.layout().unwrap();
    let weights = vec![0.5; layout.params as usize * 4];
    let policy = Policy::new(good.clone(), weights.clone()).unwrap();
    policy.save(&path).unwrap();
    assert_eq!(Policy::load(&path).unwrap().metadata(), &good);

    let network = |change: fn(&mut NetworkMetadata)| {
        let mut forged = metadata();
        change(&mut forged.network);
        forged
    };
    let mut stats = vec![[0.0f32; 4]; 6];
    stats[3][1] = f32::MAX;
    let statistics = |stats: &[[f32; 4]]| ModelMetadata { observation_moments: stats.to_vec(), ..metadata() };
    for (forged, wanted) in [
        (with_market(|market| market.settings.commission_bps = -1.0), "setting `market.commission_bps`: -1 "),
        (with_market(|market| market.settings.positions = vec![0.0; 33]), "setting `market.positions`: 33 "),
        (
            with_market(|market| market.settings.max_leverage = Some(-1.0)),
            "setting `market.max_leverage`: -1 ",
        ),
        (
            with_market(|market| market.settings.bankruptcy_level = 2.0),
            "setting `market.bankruptcy_level`: 2 ",
        ),
        (with_market(|market| market.settings.positions = vec![0.0, 1.0]), "those of `market.positions`"),
        (statistics(&stats[..5]), "`observation_moments`: expected 6, got 5"),
        (
            with_market(|market| market.scaling.moments = vec![[0.0, 1.0]; 3]),
            "`scaling.moments`: expected 2, got 3",
        ),
        (
            with_market(|market| market.scaling.moments[1] = [0.0, -1.0]),
            "`scaling.moments` 1 is [0.0, -1.0] (feature `return` of BBB)",
        ),
        (with_market(|market| market.scaling.features = vec!["a".into(), "b".into()]), "`scaling.moments`"),
        (network(|network| network.state_dim = 1), "`market`"),
        (ModelMetadata { features: vec!["a".into()], ..metadata() }, "`features`: expected return, position"),
    ] {
        let forged = Checkpoint { metadata: forged, weights: weights.clone() };
        std::fs::write(&path, forged.serialize(&layout).unwrap()).unwrap();
        let error = Policy::load(&path).unwrap_err();
        assert!(matches!(error, Error::Checkpoint { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("model.safetensors") && text.contains(wanted), "{wanted}: {text}");
        let error = Policy::new(forged.metadata, weights.clone()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    stats[3][1] = f32::NAN;
    let error = Policy::new(statistics(&stats), weights.clone()).unwrap_err().to_string();
    let wanted = "`observation_moments` 3 is [0.0, NaN, 0.0, 0.0] (feature `return` of BBB)";
    assert!(error.contains(wanted), "{error}");

    let mut broken = weights;
    let first = layout.tensors[0].first;
    broken[first] = f32::INFINITY;
    let forged = Checkpoint { metadata: good.clone(), weights: broken.clone() };
    std::fs::write(&path, forged.serialize(&layout).unwrap()).unwrap();
    let error = Policy::load(&path).unwrap_err().to_string();
    assert!(error.contains("model.safetensors") && error.contains("tensor `actor.0."), "{error}");
    let error = Policy::new(good, broken).unwrap_err().to_string();
    assert!(error.contains(&format!("weight {first} is inf, expected a finite number")), "{error}");
}

/// The metadata as the last version with format 1 wrote them.
#[test]
fn a_file_of_format_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let expected = metadata();
    let layout = expected.layout().unwrap();
    let weights: Vec<f32> = crate::model::initial_weights(&layout, crate::nn::Activation::Relu, 3);
    let market = expected.market.clone().unwrap();
    let mut config = serde_json::to_value(Config::default()).unwrap();
    config["hidden"] = serde_json::json!([4]);
    config["observation_norm"] = true.into();
    let old = |config: &serde_json::Value| {
        serde_json::json!({
            "config": config,
            "market": market.settings,
            "scaling": market.scaling,
            "train_from": market.train_from,
            "train_to": market.train_to,
            "test_from": market.test_from,
            "version": expected.version,
            "observation_moments": expected.observation_moments,
            "bars": { "seconds": 86_400.0, "volume": true },
        })
    };
    let write = |old: serde_json::Value| {
        let file = Checkpoint { metadata: old, weights: weights.clone() };
        let bytes = file.serialize_as(1, &layout).unwrap();
        std::fs::write(&path, bytes).unwrap();
    };
    write(old(&config));
    let read = Policy::load(&path).unwrap();
    #[cfg(feature = "onnx")]
    {
        let written = |policy: &Policy| policy.export_onnx(&crate::policy::OnnxOptions::default()).unwrap();
        let present = ModelMetadata { version: read.metadata().version.clone(), ..expected.clone() };
        assert!(
            written(&read) == written(&Policy::new(present, weights.clone()).unwrap()),
            "exported as another"
        );
    }
    let market = MarketMetadata { bars: read.market().unwrap().bars, ..market.clone() };
    assert!(market.bars.is_some());
    assert_eq!(read.metadata(), &ModelMetadata { market: Some(market), ..expected.clone() });
    assert_eq!(read.weights(), weights);
    // Saved again, it has the present format.
    read.save(&path).unwrap();
    assert_eq!(Policy::load(&path).unwrap().weights(), weights);
    config["observation_norm"] = false.into();
    write(old(&config));
    let error = Policy::load(&path).unwrap_err().to_string();
    assert!(error.contains("`observation_moments`: expected 0, got 6"), "{error}");
}
