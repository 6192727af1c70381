use std::collections::HashSet;
use std::path::PathBuf;

use onnx_rs::ast::{DataType, Dimension, Model, OpType};

use super::builder::OPSET;
use super::network::networks;
use super::tensors::rows;
use super::testing::{AGENTS, FEATURES, calibration, expected, kinds};
use super::*;
use crate::mappo::ActionMode;
use crate::model::envelope;

/// Whether a graph is whole: every name is written once and before it is read, and everything written is read or an output.
fn check(model: &Model<'_>, what: &str) {
    let graph = model.graph.as_ref().unwrap();
    let opset: Vec<_> = model.opset_import.iter().map(|set| (set.domain, set.version)).collect();
    assert_eq!((model.ir_version, opset), (8, vec![("", OPSET)]), "{what}");
    let mut known = HashSet::new();
    let mut read = HashSet::new();
    let constants = graph.initializer.iter().map(|tensor| tensor.name());
    for name in constants.chain(graph.input.iter().map(|input| input.name)) {
        assert!(known.insert(name), "{what}: `{name}` is there twice");
    }
    for node in &graph.node {
        for input in node.input.iter().filter(|name| !name.is_empty()) {
            assert!(known.contains(input), "{what}: `{}` reads `{input}`, which is not there yet", node.name);
            read.insert(*input);
        }
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            assert!(known.insert(output), "{what}: `{output}` is written twice");
        }
    }
    let outputs: HashSet<_> = graph.output.iter().map(|output| output.name).collect();
    assert!(outputs.is_subset(&known), "{what}: {outputs:?}");
    let useless: Vec<_> =
        known.iter().filter(|name| !read.contains(*name) && !outputs.contains(*name)).collect();
    assert!(useless.is_empty(), "{what}: nothing reads {useless:?}");
    for tensor in &graph.initializer {
        let bytes = match tensor.data_type() {
            DataType::Int8 | DataType::Bool => 1,
            DataType::Float16 => 2,
            DataType::Float => 4,
            DataType::Int64 => 8,
            other => panic!("{what}: `{}` is {other:?}", tensor.name()),
        };
        let size = tensor.dims().iter().product::<i64>() * bytes;
        assert_eq!(tensor.as_raw().unwrap().len() as i64, size, "{what}: {}", tensor.name());
    }
    for place in graph.input.iter().chain(&graph.output).filter(|place| place.name != "log_std") {
        let first = &place.tensor_shape().unwrap().dim[0];
        assert_eq!(first.value, Dimension::Param("batch"), "{what}: {}", place.name);
    }
}

fn shape(model: &Model<'_>, name: &str) -> Option<String> {
    let graph = model.graph.as_ref().unwrap();
    let place = graph.input.iter().chain(&graph.output).find(|place| place.name == name)?;
    let dimension = |value: &Dimension<'_>| match value {
        Dimension::Param(name) => (*name).to_string(),
        Dimension::Value(size) => size.to_string(),
    };
    let all = &place.tensor_shape().unwrap().dim;
    Some(all.iter().map(|one| dimension(&one.value)).collect::<Vec<_>>().join(" "))
}

/// With PHALANX_EXPORTS, the files and what phalanx computes go to that folder, for tests/fixtures/onnx_exports.py.
#[test]
fn graphs_of_all_kinds_are_whole_and_their_bytes_repeat() {
    let folder = std::env::var_os("PHALANX_EXPORTS").map(PathBuf::from);
    for (kind, policy) in kinds() {
        let [observations, states] = calibration(&policy);
        let int8 = ExportWeights::Int8(Calibration { observations: &observations, states: &states });
        let plain = OnnxOptions::default();
        let last = policy.metadata().network.agents as usize - 1;
        for (variant, options, agent) in [
            ("f32", plain, None),
            ("f16", plain.weights(ExportWeights::F16), None),
            ("int8", plain.weights(int8), None),
            ("agent", plain.agent(last), Some(last)),
        ] {
            let what = format!("{kind}.{variant}");
            let bytes = policy.export_onnx(&options).unwrap();
            assert!(bytes == policy.export_onnx(&options).unwrap(), "{what}: other bytes");
            check(&onnx_rs::parse(&bytes).unwrap(), &what);
            if let Some(folder) = &folder {
                std::fs::write(folder.join(format!("{what}.onnx")), &bytes).unwrap();
                let numbers = envelope::serialize("kind", what.clone(), &expected(&policy, agent)).unwrap();
                std::fs::write(folder.join(format!("{what}.safetensors")), numbers).unwrap();
            }
        }
        if let Some(folder) = &folder {
            let bytes = policy.export_safetensors(false).unwrap();
            std::fs::write(folder.join(format!("{kind}.tensors")), bytes).unwrap();
        }
    }
}

/// The plain forward pass reads the same matrices that the nodes get.
#[test]
fn the_exported_matrices_give_the_outputs_of_the_policy() {
    for (kind, policy) in kinds() {
        let all = networks(&policy).unwrap();
        let metadata = policy.metadata();
        let agents = metadata.network.agents as usize;
        let [observations, states] = calibration(&policy);
        let mut state = policy.state(1).unwrap();
        let mut memory = vec![vec![0.0; policy.layout().shape.memory() as usize]; 2 * agents];
        let read = policy.layout().shape.stored_state() as usize;
        for (step, raw) in observations.chunks_exact(agents * FEATURES).take(20).enumerate() {
            policy.act(&mut state, raw, &[], ActionMode::Greedy).unwrap();
            let outputs = state.outputs.clone();
            let global = &states[step * read..][..read];
            let values = policy.values(&mut state, raw, global).unwrap().to_vec();
            let mut prepared = raw.to_vec();
            policy.networks.prepare(0, raw, &mut prepared);
            let mut normalized = global.to_vec();
            policy.networks.prepare(raw.len(), global, &mut normalized);
            for agent in 0..agents {
                let own = &prepared[agent * FEATURES..][..FEATURES];
                let critic = match metadata.network.critic_input {
                    crate::nn::CriticInput::Own => own,
                    crate::nn::CriticInput::Joint => &prepared[..],
                    crate::nn::CriticInput::State => &normalized[..],
                };
                let mut run = |stack: usize, input: &[f32]| {
                    let network = &all[stack][agent.min(all[stack].len() - 1)];
                    let memory = &mut memory[2 * agent + stack];
                    let mut found =
                        network.run(agent, metadata.network.activation, input, memory, &mut |_, _| ());
                    if stack == 0 {
                        found.extend(&network.log_std);
                    }
                    found
                };
                let own_outputs = &outputs[agent * outputs.len() / agents..][..outputs.len() / agents];
                for (found, wanted) in [(run(0, own), own_outputs), (run(1, critic), &values[agent..=agent])]
                {
                    assert_eq!(found.len(), wanted.len(), "{kind}");
                    for (found, wanted) in found.iter().zip(wanted) {
                        let apart = (found - wanted).abs() / wanted.abs().max(1.0);
                        assert!(apart < 1e-5, "{kind}, agent {agent}: {found} for {wanted}");
                    }
                }
            }
        }
    }
}

#[test]
fn graphs_name_what_a_stranger_needs() {
    let all = kinds();
    let of = |name: &str| &all.iter().find(|(kind, _)| *kind == name).unwrap().1;
    let market = of("market").export_onnx(&OnnxOptions::default()).unwrap();
    let market = onnx_rs::parse(&market).unwrap();
    for (name, wanted) in [
        ("observations", "batch 3 7"),
        ("action_mask", "batch 3 4"),
        ("logits", "batch 3 4"),
        ("actions", "batch 3"),
        ("target", "batch 3"),
        ("value", "batch 3"),
    ] {
        assert_eq!(shape(&market, name).as_deref(), Some(wanted), "{name}");
    }
    let about =
        |key: &str| market.metadata_props.iter().find(|entry| entry.key == key).map(|entry| entry.value);
    assert_eq!(about("symbols"), Some(r#"["AAA","BBB","C\"C"]"#));
    assert_eq!(about("levels"), Some("[-1.0,0.0,0.5,1.0]"));
    assert_eq!(about("action_mask"), Some("[false,true,true,true]"));
    assert!(about("features").unwrap().ends_with(r#""filled","position","weight of the position"]"#));
    assert_eq!((about("version"), about("weights")), (Some("test"), Some("f32")));
    let options = OnnxOptions::default().agent(1);
    let one = of("market").export_onnx(&options).unwrap();
    let one = onnx_rs::parse(&one).unwrap();
    assert_eq!(shape(&one, "observations").as_deref(), Some("batch 7"));
    assert_eq!(shape(&one, "joint_observations").as_deref(), Some("batch 3 7"));
    assert_eq!(shape(&one, "target").as_deref(), Some("batch"));
    assert!(one.metadata_props.iter().any(|entry| (entry.key, entry.value) == ("symbols", r#"["BBB"]"#)));
    let actor = of("market").export_onnx(&options.without_value()).unwrap();
    let actor = onnx_rs::parse(&actor).unwrap();
    check(&actor, "without value");
    assert_eq!((shape(&actor, "joint_observations"), shape(&actor, "value")), (None, None));
    let several = of("multi-discrete-tanh").export_onnx(&OnnxOptions::default()).unwrap();
    let several = onnx_rs::parse(&several).unwrap();
    assert_eq!(shape(&several, "actions").as_deref(), Some("batch 3 3"));
    let gru = of("gru").export_onnx(&OnnxOptions::default()).unwrap();
    let gru = onnx_rs::parse(&gru).unwrap();
    assert_eq!(shape(&gru, "next_critic_state").as_deref(), Some("batch 3 17"));
    let nodes = &gru.graph.as_ref().unwrap().node;
    let cells: Vec<_> = nodes.iter().filter(|node| node.op_type == OpType::GRU).collect();
    assert_eq!(cells.len(), 2);
    let before = |attribute: &&onnx_rs::ast::Attribute<'_>| attribute.name == "linear_before_reset";
    assert!(cells.iter().all(|node| node.attribute.iter().find(before).unwrap().i == 1));
}

#[test]
fn weights_are_those_of_the_policy_in_every_precision() {
    let (_, policy) = kinds().swap_remove(0);
    let weight = rows(&policy, "actor.1.weight").unwrap();
    let (inputs, outputs) = (weight.len(), weight[0].len());
    let bytes = policy.export_onnx(&OnnxOptions::default()).unwrap();
    let model = onnx_rs::parse(&bytes).unwrap();
    let graph = model.graph.as_ref().unwrap();
    let stored = graph.get_initializer("actor.1.weight").unwrap();
    assert_eq!(stored.dims(), [inputs as i64, outputs as i64]);
    assert_eq!(stored.as_f32().unwrap()[..], weight.concat()[..]);
    let bias = graph.get_initializer("actor.0.bias").unwrap();
    assert_eq!(bias.as_f32().unwrap()[..], rows(&policy, "actor.0.bias").unwrap().concat()[..]);

    let [observations, states] = calibration(&policy);
    let calibration = Calibration { observations: &observations, states: &states };
    let options = OnnxOptions::default().weights(ExportWeights::Int8(calibration));
    let small = policy.export_onnx(&options).unwrap();
    let model = onnx_rs::parse(&small).unwrap();
    let graph = model.graph.as_ref().unwrap();
    let stored = graph.get_initializer("actor.1.weight.int8").unwrap().as_raw().unwrap();
    let scales = graph.get_initializer("actor.1.weight.scale").unwrap().as_f32().unwrap();
    for (at, weight) in weight.concat().iter().enumerate() {
        let scale = scales[at % outputs];
        let apart = (f32::from(stored[at].cast_signed()) * scale - weight).abs();
        assert!(apart <= 0.501 * scale, "weight {at}: {apart} with a scale of {scale}");
    }
    for outputs in 0..outputs {
        let column = stored.iter().skip(outputs).step_by(scales.len());
        assert!(
            column.map(|weight| weight.cast_signed().unsigned_abs()).max() == Some(64),
            "column {outputs}"
        );
    }
    let halves = policy.export_onnx(&OnnxOptions::default().weights(ExportWeights::F16)).unwrap();
    let model = onnx_rs::parse(&halves).unwrap();
    let stored = model.graph.as_ref().unwrap().get_initializer("actor.1.weight.f16").unwrap();
    let wanted: Vec<u8> =
        weight.concat().iter().flat_map(|w| half::f16::from_f32(*w).to_le_bytes()).collect();
    assert_eq!(stored.as_raw().unwrap(), wanted);
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let all = kinds();
    let of = |name: &str| &all.iter().find(|(kind, _)| *kind == name).unwrap().1;
    let refused = |policy: &Policy, options: &OnnxOptions<'_>, wanted: &str| {
        let error = policy.export_onnx(options).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    };
    let int8 = |observations, states| {
        OnnxOptions::default().weights(ExportWeights::Int8(Calibration { observations, states }))
    };
    let whole = [0.5; AGENTS * FEATURES];
    let plain = of("discrete-relu");
    refused(plain, &OnnxOptions::default().agent(3), "setting `agent`: 3 is none of the 3");
    refused(plain, &int8(&[], &[]), "observations of the calibration: expected a multiple of 21");
    refused(plain, &int8(&whole[1..], &[]), "expected a multiple of 21 [step][agent][feature], got 20");
    refused(plain, &int8(&[f32::NAN; AGENTS * FEATURES], &[]), "a number of the calibration is NaN");
    refused(of("state-critic"), &int8(&whole, &[]), "states of the calibration: expected 5, got 0");
    let mut weights = plain.weights().to_vec();
    let tensor = plain.layout().tensors.iter().find(|tensor| tensor.name == "critic.1.weight").unwrap();
    weights[tensor.first] = 1e6;
    let large = Policy::new(plain.metadata().clone(), weights).unwrap();
    let half = OnnxOptions::default().weights(ExportWeights::F16);
    refused(&large, &half, "a weight of `critic.1.weight` is 1000000, and f16 ends at 65504");
    assert!(large.export_safetensors(true).is_err());
    // Files of older versions have no statistics of the global state.
    let mut metadata = of("state-critic").metadata().clone();
    metadata.observation_moments.truncate(AGENTS * FEATURES);
    let old = Policy::new(metadata, of("state-critic").weights().to_vec()).unwrap();
    refused(&old, &OnnxOptions::default(), "no statistics of the global state");
    old.export_onnx(&OnnxOptions::default().without_value()).unwrap();
}

#[test]
fn safetensors_hold_the_tensors_without_padding_and_describe_them() {
    let all = kinds();
    let policy = &all.iter().find(|(kind, _)| *kind == "market-weights").unwrap().1;
    for half in [false, true] {
        let bytes = policy.export_safetensors(half).unwrap();
        assert!(bytes == policy.export_safetensors(half).unwrap(), "other bytes");
        let (description, file) = envelope::read(&bytes, "description", "export").unwrap();
        let description: serde_json::Value = serde_json::from_str(&description).unwrap();
        assert_eq!(description["agents"][1], "BBB");
        assert!(description["conventions"]["weight"].as_str().unwrap().starts_with("[inputs][outputs]"));
        let view = file.tensor("actor.1.weight").unwrap();
        assert_eq!(view.shape(), [24, 17]);
        let weights = rows(policy, "actor.1.weight").unwrap().concat();
        let stored = view.data().chunks_exact(if half { 2 } else { 4 });
        for (stored, weight) in stored.zip(weights) {
            match half {
                true => assert_eq!(stored, half::f16::from_f32(weight).to_le_bytes()),
                false => assert_eq!(stored, weight.to_le_bytes()),
            }
        }
        assert_eq!(file.tensor("actor.0.bias").unwrap().shape(), [AGENTS, 24]);
        assert_eq!(file.tensor("actor.1.bias").unwrap().shape(), [17]);
        assert_eq!(file.tensor("scaling.limit").unwrap().shape(), [AGENTS, FEATURES]);
        assert_eq!(file.tensor("normalization.observations.scale").unwrap().shape(), [AGENTS, FEATURES]);
        assert_eq!(file.names().len(), policy.layout().tensors.len() + 6);
    }
}
