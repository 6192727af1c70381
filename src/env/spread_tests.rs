//! Both definitions against their original code (`tests/fixtures/spread.py`), and the returns of two scripted policies.

use super::*;
use crate::env::bench::Bench;
use crate::random::Stream;
use crate::testing::both_classes;

const AGENTS: usize = 3;

/// A rollout of one episode.
fn bench(gpu: &Gpu, definition: Definition, envs: usize) -> Bench {
    Bench::new(gpu, &Spread::new(definition), envs, LENGTH, 7)
}

#[derive(serde::Deserialize)]
struct Episode {
    /// Agents' positions, velocities, landmarks.
    start: Vec<f64>,
    /// One digit per step and agent.
    actions: String,
    total: Vec<f64>,
    rewards: Option<Vec<Vec<f64>>>,
    observations: Option<Vec<Vec<f64>>>,
}

#[derive(serde::Deserialize)]
struct OnPolicyEpisode {
    rewards: Vec<f64>,
}

#[derive(serde::Deserialize)]
struct Fixture {
    steps: Vec<Episode>,
    on_policy: Vec<OnPolicyEpisode>,
}

/// Runs every environment from the fixture's initial state with the fixture's actions.
fn replay(gpu: &Gpu, definition: Definition, episodes: &[Episode]) -> Bench {
    let mut bench = bench(gpu, definition, episodes.len());
    let envs = episodes.len();
    let mut fields: Vec<f32> = bench.read(bench.state());
    let mut actions = vec![0u32; LENGTH as usize * AGENTS * envs];
    for (env, episode) in episodes.iter().enumerate() {
        let mut set = |field: usize, at: usize| fields[field * envs + env] = episode.start[at] as f32;
        for agent in 0..AGENTS {
            for axis in 0..2 {
                set(4 * agent + axis, 2 * agent + axis);
                set(4 * agent + 2 + axis, 6 + 2 * agent + axis);
                set(12 + 2 * agent + axis, 12 + 2 * agent + axis);
            }
        }
        for (i, digit) in episode.actions.chars().enumerate() {
            actions[i * envs + env] = digit.to_digit(10).unwrap();
        }
    }
    bench.gpu.write(bench.state(), 0, bytemuck::cast_slice(&fields)).unwrap();
    bench.act(&actions);
    bench.run();
    bench
}

#[test]
fn episodes_match_mpe2_and_the_papers_code() {
    for gpu in &both_classes() {
        let text = include_str!("../../tests/fixtures/spread.json");
        let fixture: Fixture = serde_json::from_str(text).unwrap();
        assert_eq!((fixture.steps.len(), fixture.on_policy.len()), (500, 20));
        let bench = replay(gpu, Definition::Mpe2, &fixture.steps);
        let (envs, rewards, seen) = (bench.envs, bench.read(&bench.rewards), bench.read(&bench.observations));
        let reward =
            |step: usize, agent: usize, env: usize| f64::from(rewards[(step * AGENTS + agent) * envs + env]);
        let mut worst = 0f64;
        let mut compare = |what: &str, got: f64, expected: f64| {
            let error = (got - expected).abs();
            assert!(error < 1e-4, "{what}: {got} for {expected}");
            worst = worst.max(error);
        };
        for (env, episode) in fixture.steps.iter().enumerate() {
            for agent in 0..AGENTS {
                let total = (0..LENGTH as usize).map(|step| reward(step, agent, env)).sum();
                compare(&format!("episode {env}, agent {agent}"), total, episode.total[agent]);
            }
            for (step, expected) in episode.rewards.iter().flatten().enumerate() {
                for (agent, expected) in expected.iter().enumerate() {
                    compare(&format!("episode {env}, step {step}"), reward(step, agent, env), *expected);
                }
            }
            // The final observation is in the slot of the truncated episode.
            for (agent, expected) in episode.observations.iter().flatten().enumerate() {
                for (feature, expected) in expected.iter().enumerate() {
                    let at = (((LENGTH as usize + 1) * AGENTS + agent) * 18 + feature) * envs + env;
                    compare(&format!("episode {env}, feature {feature}"), f64::from(seen[at]), *expected);
                }
            }
        }
        let bench = replay(gpu, Definition::OnPolicy, &fixture.steps[..20]);
        let rewards = bench.read(&bench.rewards);
        for (env, episode) in fixture.on_policy.iter().enumerate() {
            for (step, expected) in episode.rewards.iter().enumerate() {
                for agent in 0..AGENTS {
                    let got = f64::from(rewards[(step * AGENTS + agent) * bench.envs + env]);
                    compare(&format!("on-policy, episode {env}, step {step}"), got, *expected);
                }
            }
        }
        println!("largest error {worst:.1e}");
    }
}

#[test]
fn random_policies_get_the_known_returns() {
    for gpu in &both_classes() {
        for (definition, mean, deviation) in
            [(Definition::OnPolicy, -218.6, 43.3), (Definition::Mpe2, -26.46, 7.89)]
        {
            let mut bench = bench(gpu, definition, 2048);
            let mut stream = Stream::new(5, 1);
            let actions: Vec<u32> =
                (0..LENGTH as usize * AGENTS * bench.envs).map(|_| (stream.uniform() * 5.0) as u32).collect();
            bench.act(&actions);
            bench.run();
            let [found, error, found_deviation] = bench.returns();
            println!("{definition:?}: {found:.2} +- {error:.2}, deviation {found_deviation:.2}");
            assert!((found - mean).abs() < 3.0 * error, "{definition:?}: {found} for {mean}");
            assert!(
                (found_deviation / deviation - 1.0).abs() < 0.1,
                "{definition:?}: {found_deviation} for {deviation}"
            );
            let ends: Vec<u32> = bench.gpu.read(&bench.dones_and_masks).unwrap();
            let last = (LENGTH as usize - 1) * bench.envs;
            assert!(ends[..last].iter().all(|end| *end == 0));
            let end = if definition == Definition::OnPolicy { 1 } else { 2 };
            assert!(ends[last..last + bench.envs].iter().all(|found| *found == end));
        }
    }
}

/// Each agent steers greedily to its own landmark.
#[test]
fn greedy_policies_get_the_known_returns() {
    for gpu in &both_classes() {
        for (definition, mean) in [(Definition::OnPolicy, -118.5), (Definition::Mpe2, -8.81)] {
            let mut bench = bench(gpu, definition, 512);
            let mut assigned: Vec<[usize; AGENTS]> = Vec::new();
            let envs = bench.envs;
            for step in 0..LENGTH as usize {
                let seen = bench.read(&bench.observations);
                let at = |a: usize, f: usize, env: usize| {
                    f64::from(seen[((step * AGENTS + a) * 18 + f) * envs + env])
                };
                if step == 0 {
                    assigned = (0..envs)
                        .map(|env| assignment(|a, l| at(a, 4 + 2 * l, env).hypot(at(a, 5 + 2 * l, env))))
                        .collect();
                }
                let mut actions = vec![0u32; AGENTS * envs];
                for a in 0..AGENTS {
                    for env in 0..envs {
                        let l = assigned[env][a];
                        let offset = [0, 1].map(|axis| at(a, 4 + 2 * l + axis, env));
                        let velocity = [0, 1].map(|axis| at(a, axis, env));
                        actions[a * envs + env] = steer(definition, offset, velocity);
                    }
                }
                let offset = (step * AGENTS * envs * 4) as u64;
                bench.gpu.write(&bench.actions, offset, bytemuck::cast_slice(&actions)).unwrap();
                bench.recorder.run(&bench.recorded.steps[step]).unwrap();
            }
            let [found, error, _] = bench.returns();
            println!("{definition:?}, greedy: {found:.2} +- {error:.2}");
            assert!((found - mean).abs() < 3.0 * error, "{definition:?}: {found} for {mean}");
        }
    }
}

/// The assignment of agents to landmarks with the smallest total distance.
fn assignment(distance: impl Fn(usize, usize) -> f64) -> [usize; AGENTS] {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let length = |order: &[usize; AGENTS]| (0..AGENTS).map(|a| distance(a, order[a])).sum::<f64>();
    orders.into_iter().min_by(|a, b| length(a).total_cmp(&length(b))).unwrap()
}

/// The action that minimises the remaining distance once the agent has come to rest.
fn steer(definition: Definition, offset: [f64; 2], velocity: [f64; 2]) -> u32 {
    let signs = if definition == Definition::OnPolicy { [1.0, -1.0] } else { [-1.0, 1.0] };
    let left = |action: u32| {
        let mut push = [0.0; 2];
        if action > 0 {
            push[(action as usize - 1) / 2] = 0.5 * signs[(action as usize - 1) % 2];
        }
        // MPE2 first moves with the old velocity for one step.
        let delay = if definition == Definition::OnPolicy { 0.0 } else { 0.1 };
        let rest = [0, 1]
            .map(|axis| offset[axis] - delay * velocity[axis] - 0.4 * (0.75 * velocity[axis] + push[axis]));
        rest[0].hypot(rest[1])
    };
    (0..5).min_by(|a, b| left(*a).total_cmp(&left(*b))).unwrap()
}
