//! The examples of environments as WGSL functions: their rules, what is learnt in them, and the guide that shows them.

use std::collections::BTreeMap;

use phalanx::env::{Environment, RolloutBuffers, State, Storage};
use phalanx::gpu::{Gpu, Recorder, STATE};
use phalanx::mappo::{Precision, Trainer};
use serde::Deserialize;

use crate::testing;

#[expect(dead_code, reason = "the example's main function")]
#[path = "../../examples/corridor.rs"]
mod corridor;
#[expect(dead_code, reason = "the example's main function")]
#[path = "../../examples/pendulum.rs"]
mod pendulum;

/// An environment and the buffers of a rollout of `steps` steps, in f32.
struct Rollout {
    gpu: Gpu,
    observations: wgpu::Buffer,
    actions: wgpu::Buffer,
    rewards: wgpu::Buffer,
    dones_and_masks: wgpu::Buffer,
    state: wgpu::Buffer,
    steps: Vec<phalanx::gpu::Recording>,
    recorder: Recorder,
}

impl Rollout {
    fn new(gpu: &Gpu, environment: &dyn Environment, envs: u32, steps: u32) -> Self {
        let (spec, e, t) = (environment.spec(), u64::from(envs), u64::from(steps));
        let (agents, features) = (u64::from(spec.agents), u64::from(spec.obs_dim));
        let slots = t + 1 + u64::from(environment.truncations(steps));
        let sizes = [
            slots * agents * features * e,
            t * agents * e,
            t * agents * e,
            t * e + (t + 1) * agents * e,
            4 * e,
        ];
        let buffers = sizes.map(|words| gpu.buffer("rollout", words * 4, STATE).unwrap());
        let [observations, actions, rewards, dones_and_masks, episodes] = &buffers;
        let recorded = environment
            .record(
                gpu,
                &RolloutBuffers {
                    envs,
                    steps,
                    seed: 7,
                    storage: Storage::F32,
                    state_dim: 0,
                    first_state: 0,
                    observations,
                    actions,
                    rewards,
                    dones_and_masks,
                    episodes,
                },
            )
            .unwrap();
        let mut recorder = Recorder::new(gpu);
        recorder.run(&recorded.reset).unwrap();
        let State::Device(state) = &recorded.state[0] else { panic!("its state is on the device") };
        let state = state.buffer().clone();
        let [observations, actions, rewards, dones_and_masks, _] = buffers;
        Self {
            gpu: gpu.clone(),
            observations,
            actions,
            rewards,
            dones_and_masks,
            state,
            steps: recorded.steps,
            recorder,
        }
    }

    fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer) -> Vec<T> {
        self.gpu.read(buffer).unwrap()
    }
}

#[derive(Deserialize)]
struct Episode {
    start: Vec<f64>,
    actions: Vec<f32>,
    observations: Vec<Vec<f32>>,
    rewards: Vec<f32>,
}

/// Every step of the fixture in an environment of its own, from the state before it: the motion is unstable, and f32 would leave f64 along
/// an episode.
#[test]
fn the_pendulum_on_the_device_follows_gymnasium() {
    let text = include_str!("../fixtures/control.json");
    let tasks: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).unwrap();
    let episodes: Vec<Episode> = serde_json::from_value(tasks["Pendulum-v1"].clone()).unwrap();
    // Angle, velocity, torque, and the reward and the observation that follow.
    let mut steps: Vec<([f32; 2], f32, f32, Vec<f32>)> = Vec::new();
    for episode in &episodes {
        let mut state = [episode.start[0] as f32, episode.start[1] as f32];
        for (step, action) in episode.actions.iter().enumerate() {
            let seen = &episode.observations[step];
            steps.push((state, action.clamp(-2.0, 2.0), episode.rewards[step], seen.clone()));
            state = [seen[1].atan2(seen[0]), seen[2]];
        }
    }
    let envs = steps.len();
    assert!(envs > 100, "{envs}");
    for gpu in &testing::both_classes() {
        let environment = pendulum::environment().unwrap();
        let mut rollout = Rollout::new(gpu, &environment, envs as u32, 1);
        let mut words: Vec<f32> = rollout.read(&rollout.state);
        // The fixture starts within a turn of the upright position, the environment within half a turn.
        let half = |angle: f32| angle.sin().atan2(angle.cos());
        for (env, (state, ..)) in steps.iter().enumerate() {
            (words[env], words[envs + env]) = (half(state[0]), state[1]);
        }
        gpu.write(&rollout.state, 0, bytemuck::cast_slice(&words)).unwrap();
        let actions: Vec<f32> = steps.iter().map(|(_, torque, ..)| torque / 2.0).collect();
        gpu.write(&rollout.actions, 0, bytemuck::cast_slice(&actions)).unwrap();
        rollout.recorder.run(&rollout.steps[0]).unwrap();
        let (seen, rewards) =
            (rollout.read::<f32>(&rollout.observations), rollout.read::<f32>(&rollout.rewards));
        for (env, (_, _, reward, expected)) in steps.iter().enumerate() {
            let close = |got: f32, expected: f32| (got - expected).abs() <= 1e-4 * expected.abs().max(1.0);
            assert!(close(rewards[env], *reward), "step {env}: reward {} for {reward}", rewards[env]);
            for (feature, expected) in expected.iter().enumerate() {
                let got = seen[(3 + feature) * envs + env] * if feature == 2 { 8.0 } else { 1.0 };
                assert!(close(got, *expected), "step {env}, feature {feature}: {got} for {expected}");
            }
        }
    }
}

/// The corridor's rules in plain Rust: observations say where everybody is, masks who may go where, rewards how far it is.
#[test]
fn the_corridor_plays_by_its_rules() {
    let (envs, steps, cells) = (13usize, 80usize, 16);
    for gpu in &testing::both_classes() {
        let environment = corridor::environment().unwrap();
        assert_eq!([1, 32, 33, 80].map(|steps| environment.truncations(steps)), [1, 1, 2, 3]);
        let mut rollout = Rollout::new(gpu, &environment, envs as u32, steps as u32);
        let mut stream = phalanx::random::Stream::new(5, 3);
        let cell = |feature: f32, scale: f32| (feature * scale).round() as i32;
        let last = (cells - 1) as f32;
        let places = |seen: &[f32], slot: usize, env: usize| {
            let feature = |agent: usize, f: usize| seen[((slot * 2 + agent) * 3 + f) * envs + env];
            let here = [0, 1].map(|agent| cell(feature(agent, 0) + 1.0, last / 2.0));
            let goal = [0, 1].map(|agent| here[agent] + cell(feature(agent, 2), last));
            for agent in 0..2 {
                assert_eq!(cell(feature(agent, 1), last), here[1 - agent] - here[agent]);
            }
            (here, goal)
        };
        let (mut taken, mut cuts, mut arrivals) = (vec![0; envs], vec![0; envs], 0);
        for step in 0..steps {
            let seen: Vec<f32> = rollout.read(&rollout.observations);
            let masks: Vec<u32> = rollout.read(&rollout.dones_and_masks);
            let mut chosen = vec![0u32; 2 * envs];
            for env in 0..envs {
                let (here, goal) = places(&seen, step, env);
                for agent in 0..2 {
                    let mask = masks[(steps + step * 2 + agent) * envs + env];
                    let expected = u32::from(here[agent] > 0) | 2 | u32::from(here[agent] < cells - 1) << 2;
                    assert_eq!(mask, expected, "step {step}, environment {env}");
                    // Half of them walk to their goals.
                    let to = if env % 2 == 0 {
                        (goal[agent] - here[agent]).signum()
                    } else {
                        (stream.uniform() * 3.0) as i32 - 1
                    };
                    chosen[agent * envs + env] = if mask >> (to + 1) & 1 == 1 { (to + 1) as u32 } else { 1 };
                }
            }
            gpu.write(&rollout.actions, (step * 2 * envs * 4) as u64, bytemuck::cast_slice(&chosen)).unwrap();
            rollout.recorder.run(&rollout.steps[step]).unwrap();
            let after: Vec<f32> = rollout.read(&rollout.observations);
            let (rewards, ends): (Vec<f32>, Vec<u32>) =
                (rollout.read(&rollout.rewards), rollout.read(&rollout.dones_and_masks));
            for env in 0..envs {
                taken[env] += 1;
                let (here, goal) = places(&seen, step, env);
                let here = [0, 1].map(|agent| here[agent] + chosen[agent * envs + env] as i32 - 1);
                let distance = (here[0] - goal[0]).abs() + (here[1] - goal[1]).abs();
                let expected = if distance == 0 { 1.0 } else { -distance as f32 / cells as f32 };
                for agent in 0..2 {
                    let reward = rewards[(step * 2 + agent) * envs + env];
                    assert!((reward - expected).abs() < 1e-6, "step {step}, environment {env}: {reward}");
                }
                let end = match distance {
                    0 => 1,
                    _ if taken[env] == 32 => 2 + cuts[env],
                    _ => 0,
                };
                assert_eq!(ends[step * envs + env], end, "step {step}, environment {env}");
                arrivals += usize::from(end == 1);
                if end >= 2 {
                    assert_eq!(places(&after, steps + 1 + cuts[env] as usize, env), (here, goal));
                    cuts[env] += 1;
                }
                if end > 0 {
                    taken[env] = 0;
                } else {
                    assert_eq!(places(&after, step + 1, env), (here, goal), "step {step}, environment {env}");
                }
            }
        }
        assert!(arrivals > envs && cuts.iter().any(|cut| *cut > 1), "{arrivals} arrivals, {cuts:?}");
    }
}

/// Mean return of the last hundred episodes of a training with the example's settings. The greedy policy of a trained agent is near
/// -150, an agent that does nothing gets about -1,200.
#[test]
fn the_pendulum_is_swung_up() {
    let mut config = pendulum::config();
    for precision in [Precision::F32, Precision::F16] {
        config.device.precision = precision;
        let gpu = testing::unchecked_gpu();
        let mut trainer = Trainer::new(&gpu, &pendulum::environment().unwrap(), &config).unwrap();
        let mut returns = Vec::new();
        trainer
            .train(|progress| -> phalanx::Result<()> {
                returns.extend(progress.running_return);
                Ok(())
            })
            .unwrap();
        let (first, last) = (returns[0], returns[returns.len() - 1]);
        println!("{precision:?}: {first:.0}, after the training {last:.0}");
        assert!(first < -800.0 && last > -350.0, "{precision:?}: from {first:.0} to {last:.0}");
    }
}

#[test]
fn the_guide_shows_the_pendulum_as_it_is() {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let guide = read("docs/environments.md");
    assert!(guide.contains(read("examples/pendulum.wgsl").trim_end()), "examples/pendulum.wgsl");
    let rust = read("examples/pendulum.rs");
    let (start, end) = (rust.find("/// Mirrors").unwrap(), rust.find("/// Settings").unwrap());
    assert!(guide.contains(rust[start..end].trim_end()), "examples/pendulum.rs");
}
