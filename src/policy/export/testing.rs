//! Policies of all kinds, and what phalanx computes with them: the tests of exports compare the files with it, and
//! `tests/fixtures/onnx_exports.py` what ONNX Runtime makes of them.

use jiff::civil::date;
use safetensors::tensor::Dtype;

use super::Policy;
use crate::env::{ActionSpace, TradingSettings};
use crate::gpu::Recorder;
use crate::mappo::ActionMode;
use crate::market::{FEATURE_LIMIT, FILLED, ScalingStatistics};
use crate::model::envelope::NamedTensor;
use crate::model::initial_weights;
use crate::nn::{Activation, CriticInput, Precision, Sharing};
use crate::policy::{ActionSpec, MarketMetadata, ModelMetadata, NetworkMetadata};
use crate::random::Stream;

pub const AGENTS: usize = 3;
pub const FEATURES: usize = 7;
const STATES: usize = 5;
/// Environments and steps: 1,000 decisions of every agent.
const ENVIRONMENTS: usize = 250;
const STEPS: usize = 4;

fn network() -> NetworkMetadata {
    NetworkMetadata {
        agents: AGENTS as u32,
        obs_dim: FEATURES as u32,
        state_dim: 0,
        hidden: vec![24, 17],
        activation: Activation::Relu,
        input_norm: false,
        hidden_norm: true,
        recurrent: false,
        networks: Sharing::Shared,
        agent_identity: true,
        critic_input: CriticInput::Joint,
        precision: Precision::F32,
    }
}

fn market(actions: ActionSpace, shorting: bool) -> MarketMetadata {
    let day = date(2020, 1, 1).at(0, 0, 0, 0);
    let names = ["return", "range", "volume", "constant", FILLED];
    let moments = (0..AGENTS).flat_map(|agent| {
        let shift = agent as f32;
        [[0.1 * shift, 0.02], [3.0 + shift, 0.5], [1e6, 2.5e5], [7.0, 0.0], [0.0, 1.0]]
    });
    MarketMetadata {
        settings: TradingSettings {
            actions,
            shorting,
            positions: vec![-1.0, 0.0, 0.5, 1.0],
            ..TradingSettings::default()
        },
        scaling: ScalingStatistics {
            features: names.map(String::from).to_vec(),
            symbols: ["AAA", "BBB", "C\"C"].map(String::from).to_vec(),
            moments: moments.collect(),
        },
        train_from: day,
        train_to: day,
        test_from: day,
        bars: None,
    }
}

/// A policy whose weights are random enough for all actions to occur.
pub fn policy(
    network: NetworkMetadata,
    actions: ActionSpec,
    normalized: bool,
    market: Option<MarketMetadata>,
) -> Policy {
    let mut random = Stream::new(11, 3);
    let state = if network.critic_input == CriticInput::State { network.state_dim } else { 0 };
    let columns = network.agents * network.obs_dim + state;
    let mut moment = |column: u32| match column {
        // A constant.
        2 => [1.0, 0.0, 0.0, 100.0],
        _ => [0.3 * random.normal() as f32, 1e-8, 90.0 + random.uniform() as f32, 100.0],
    };
    let observation_moments = if normalized { (0..columns).map(&mut moment).collect() } else { vec![] };
    let activation = network.activation;
    let metadata = ModelMetadata {
        version: "test".into(),
        observation_moments,
        features: market.as_ref().map(MarketMetadata::features).unwrap_or_default(),
        network,
        actions,
        market,
    };
    let layout = metadata.layout().unwrap();
    let mut weights = initial_weights(&layout, activation, 5);
    for tensor in &layout.tensors {
        let head = tensor.name.starts_with("actor") && tensor.name.ends_with("2.weight");
        for row in 0..tensor.shape[0] {
            let first = tensor.first + row * tensor.stride;
            weights[first..first + tensor.shape[1]].iter_mut().for_each(|weight| {
                *weight = *weight * if head { 60.0 } else { 1.0 } + 0.1 * random.normal() as f32;
            });
        }
    }
    Policy::new(metadata, weights).unwrap()
}

/// One of every kind.
pub fn kinds() -> Vec<(&'static str, Policy)> {
    let discrete = |choices: &[u32]| ActionSpec::Discrete { choices: choices.to_vec() };
    let numbers = |numbers, squashed| ActionSpec::Continuous { numbers, squashed };
    let with = |change: fn(&mut NetworkMetadata)| {
        let mut own = network();
        change(&mut own);
        own
    };
    let plain = |network, actions, normalized| policy(network, actions, normalized, None);
    let positions = market(ActionSpace::Positions, false);
    vec![
        ("discrete-relu", plain(network(), discrete(&[3]), false)),
        (
            "multi-discrete-tanh",
            plain(
                with(|own| (own.activation, own.input_norm) = (Activation::Tanh, true)),
                discrete(&[2, 3, 4]),
                false,
            ),
        ),
        (
            "continuous-gelu",
            plain(
                with(|own| (own.activation, own.hidden_norm) = (Activation::Gelu, false)),
                numbers(2, false),
                false,
            ),
        ),
        ("squashed-silu", plain(with(|own| own.activation = Activation::Silu), numbers(2, true), true)),
        ("gru", plain(with(|own| own.recurrent = true), discrete(&[3]), true)),
        (
            "gru-separate",
            plain(
                with(|own| {
                    (own.recurrent, own.hidden_norm, own.networks) = (true, false, Sharing::Separate);
                }),
                discrete(&[3]),
                false,
            ),
        ),
        (
            "gru-without-identity",
            plain(with(|own| (own.recurrent, own.agent_identity) = (true, false)), discrete(&[3]), false),
        ),
        (
            "separate-own-critic",
            plain(
                with(|own| (own.networks, own.critic_input) = (Sharing::Separate, CriticInput::Own)),
                numbers(1, false),
                true,
            ),
        ),
        (
            "state-critic",
            plain(
                with(|own| (own.state_dim, own.critic_input) = (STATES as u32, CriticInput::State)),
                discrete(&[5]),
                true,
            ),
        ),
        ("one-agent", plain(with(|own| own.agents = 1), discrete(&[2]), false)),
        ("market", policy(network(), discrete(&[4]), false, Some(positions))),
        (
            "market-weights",
            policy(network(), numbers(1, true), true, Some(market(ActionSpace::Weights, true))),
        ),
    ]
}

/// Raw observations `[environment][agent][feature]`, and those that the policy takes.
fn observations(policy: &Policy, environments: usize, random: &mut Stream) -> [Vec<f32>; 2] {
    let network = &policy.metadata().network;
    let rows = environments * network.agents as usize;
    let mut raw: Vec<f32> = (0..rows * FEATURES).map(|_| random.normal() as f32).collect();
    let Some(market) = &policy.metadata().market else { return [raw.clone(), raw] };
    let features = FEATURES - 2;
    for row in 0..rows {
        let moments = &market.scaling.moments[row % AGENTS * features..][..features];
        let own = &mut raw[row * FEATURES..][..FEATURES];
        own.iter_mut()
            .zip(moments)
            .for_each(|(value, [mean, deviation])| *value = mean + *value * 3.0 * deviation);
        own[features - 1] = f32::from(u8::from(row % 5 == 0));
        (own[features], own[features + 1]) =
            (market.settings.positions[row % 4] as f32, own[features + 1] * 3.0);
        if row % 17 == 0 {
            own[row % 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][row % 3];
        }
    }
    let bars: Vec<f32> = raw.chunks_exact(FEATURES).flat_map(|own| own[..features].to_vec()).collect();
    let scaled = scaled(&bars, environments, &market.scaling.moments);
    let positions = raw.chunks_exact(FEATURES).map(|own| [own[features], own[features + 1].clamp(-5.0, 5.0)]);
    let taken =
        scaled.chunks_exact(features).zip(positions).flat_map(|(bar, position)| [bar, &position].concat());
    let taken = taken.collect();
    [raw, taken]
}

/// Features as the device scales them.
fn scaled(raw: &[f32], bars: usize, moments: &[[f32; 2]]) -> Vec<f32> {
    use crate::market::scale;
    let gpu = crate::testing::gpu();
    let (statistics, data) = (gpu.upload("statistics", moments).unwrap(), gpu.upload("data", raw).unwrap());
    let parameters = scale::Parameters {
        bars: bars as u32,
        columns: moments.len() as u32,
        limit: FEATURE_LIMIT,
        marked: (FEATURES - 2) as u32,
        ..scale::Parameters::default()
    };
    Recorder::new(&gpu).run(&scale::commands(&gpu, &parameters, &statistics, &data).unwrap()).unwrap();
    gpu.read(&data).unwrap()
}

/// Observations and states for a calibration, step after step.
pub fn calibration(policy: &Policy) -> [Vec<f32>; 2] {
    let mut random = Stream::new(31, 6);
    let [_, taken] = observations(policy, 500, &mut random);
    let states = 500 * policy.layout().shape.stored_state() as usize;
    [taken, (0..states).map(|_| random.normal() as f32).collect()]
}

/// The inputs of a graph and the outputs that phalanx computes, step after step: `0.in.observations`, `0.out.logits`.
pub fn expected(policy: &Policy, agent: Option<usize>) -> Vec<NamedTensor> {
    let metadata = policy.metadata();
    let agents = metadata.network.agents as usize;
    let memory = policy.layout().shape.memory() as usize;
    let states = policy.layout().shape.stored_state() as usize;
    let outputs = metadata.actions.outputs() as usize;
    let mut random = Stream::new(41, 7);
    let mut state = policy.state(ENVIRONMENTS).unwrap();
    let mut all = Vec::new();
    for step in 0..STEPS {
        // The rows of the graph's agents, `inner` numbers each.
        let mut push = |name: &str, dtype: Dtype, inner: &[usize], whole: bool, bytes: Vec<u8>| {
            let one = bytes.len() / ENVIRONMENTS / agents;
            let rows = bytes.chunks_exact(one).enumerate();
            let kept = rows.filter(|(row, _)| whole || agent.is_none_or(|agent| row % agents == agent));
            let outer = if agent.is_some() && !whole { vec![] } else { vec![agents] };
            let shape = [vec![ENVIRONMENTS], outer, inner.to_vec()].concat();
            let bytes = kept.flat_map(|(_, row)| row.to_vec()).collect();
            all.push(NamedTensor { name: format!("{step}.{name}"), dtype, shape, bytes });
        };
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let [raw, taken] = observations(policy, ENVIRONMENTS, &mut random);
        push("in.observations", Dtype::F32, &[FEATURES], false, bytes(&raw));
        let joint = metadata.network.critic_input == CriticInput::Joint;
        if joint && agent.is_some() {
            push("in.joint_observations", Dtype::F32, &[FEATURES], true, bytes(&raw));
        }
        let global: Vec<f32> = (0..ENVIRONMENTS * states).map(|_| random.normal() as f32).collect();
        let options = if metadata.actions.continuous() { 1 } else { outputs };
        let masks: Vec<u32> = (0..ENVIRONMENTS * agents)
            .map(|row| match row % 3 {
                0 if row % 50 == 0 => 0,
                0 => ((random.uniform() * f64::from(1u32 << options)) as u32) | 1,
                _ => u32::MAX,
            })
            .collect();
        let bits = masks.iter().flat_map(|mask| (0..options).map(move |option| (mask >> option & 1) as u8));
        push("in.action_mask", Dtype::BOOL, &[options], false, bits.collect());
        let memories = |state: &crate::policy::PolicyState| {
            let (_, actors, critics) = state.memory();
            [bytes(actors), bytes(critics)]
        };
        if memory > 0 {
            let [actors, critics] = memories(&state);
            push("in.actor_state", Dtype::F32, &[memory], false, actors);
            push("in.critic_state", Dtype::F32, &[memory], false, critics);
        }
        let actions = policy.act(&mut state, &taken, &masks, ActionMode::Greedy).unwrap().clone();
        let computed = state.outputs.clone();
        match &metadata.actions {
            ActionSpec::Discrete { choices } => {
                let logits = computed.iter().enumerate().map(|(at, logit)| {
                    let allowed = masks[at / outputs] >> (at % outputs) & 1 == 1;
                    if allowed { *logit } else { f32::MIN }
                });
                push("out.logits", Dtype::F32, &[outputs], false, bytes(&logits.collect::<Vec<_>>()));
                let taken = (0..ENVIRONMENTS * agents).flat_map(|row| {
                    (0..choices.len())
                        .map(|choice| actions.choice(row / agents, row % agents, choice))
                        .collect::<Vec<_>>()
                });
                let taken = taken.flat_map(|option| i64::from(option).to_le_bytes()).collect();
                let inner = [choices.len()];
                push("out.actions", Dtype::I64, if inner == [1] { &[] } else { &inner }, false, taken);
            }
            ActionSpec::Continuous { numbers, .. } => {
                let numbers = *numbers as usize;
                let means: Vec<f32> =
                    computed.chunks_exact(outputs).flat_map(|own| own[..numbers].to_vec()).collect();
                push("out.mean", Dtype::F32, &[numbers], false, bytes(&means));
                let taken: Vec<f32> = actions.raw().iter().map(|bits| f32::from_bits(*bits)).collect();
                push("out.actions", Dtype::F32, &[numbers], false, bytes(&taken));
            }
        }
        if let Some(market) = &metadata.market {
            let level = |action: &u32| market.settings.level(*action).unwrap() as f32;
            let levels: Vec<f32> = actions.raw().iter().map(level).collect();
            push("out.target", Dtype::F32, &[], false, bytes(&levels));
        }
        let values = policy.values(&mut state, &taken, &global).unwrap().to_vec();
        push("out.value", Dtype::F32, &[], false, bytes(&values));
        if memory > 0 {
            let [actors, critics] = memories(&state);
            push("out.next_actor_state", Dtype::F32, &[memory], false, actors);
            push("out.next_critic_state", Dtype::F32, &[memory], false, critics);
        }
        if states > 0 {
            let shape = vec![ENVIRONMENTS, states];
            all.push(NamedTensor {
                name: format!("{step}.in.state"),
                dtype: Dtype::F32,
                shape,
                bytes: bytes(&global),
            });
        }
    }
    all
}
