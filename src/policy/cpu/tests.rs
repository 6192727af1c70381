use super::*;
use crate::nn::reference::{Case, cases};
use crate::nn::{CriticInput, Shape};

/// Logits and values of all slots, `[output][row]`, the memory going from slot to slot.
fn heads(case: &Case, precision: Precision) -> [Vec<Vec<f32>>; 2] {
    let networks = Networks::new(&case.layout(), precision, &[], &case.params);
    let mut scratch = networks.scratch();
    let Shape { agents, obs_dim, actions, state_dim, .. } = case.shape;
    let [agents, features, states] = [agents, obs_dim, state_dim].map(|size| size as usize);
    let envs = case.quads * 4;
    let (size, per_slot) = (networks.memory, agents * envs);
    let mut heads = [vec![Vec::new(); actions as usize], vec![Vec::new(); 1]];
    // The states that enter slot 0, at place 1.
    let stored = |stack: usize, agent: usize, env: usize| -> Vec<f32> {
        let at = |j: usize| ((2 + stack) * size + j) * per_slot + agent * envs + env;
        (0..size).map(|j| case.states[at(j)]).collect()
    };
    let rows = || (0..agents).flat_map(|agent| (0..envs).map(move |env| (agent, env)));
    let mut memory: [Vec<_>; 2] = [0, 1].map(|stack| rows().map(|(a, e)| stored(stack, a, e)).collect());
    for slot in 0..case.slots {
        let before = if slot == 0 { case.slots } else { slot - 1 };
        let own = |agent: usize, env: usize| -> Vec<f32> {
            let at = |f: usize| ((slot * agents + agent) * features + f) * envs + env;
            (0..features).map(|f| case.observations[at(f)]).collect()
        };
        for (row, (agent, env)) in rows().enumerate() {
            for stack in [0, 1] {
                let raw = match (stack, case.shape.critic_input) {
                    (0, _) | (_, CriticInput::Own) => own(agent, env),
                    (_, CriticInput::Joint) => (0..agents).flat_map(|agent| own(agent, env)).collect(),
                    (_, CriticInput::State) => {
                        let first = case.rows() * features;
                        (0..states)
                            .map(|i| case.observations[first + (slot * states + i) * envs + env])
                            .collect()
                    }
                };
                let mut input = vec![0.0; raw.len()];
                networks.prepare(0, &raw, &mut input);
                let memory = &mut memory[stack][row];
                if case.dones_and_masks[before * envs + env] != 0 {
                    memory.fill(0.0);
                }
                let computed = match stack {
                    0 => networks.actor(agent, &input, memory, &mut scratch).to_vec(),
                    _ => vec![networks.critic(agent, &input, memory, &mut scratch)],
                };
                heads[stack].iter_mut().zip(computed).for_each(|(all, value)| all.push(value));
            }
        }
    }
    heads
}

#[test]
fn all_networks_agree_with_f64() {
    for (number, case) in cases().iter().enumerate() {
        let expected = case.whole();
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::F16, 2e-2)] {
            let computed = heads(case, precision);
            for stack in [0, 1] {
                let what = format!("case {number}, stack {stack}, {precision:?}");
                Case::compare(&what, &computed[stack], &expected[stack], tolerance);
            }
        }
    }
}

#[test]
fn f16_rounds_weights_and_activations() {
    let case = &cases()[0];
    let [exact, rounded] = [Precision::F32, Precision::F16].map(|precision| heads(case, precision));
    assert_ne!(exact, rounded);
}

#[test]
fn a_constant_feature_is_normalised_to_zero_and_others_are_clamped() {
    let layout = Layout::new(&Shape { obs_dim: 3, ..Shape::default() }).unwrap();
    let params = vec![0.0; layout.params as usize * 4];
    let moments = [[2.0, 0.0, 40.0, 10.0], [5.0, 0.0, 0.0, 10.0], [0.0, 0.0, 1e-6, 100.0]];
    let networks = Networks::new(&layout, Precision::F32, &moments, &params);
    let mut prepared = [0.0; 3];
    networks.prepare(0, &[6.0, 9.0, -1.0], &mut prepared);
    assert_eq!(prepared, [2.0, 0.0, -LIMIT]);
}
