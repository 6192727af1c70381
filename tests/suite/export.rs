//! Models written for other programs.

use std::path::Path;

use onnx_rs::ast::{DataType, Model};
use phalanx::market::{Candles, ExtraFeatures, GapPolicy, MarketData, Scaling};
use phalanx::policy::Policy;
use safetensors::{Dtype, SafeTensors};

use crate::common::program::{DEMO, Workplace, contents, refused, succeeded};
use crate::testing;

fn export(place: &Workplace, format: &str, out: &str, more: &[&str]) -> std::process::Output {
    place.run(&[&["export", "--run", "run", "--format", format, "--out", out], more].concat())
}

fn about<'a>(model: &'a Model<'_>, key: &str) -> &'a str {
    model.metadata_props.iter().find(|entry| entry.key == key).unwrap().value
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn a_run_becomes_a_graph_of_all_agents_or_of_one() {
    let place = Workplace::new();
    place.trained("run");
    let before = contents(&place.path("run"));
    succeeded(&export(&place, "onnx", "all.onnx", &[]));
    succeeded(&export(&place, "onnx", "again.onnx", &["--agent", "all"]));
    let bytes = read(&place.path("all.onnx"));
    assert!(bytes == read(&place.path("again.onnx")), "the same bytes twice");
    let model = onnx_rs::parse(&bytes).unwrap();
    assert_eq!(about(&model, "symbols"), r#"["AAPL","GOOG","IBM","MSFT"]"#);
    assert_eq!(about(&model, "levels"), "[-1.0,0.0,1.0]");
    let graph = model.graph.as_ref().unwrap();
    let weights = read(&place.path("run/model.safetensors"));
    let weights = SafeTensors::deserialize(&weights).unwrap();
    for name in ["actor.0.weight", "actor.1.weight", "critic.1.weight"] {
        let own = graph.get_initializer(name).unwrap().as_raw().unwrap();
        assert_eq!(own, weights.tensor(name).unwrap().data(), "{name}");
    }
    succeeded(&export(&place, "onnx", "all.onnx", &["--agent", "GOOG", "--no-value"]));
    let one = read(&place.path("all.onnx"));
    let one = onnx_rs::parse(&one).unwrap();
    assert_eq!(about(&one, "symbols"), r#"["GOOG"]"#, "the file was replaced");
    let inputs: Vec<_> = one.graph.as_ref().unwrap().input.iter().map(|input| input.name).collect();
    assert_eq!(inputs, ["observations", "action_mask"]);
    assert_eq!(contents(&place.path("run")), before, "an export does not touch the run");
}

#[test]
fn int8_is_calibrated_on_the_training_bars_and_f16_is_half() {
    let place = Workplace::new();
    place.trained("run");
    let output = export(&place, "onnx", "int8.onnx", &["--quantize", "int8", "--data", DEMO]);
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Calibrated on the ") && said.contains(" training bars from "), "{said}");
    succeeded(&export(&place, "onnx", "f16.onnx", &["--quantize", "f16"]));
    for (file, weights, kind) in
        [("int8", "actor.0.weight.int8", DataType::Int8), ("f16", "actor.0.weight.f16", DataType::Float16)]
    {
        let bytes = read(&place.path(&format!("{file}.onnx")));
        let model = onnx_rs::parse(&bytes).unwrap();
        assert_eq!(about(&model, "weights"), file);
        let graph = model.graph.as_ref().unwrap();
        assert_eq!(graph.get_initializer(weights).unwrap().data_type(), kind);
    }
    // The range of scaled features ends at 5, and the first layer reads them after its LayerNorm.
    let bytes = read(&place.path("int8.onnx"));
    let model = onnx_rs::parse(&bytes).unwrap();
    let scale = model.graph.as_ref().unwrap().get_initializer("actor.0.input.scale").unwrap();
    let width = 255.0 * scale.as_f32().unwrap()[0];
    assert!((1.0..20.0).contains(&width), "{width}");
}

#[test]
fn a_run_becomes_plain_tensors() {
    let place = Workplace::new();
    place.trained("run");
    succeeded(&export(&place, "safetensors", "f32.safetensors", &[]));
    succeeded(&export(&place, "safetensors", "f16.safetensors", &["--quantize", "f16"]));
    let [full, half] = ["f32.safetensors", "f16.safetensors"].map(|name| read(&place.path(name)));
    let [full, half] = [&full, &half].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    for (file, dtype) in [(&full, Dtype::F32), (&half, Dtype::F16)] {
        let weight = file.tensor("actor.1.weight").unwrap();
        assert_eq!((weight.shape(), weight.dtype()), (&[8, 3][..], dtype));
        assert_eq!(file.tensor("scaling.mean").unwrap().dtype(), Dtype::F32);
    }
}

#[test]
fn what_cannot_be_exported_is_told_in_a_sentence() {
    let place = Workplace::new();
    place.trained("run");
    std::fs::create_dir(place.path("folder")).unwrap();
    let before = contents(&place.path("run"));
    for (format, out, more, wanted) in [
        (
            "onnx",
            "x.onnx",
            &["--agent", "TSLA"][..],
            "the model has no agent `TSLA`: choose AAPL, GOOG, IBM, MSFT, or all",
        ),
        ("onnx", "x.onnx", &["--quantize", "int8"], "--quantize int8 needs the candles of the training"),
        ("onnx", "x.onnx", &["--data", DEMO], "--data is for --quantize int8 only"),
        ("onnx", "folder", &[], "--out folder is a folder: name a file"),
        ("onnx", "run/model.safetensors", &[], "--out run/model.safetensors is one of the inputs"),
        ("onnx", "missing/x.onnx", &[], "missing"),
        (
            "safetensors",
            "x.safetensors",
            &["--quantize", "int8", "--data", DEMO],
            "--quantize int8 is for --format onnx",
        ),
        ("safetensors", "x.safetensors", &["--agent", "GOOG"], "--agent is for --format onnx"),
        ("safetensors", "x.safetensors", &["--no-value"], "--no-value is for --format onnx"),
    ] {
        refused(&export(&place, format, out, more), &[wanted]);
    }
    // Candles of other bars.
    let market = crate::common::program::Market::new(&["AAPL", "GOOG", "IBM", "MSFT"], 400).csv();
    let other = place.write("other.csv", &market);
    let output = export(&place, "onnx", "x.onnx", &["--quantize", "int8", "--data", &other]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: ") && said.contains("training") && !said.contains("panicked"), "{said}");
    let output = export(&place, "pickle", "x.pkl", &[]);
    assert_eq!(output.status.code(), Some(2), "an unknown format");
    assert!(String::from_utf8_lossy(&output.stderr).contains("onnx, safetensors"));
    std::fs::create_dir(place.path("empty")).unwrap();
    let output = place.run(&["export", "--run", "empty", "--format", "onnx", "--out", "x.onnx"]);
    refused(&output, &["empty holds no trained model; train one with `trainer train`"]);
    assert_eq!(contents(&place.path("run")), before);
    assert!(!place.path("x.onnx").exists() && !place.path("x.safetensors").exists());
    // A damaged model is no graph.
    let bytes = read(&place.path("run/model.safetensors"));
    std::fs::write(place.path("run/model.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    refused(&export(&place, "onnx", "x.onnx", &[]), &["model.safetensors", "truncated"]);
}

#[test]
fn the_calibration_sees_what_the_backtest_decides() {
    let place = Workplace::new();
    place.trained("run");
    let policy = Policy::load(&place.path("run/model.safetensors")).unwrap();
    let market = policy.market().unwrap();
    let candles = Candles::load(&[DEMO], GapPolicy::Reject).unwrap();
    let gpu = testing::gpu();
    let scaling = Scaling::Given(market.scaling.clone());
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &scaling).unwrap();
    let bars = data.first_bar()..data.first_bar() + 400;
    let targets = policy.targets(&gpu, &data, &bars).unwrap();
    let observed = policy.market_observations(&gpu, &candles, &data, bars.clone()).unwrap();
    let (agents, features) = (data.instruments(), data.features());
    let of_bar =
        |bar: usize, agent: usize| &observed[(bar * agents + agent) * (features + 2)..][..features + 2];
    assert_eq!(observed.len(), (bars.len() - 1) * agents * (features + 2));
    let scaled: Vec<f32> = gpu.read(data.buffer()).unwrap();
    for agent in 0..agents {
        assert_eq!(of_bar(0, agent)[features..], [0.0, 0.0], "no position at first");
        for bar in 0..bars.len() - 2 {
            let own = of_bar(bar + 1, agent);
            assert_eq!(f64::from(own[features]), targets[[bar, agent]], "the level after decision {bar}");
            assert!(own[features] * own[features + 1] >= 0.0, "a weight of the other side after {bar}");
            let first = ((bars.start + bar + 1) * agents + agent) * features;
            assert_eq!(own[..features], scaled[first..first + features]);
        }
    }
    let other = market.scaling.symbols.len() + 1;
    assert!(
        policy
            .market_observations(&gpu, &candles, &data, 0..other)
            .unwrap_err()
            .to_string()
            .contains("bars 0 to 5")
    );
}
