//! The two engines of a policy take the same actions, and its file keeps them.

use phalanx::mappo::{Activation, CriticInput, Precision, Sharing};
use phalanx::model::initial_weights;
use phalanx::policy::{
    ActionMode, ActionSpec, DevicePolicy, ModelMetadata, NetworkMetadata, Policy, PolicyState,
};
use phalanx::random::Stream;

use crate::common::allocations::allocations;
use crate::testing;

/// Environments and decisions: 10,000 observations of every agent and kind.
const ENVIRONMENTS: usize = 2_500;
const DECISIONS: usize = 4;

/// Networks of three agents with 7 features.
fn network() -> NetworkMetadata {
    NetworkMetadata {
        agents: 3,
        obs_dim: 7,
        state_dim: 0,
        hidden: vec![24, 17],
        activation: Activation::Tanh,
        input_norm: false,
        hidden_norm: true,
        recurrent: false,
        networks: Sharing::Shared,
        agent_identity: true,
        critic_input: CriticInput::Joint,
        precision: Precision::F32,
    }
}

fn discrete(choices: &[u32]) -> ActionSpec {
    ActionSpec::Discrete { choices: choices.to_vec() }
}

/// A policy whose weights are random enough for all actions to occur.
fn policy(network: NetworkMetadata, actions: ActionSpec, normalized: bool) -> Policy {
    let mut random = Stream::new(11, 3);
    let columns = (network.agents * network.obs_dim) as usize;
    let moments = (0..columns).map(|_| [random.normal() as f32, 1e-8, 90.0 + random.uniform() as f32, 100.0]);
    let activation = network.activation;
    let metadata = ModelMetadata {
        version: "test".into(),
        observation_moments: if normalized { moments.collect() } else { vec![] },
        features: vec![],
        network,
        actions,
        market: None,
    };
    let layout = metadata.layout().unwrap();
    let mut weights = initial_weights(&layout, activation, 5);
    for tensor in &layout.tensors {
        for row in 0..tensor.shape[0] {
            let first = tensor.first + row * tensor.stride;
            let head = tensor.name.ends_with("2.weight");
            weights[first..first + tensor.shape[1]].iter_mut().for_each(|weight| {
                *weight = *weight * if head { 60.0 } else { 1.0 } + 0.1 * random.normal() as f32;
            });
        }
    }
    Policy::new(metadata, weights).unwrap()
}

/// Whether an agent's action was so close to another one that rounding may decide.
fn tied(policy: &Policy, state: &mut PolicyState, row: usize, tolerance: f32) -> bool {
    let outputs = policy.metadata().actions.outputs() as usize;
    let ActionSpec::Discrete { choices } = &policy.metadata().actions else { return false };
    let all = policy.probabilities(state)[row * outputs..][..outputs].to_vec();
    let mut first = 0;
    choices.iter().any(|size| {
        let mut own = all[first..first + *size as usize].to_vec();
        first += *size as usize;
        own.sort_by(f32::total_cmp);
        own[own.len() - 1] - own[own.len() - 2] < tolerance
    })
}

/// Plays the same observations on both engines. Returns the number of actions that differ although nothing was tied, of ties (greedy
/// actions only), and the largest difference of continuous numbers.
fn compare(policy: &Policy, mode: ActionMode, tolerance: f32) -> (usize, usize, f32) {
    let mut taken = std::collections::BTreeSet::new();
    let gpu = testing::gpu();
    let network = &policy.metadata().network;
    let agents = network.agents as usize;
    let continuous = policy.metadata().actions.continuous();
    let mut device = DevicePolicy::new(&gpu, policy, ENVIRONMENTS, mode, 77).unwrap();
    let mut state = policy.state(ENVIRONMENTS).unwrap().with_seed(77);
    let mut random = Stream::new(21, 4);
    let (mut different, mut ties, mut largest) = (0, 0, 0f32);
    let options = policy.metadata().actions.actions();
    for decision in 0..DECISIONS {
        let numbers = ENVIRONMENTS * agents * network.obs_dim as usize;
        let observations: Vec<f32> = (0..numbers).map(|_| random.normal() as f32).collect();
        // Every third agent may not take some actions, and every fiftieth none.
        let masks: Vec<u32> = (0..ENVIRONMENTS * agents)
            .map(|row| match row % 3 {
                0 if row % 50 == 0 => 0,
                0 => ((random.uniform() * f64::from(1u32 << options)) as u32) | 1 | 1 << (options - 1),
                _ => u32::MAX,
            })
            .collect();
        if decision == 2 {
            (0..ENVIRONMENTS).step_by(7).for_each(|environment| {
                state.reset(environment);
                device.reset(environment);
            });
        }
        let there = device.act(&observations, &masks).unwrap().clone();
        let here = policy.act(&mut state, &observations, &masks, mode).unwrap().clone();
        taken.extend(here.raw().iter().copied().filter(|_| !continuous));
        for row in 0..ENVIRONMENTS * agents {
            let (environment, agent) = (row / agents, row % agents);
            let same = if continuous {
                let pairs = here.numbers(environment, agent).zip(there.numbers(environment, agent));
                let apart = pairs.map(|(here, there)| (here - there).abs()).fold(0.0, f32::max);
                largest = largest.max(apart);
                apart < tolerance
            } else {
                here.raw()[row] == there.raw()[row]
            };
            if same {
                let apart = here.log_probabilities()[row] - there.log_probabilities()[row];
                assert!(apart.abs() < 40.0 * tolerance, "log-probabilities differ by {apart} in row {row}");
            } else if mode == ActionMode::Greedy && tied(policy, &mut state, row, tolerance) {
                ties += 1;
            } else {
                different += 1;
            }
        }
    }
    if let ActionSpec::Discrete { choices } = &policy.metadata().actions {
        let all: u32 = choices.iter().product();
        assert_eq!(taken.len(), all as usize, "every action occurs, of {choices:?}");
    }
    (different, ties, largest)
}

fn kinds() -> Vec<(&'static str, Policy)> {
    let numbers = |squashed| ActionSpec::Continuous { numbers: 2, squashed };
    let with = |change: fn(&mut NetworkMetadata)| {
        let mut own = network();
        change(&mut own);
        own
    };
    vec![
        ("discrete", policy(network(), discrete(&[3]), false)),
        ("multi-discrete", policy(with(|own| own.input_norm = true), discrete(&[2, 3, 4]), false)),
        ("continuous", policy(with(|own| own.hidden_norm = false), numbers(false), false)),
        ("squashed", policy(network(), numbers(true), true)),
        ("GRU", policy(with(|own| own.recurrent = true), discrete(&[3]), false)),
        ("normalised", policy(network(), discrete(&[5]), true)),
        ("separate", policy(with(|own| own.networks = Sharing::Separate), discrete(&[3]), false)),
        ("f16", policy(with(|own| own.precision = Precision::F16), discrete(&[3]), false)),
        (
            "f16, GRU, normalised",
            policy(with(|own| (own.precision, own.recurrent) = (Precision::F16, true)), discrete(&[3]), true),
        ),
    ]
}

#[test]
fn both_engines_take_the_same_actions() {
    for (kind, policy) in kinds() {
        let f16 = policy.metadata().network.precision == Precision::F16;
        let tolerance = if f16 { 1e-2 } else { 1e-4 };
        let (different, ties, largest) = compare(&policy, ActionMode::Greedy, tolerance);
        println!("{kind}: {different} different, {ties} ties, numbers within {largest:e}");
        assert_eq!(different, 0, "{kind}");
        let rows = ENVIRONMENTS * DECISIONS * 3;
        assert!(ties * 1000 < if f16 { 10 * rows } else { rows }, "{kind}: {ties} ties");
    }
}

/// A draw may fall between two sums that differ by rounding: in one of ten thousand rows at most.
#[test]
fn both_engines_draw_the_same_actions() {
    for (kind, policy) in kinds().into_iter().take(5) {
        let (different, _, largest) = compare(&policy, ActionMode::Sampled, 1e-3);
        println!("{kind}: {different} different, numbers within {largest:e}");
        assert!(different * 10_000 <= ENVIRONMENTS * DECISIONS * 3, "{kind}: {different} differ");
    }
}

#[test]
fn decisions_on_the_cpu_allocate_nothing() {
    for (kind, policy) in kinds() {
        let rows = policy.metadata().network.agents as usize;
        let observations = vec![0.5; 4 * rows * policy.metadata().network.obs_dim as usize];
        let masks = vec![u32::MAX; 4 * rows];
        let mut state = policy.state(4).unwrap();
        let count = allocations(|| {
            for mode in [ActionMode::Greedy, ActionMode::Sampled] {
                policy.act(&mut state, &observations, &masks, mode).unwrap();
                let _ = policy.probabilities(&mut state);
                policy.values(&mut state, &observations, &[]).unwrap();
            }
        });
        assert_eq!(count, 0, "{kind}");
    }
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1]))), 1, "allocations are counted");
}

#[test]
fn a_state_of_another_policy_and_outputs_beyond_f16_are_refused() {
    let policy = policy(network(), discrete(&[3]), false);
    let mut foreign = policy.with_precision(Precision::F16).unwrap().state(1).unwrap();
    let observations = vec![1.0; 21];
    let act = |policy: &Policy, state: &mut PolicyState| {
        policy.act(state, &observations, &[], ActionMode::Greedy).map(|_| ()).unwrap_err().to_string()
    };
    assert!(act(&policy, &mut foreign).contains("belongs to another policy"));
    // f16 ends at 65,504.
    let large: Vec<f32> = policy.weights().iter().map(|weight| weight * 1e6).collect();
    let huge = Policy::new(policy.metadata().clone(), large).unwrap();
    let half = huge.with_precision(Precision::F16).unwrap();
    let error = act(&half, &mut half.state(1).unwrap());
    assert!(error.contains("output 0 of the network of agent 0 is"), "{error}");
    let mut device = DevicePolicy::new(&testing::gpu(), &half, 1, ActionMode::Greedy, 0).unwrap();
    let error = device.act(&observations, &[]).unwrap_err().to_string();
    assert!(error.contains("log-probability of agent 0 in environment 0 is"), "{error}");
    let mut lacking = observations.clone();
    lacking[9] = f32::NAN;
    let error = policy.act(&mut policy.state(1).unwrap(), &lacking, &[], ActionMode::Greedy).unwrap_err();
    assert!(error.to_string().contains("feature 2 of agent 1 in environment 0 is NaN"), "{error}");
}
