//! Both definitions against the code they are from (`tests/fixtures/spread.py`), and the returns of two plain players.

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
    /// A digit for every step and agent.
    actions: String,
    total: Vec<f64>,
    rewards: Option<Vec<Vec<f64>>>,
    observations: Option<Vec<Vec<f64>>>,
}

#[derive(serde::Deserialize)]
struct Ours {
    rewards: Vec<f64>,
}

#[derive(serde::Deserialize)]
struct Fixture {
    steps: Vec<Episode>,
    on_policy: Vec<Ours>,
}

/// Starts every environment as the fixture says and gives it the fixture's actions.
fn play(gpu: &Gpu, definition: Definition, episodes: &[Episode]) -> Bench {
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
fn episodes_are_those_of_mpe2_and_of_the_papers_code() {
    for gpu in &both_classes() {
        let text = include_str!("../../tests/fixtures/spread.json");
        let fixture: Fixture = serde_json::from_str(text).unwrap();
        assert_eq!((fixture.steps.len(), fixture.on_policy.len()), (500, 20));
        let bench = play(gpu, Definition::Mpe2, &fixture.steps);
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
            // The last observation is in the slot of truncated episodes.
            for (agent, expected) in episode.observations.iter().flatten().enumerate() {
                for (feature, expected) in expected.iter().enumerate() {
                    let at = (((LENGTH as usize + 1) * AGENTS + agent) * 18 + feature) * envs + env;
                    compare(&format!("episode {env}, feature {feature}"), f64::from(seen[at]), *expected);
                }
            }
        }
        let bench = play(gpu, Definition::OnPolicy, &fixture.steps[..20]);
        let rewards = bench.read(&bench.rewards);
        for (env, ours) in fixture.on_policy.iter().enumerate() {
            for (step, expected) in ours.rewards.iter().enumerate() {
                for agent in 0..AGENTS {
                    let got = f64::from(rewards[(step * AGENTS + agent) * bench.envs + env]);
                    compare(&format!("on-policy, episode {env}, step {step}"), got, *expected);
                }
            }
        }
        println!("at most {worst:.1e} apart");
    }
}

#[test]
fn random_players_get_the_known_returns() {
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
            let [found, error, spread] = bench.returns();
            println!("{definition:?}: {found:.2} +- {error:.2}, deviation {spread:.2}");
            assert!((found - mean).abs() < 3.0 * error, "{definition:?}: {found} for {mean}");
            assert!((spread / deviation - 1.0).abs() < 0.1, "{definition:?}: {spread} for {deviation}");
            let ends: Vec<u32> = bench.gpu.read(&bench.dones_and_masks).unwrap();
            let last = (LENGTH as usize - 1) * bench.envs;
            assert!(ends[..last].iter().all(|end| *end == 0));
            let end = if definition == Definition::OnPolicy { 1 } else { 2 };
            assert!(ends[last..last + bench.envs].iter().all(|found| *found == end));
        }
    }
}

/// Each agent goes to its own landmark, along the axis on which it is further away.
#[test]
fn greedy_players_get_the_known_returns() {
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
                        let way = [0, 1].map(|axis| at(a, 4 + 2 * l + axis, env));
                        let speed = [0, 1].map(|axis| at(a, axis, env));
                        actions[a * envs + env] = steer(definition, way, speed);
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

/// The assignment of agents to landmarks with the shortest ways in all.
fn assignment(distance: impl Fn(usize, usize) -> f64) -> [usize; AGENTS] {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let length = |order: &[usize; AGENTS]| (0..AGENTS).map(|a| distance(a, order[a])).sum::<f64>();
    orders.into_iter().min_by(|a, b| length(a).total_cmp(&length(b))).unwrap()
}

/// The push that leaves least distance once the agent has come to rest.
fn steer(definition: Definition, way: [f64; 2], speed: [f64; 2]) -> u32 {
    let signs = if definition == Definition::OnPolicy { [1.0, -1.0] } else { [-1.0, 1.0] };
    let left = |action: u32| {
        let mut push = [0.0; 2];
        if action > 0 {
            push[(action as usize - 1) / 2] = 0.5 * signs[(action as usize - 1) % 2];
        }
        // In the paper's code the new velocity counts at once.
        let at_once = if definition == Definition::OnPolicy { 0.0 } else { 0.1 };
        let rest =
            [0, 1].map(|axis| way[axis] - at_once * speed[axis] - 0.4 * (0.75 * speed[axis] + push[axis]));
        rest[0].hypot(rest[1])
    };
    (0..5).min_by(|a, b| left(*a).total_cmp(&left(*b))).unwrap()
}
