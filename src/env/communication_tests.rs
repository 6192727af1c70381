//! Both tasks against mpe2 (`tests/fixtures/communication.py`), the start and end of episodes, and action masks.

use super::*;
use crate::env::bench::Bench;
use crate::random::Stream;
use crate::testing::both_classes;

const AGENTS: usize = 2;
const STEPS: usize = LENGTH as usize;
const TASKS: [Task; 2] = [Task::SpeakerListener, Task::Reference];

/// A rollout of one episode.
fn bench(gpu: &Gpu, task: Task, envs: usize, seed: u64) -> Bench {
    Bench::new(gpu, &Communication::new(task), envs, LENGTH, seed)
}

#[derive(serde::Deserialize)]
struct Random {
    mean: f64,
    deviation: f64,
    episodes: f64,
}

#[derive(serde::Deserialize)]
struct Episode {
    /// Agents' positions, landmarks.
    start: Vec<f32>,
    goals: [u32; AGENTS],
    /// One or two digits per step and agent: the move, the message.
    actions: String,
    total: [f64; AGENTS],
    digest: [f64; AGENTS],
    rewards: Option<Vec<[f64; AGENTS]>>,
    observations: Option<Vec<[Vec<f64>; AGENTS]>>,
}

#[derive(serde::Deserialize)]
struct Golden {
    random: Random,
    episodes: Vec<Episode>,
}

#[derive(serde::Deserialize)]
struct Fixture {
    speaker_listener: Golden,
    reference: Golden,
}

fn golden(task: Task) -> Golden {
    let text = include_str!("../../tests/fixtures/communication.json");
    let fixture: Fixture = serde_json::from_str(text).unwrap();
    match task {
        Task::SpeakerListener => fixture.speaker_listener,
        Task::Reference => fixture.reference,
    }
}

/// Runs every environment from the fixture's initial state with the fixture's actions.
fn replay(gpu: &Gpu, task: Task, episodes: &[Episode]) -> Bench {
    let envs = episodes.len();
    let mut bench = bench(gpu, task, envs, 7);
    let mut state = bench.words(bench.state());
    let mut actions = vec![0u32; STEPS * AGENTS * envs];
    for (env, episode) in episodes.iter().enumerate() {
        let places = (0..4).chain(8..14).zip(episode.start.iter().map(|place| place.to_bits()));
        for (field, value) in places.chain((14..16).zip(episode.goals)) {
            state[field * envs + env] = value;
        }
        let digits: Vec<u32> = episode.actions.chars().map(|digit| digit.to_digit(10).unwrap()).collect();
        for (row, choices) in digits.chunks(Communication::new(task).choices().len()).enumerate() {
            // The first choice is the fastest digit.
            actions[row * envs + env] = choices[0] + choices.get(1).map_or(0, |message| MOVES * message);
        }
    }
    bench.gpu.write(bench.state(), 0, bytemuck::cast_slice(&state)).unwrap();
    bench.act(&actions);
    bench.run();
    bench
}

fn assert_matches_mpe2(gpu: &Gpu, task: Task) {
    let episodes = golden(task).episodes;
    assert_eq!(episodes.len(), 300);
    let bench = replay(gpu, task, &episodes);
    let (rewards, seen) = (bench.read(&bench.rewards), bench.read(&bench.observations));
    let features = Communication::new(task).spec().obs_dim as usize;
    let reward = |step: usize, agent: usize, env: usize| {
        f64::from(rewards[(step * AGENTS + agent) * bench.envs + env])
    };
    let observation = |step: usize, agent: usize, feature: usize, env: usize| {
        // The final observation is in the slot of the truncated episode.
        let slot = if step + 1 == STEPS { STEPS + 1 } else { step + 1 };
        f64::from(seen[((slot * AGENTS + agent) * features + feature) * bench.envs + env])
    };
    let mut worst = 0f64;
    let mut compare = |what: &str, env: usize, got: f64, expected: f64| {
        let error = (got - expected).abs();
        assert!(error < 1e-4, "{task:?}, episode {env}, {what}: {got} for {expected}");
        worst = worst.max(error);
    };
    for (env, episode) in episodes.iter().enumerate() {
        for agent in 0..AGENTS {
            let total = (0..STEPS).map(|step| reward(step, agent, env)).sum();
            compare("return", env, total, episode.total[agent]);
            let weighted = |step: usize, feature: usize| {
                (step + 1) as f64 * (feature + 1) as f64 / 500.0 * observation(step, agent, feature, env)
            };
            let digest = (0..STEPS).flat_map(|step| (0..features).map(move |f| weighted(step, f))).sum();
            compare("digest", env, digest, episode.digest[agent]);
        }
        for (step, expected) in episode.rewards.iter().flatten().enumerate() {
            for (agent, expected) in expected.iter().enumerate() {
                compare(&format!("reward {step}"), env, reward(step, agent, env), *expected);
            }
        }
        for (step, expected) in episode.observations.iter().flatten().enumerate() {
            for (agent, expected) in expected.iter().enumerate() {
                // The speaker's shorter observation is padded with zeros.
                for feature in 0..features {
                    let expected = expected.get(feature).copied().unwrap_or(0.0);
                    let what = format!("step {step}, agent {agent}, feature {feature}");
                    compare(&what, env, observation(step, agent, feature, env), expected);
                }
            }
        }
    }
    println!("{task:?}: largest error {worst:.1e}");
}

#[test]
fn speaker_listener_matches_mpe2() {
    for gpu in &both_classes() {
        assert_matches_mpe2(gpu, Task::SpeakerListener);
    }
}

#[test]
fn reference_matches_mpe2() {
    for gpu in &both_classes() {
        assert_matches_mpe2(gpu, Task::Reference);
    }
}

/// Uniformly random allowed actions.
fn random_actions(task: Task, envs: usize) -> Vec<u32> {
    let mut stream = Stream::new(5, 1);
    let sizes = match task {
        Task::SpeakerListener => [3.0, 5.0],
        Task::Reference => [50.0, 50.0],
    };
    (0..STEPS * AGENTS * envs).map(|i| (stream.uniform() * sizes[i / envs % AGENTS]) as u32).collect()
}

#[test]
fn random_policies_match_mpe2s_returns_and_are_truncated() {
    for gpu in &both_classes() {
        for task in TASKS {
            let mut bench = bench(gpu, task, 2048, 7);
            bench.act(&random_actions(task, bench.envs));
            bench.run();
            let [mean, error, deviation] = bench.returns();
            let known = golden(task).random;
            println!("{task:?}: {mean:.2} +- {error:.2} for {:.2}, deviation {deviation:.2}", known.mean);
            let error = error.hypot(known.deviation / known.episodes.sqrt());
            assert!((mean - known.mean).abs() < 3.0 * error, "{task:?}: {mean} for {}", known.mean);
            assert!((deviation / known.deviation - 1.0).abs() < 0.1, "{task:?}: {deviation}");
            let dones_and_masks = bench.words(&bench.dones_and_masks);
            let (before, last) = dones_and_masks[..STEPS * bench.envs].split_at((STEPS - 1) * bench.envs);
            assert!(before.iter().all(|end| *end == 0) && last.iter().all(|end| *end == 2), "{task:?}");
            let episodes = bench.read(&bench.episodes);
            let [steps, terminated] = [2, 3].map(|row| &episodes[row * bench.envs..][..bench.envs]);
            assert!(
                steps.iter().all(|steps| *steps == LENGTH as f32) && terminated.iter().all(|one| *one == 0.0)
            );
        }
    }
}

#[test]
fn action_masks_allow_three_messages_to_the_speaker() {
    for gpu in &both_classes() {
        for (task, expected) in
            [(Task::SpeakerListener, [0b111, 0b1_1111]), (Task::Reference, [(1 << 15) - 1; 2])]
        {
            let mut bench = bench(gpu, task, 8, 7);
            bench.act(&random_actions(task, bench.envs));
            bench.run();
            let dones_and_masks = bench.words(&bench.dones_and_masks);
            let masks = &dones_and_masks[STEPS * bench.envs..];
            assert_eq!(masks.len(), (STEPS + 1) * AGENTS * bench.envs);
            for (i, mask) in masks.iter().enumerate() {
                assert_eq!(*mask, expected[i / bench.envs % AGENTS], "{task:?}, {i}");
            }
        }
    }
}

/// Initial observations, of the first episode and after an episode end: uniform landmarks and goals, zero velocities, no messages.
#[test]
fn episodes_start_with_mpe2s_distributions() {
    for gpu in &both_classes() {
        for task in TASKS {
            let envs = 4096;
            let mut bench = bench(gpu, task, envs, 7);
            let mut states = vec![bench.words(bench.state())];
            bench.act(&random_actions(task, envs));
            bench.run();
            states.push(bench.words(bench.state()));
            assert_ne!(states[0], states[1]);
            let seen = bench.read(&bench.observations);
            for (state, slot) in states.iter().zip([0, STEPS]) {
                let field = |field: usize| &state[field * envs..][..envs];
                for place in (0..4).chain(8..14).map(field) {
                    let places = || place.iter().map(|bits| f64::from(f32::from_bits(*bits)));
                    assert!(places().all(|place| (-1.0..1.0).contains(&place)));
                    let [mean, square] =
                        [places().sum::<f64>(), places().map(|x| x * x).sum()].map(|x| x / envs as f64);
                    // Four standard errors: those of a uniform number and of its square.
                    assert!(mean.abs() < 4.0 * (1.0 / 3.0 / envs as f64).sqrt(), "{mean}");
                    assert!((square - 1.0 / 3.0).abs() < 4.0 * (4.0 / 45.0 / envs as f64).sqrt(), "{square}");
                }
                let mut counts = [0f64; 9];
                field(14).iter().zip(field(15)).for_each(|(a, b)| counts[(3 * a + b) as usize] += 1.0);
                let expected = envs as f64 / 9.0;
                let chi: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
                assert!(chi < 26.1, "{chi}: once in a thousand");
                assert!((4..8).chain(16..18).all(|i| field(i).iter().all(|word| *word == 0)));
                let features = Communication::new(task).spec().obs_dim as usize;
                let real = |index: usize, env: usize| f32::from_bits(field(index)[env]);
                for env in 0..envs {
                    let view = |agent: usize| -> Vec<f32> {
                        (0..features)
                            .map(|f| seen[((slot * AGENTS + agent) * features + f) * envs + env])
                            .collect()
                    };
                    // Agent 1 observes the landmarks in both tasks.
                    let place = |axis: usize| real(2 + axis, env);
                    let mut expected = vec![0.0, 0.0];
                    expected.extend((0..6).map(|i| real(8 + i, env) - place(i % 2)));
                    assert_eq!(view(1)[..8], expected, "{task:?}, {env}");
                    let (goal, dark) =
                        (field(14)[env] as usize, if task == Task::Reference { 0.25 } else { 0.15 });
                    let mut colour = [dark; 3];
                    colour[goal] += 0.5f32;
                    let at = if task == Task::Reference { 8 } else { 0 };
                    assert_eq!(view(0)[at..at + 3], colour, "{task:?}, {env}");
                    assert!(
                        view(0)[at + 3..].iter().chain(&view(1)[features - 3..]).all(|said| *said == 0.0)
                    );
                }
            }
        }
    }
}

#[test]
fn the_seed_determines_the_rollout() {
    for gpu in &both_classes() {
        for task in TASKS {
            let [first, again, other] = [7, 7, 8].map(|seed| {
                let mut bench = bench(gpu, task, 64, seed);
                bench.act(&random_actions(task, bench.envs));
                bench.run();
                let buffers = [
                    &bench.rewards,
                    &bench.observations,
                    &bench.dones_and_masks,
                    &bench.episodes,
                    bench.state(),
                ];
                buffers.map(|buffer| bench.words(buffer))
            });
            assert!(first == again && first[1] != other[1], "{task:?}");
        }
    }
}

/// A rollout of 60 steps has two episode ends of 25 steps each, with one slot each, and a third episode that continues.
#[test]
fn every_truncated_episode_has_a_slot() {
    for gpu in &both_classes() {
        for task in TASKS {
            let (envs, steps) = (5, 60);
            let environment = Communication::new(task);
            assert_eq!([1, 25, 26, 60].map(|steps| environment.truncations(steps)), [1, 1, 2, 3]);
            let mut bench = Bench::new(gpu, &environment, envs, steps as u32, 7);
            bench.run();
            let dones_and_masks = bench.words(&bench.dones_and_masks);
            for step in 0..steps {
                let expected = [0, 2, 3][if step % STEPS == STEPS - 1 { step / STEPS + 1 } else { 0 }];
                assert!(
                    dones_and_masks[step * envs..][..envs].iter().all(|end| *end == expected),
                    "{task:?}, step {step}"
                );
            }
            // Agents stand still, so the final observation equals the one before it, but differs from that of the next episode.
            let seen = bench.read(&bench.observations);
            let size = AGENTS * environment.spec().obs_dim as usize * envs;
            let slot = |slot: usize| &seen[slot * size..][..size];
            for (cut, step) in [(0, 24), (1, 49)] {
                assert_eq!(slot(step), slot(steps + 1 + cut), "{task:?}");
                assert_ne!(slot(step), slot(step + 1), "{task:?}");
            }
        }
    }
}
