//! The simulators of `examples/control` against steps of Gymnasium's own code.

use std::collections::BTreeMap;

use phalanx::env::{Outcome, Simulator};
use serde::Deserialize;

#[path = "../../examples/control/acrobot.rs"]
mod acrobot;
#[path = "../../examples/control/cart_pole.rs"]
mod cart_pole;
#[path = "../../examples/control/pendulum.rs"]
mod pendulum;

#[derive(Deserialize)]
struct Episode {
    start: Vec<f64>,
    actions: Vec<f32>,
    observations: Vec<Vec<f32>>,
    rewards: Vec<f32>,
    terminated: bool,
}

/// Gymnasium computes in f64 too; its observations and ours are rounded to f32. Errors grow along an episode: the motions are unstable.
const TOLERANCE: f32 = 2e-5;

/// Steps every episode of a task from its start.
fn follows<S: Simulator>(task: &str, start: impl Fn(&[f64]) -> S) {
    let text = include_str!("../fixtures/control.json");
    let tasks: BTreeMap<String, Vec<Episode>> = serde_json::from_str(text).unwrap();
    for (number, episode) in tasks[task].iter().enumerate() {
        let mut simulator = start(&episode.start);
        let mut observation = vec![0.0; simulator.spec().obs_dim as usize];
        let mut rewards = [0.0];
        for (step, action) in episode.actions.iter().enumerate() {
            let action = if simulator.continuous() { action.to_bits() } else { *action as u32 };
            let outcome = simulator.step(&[action], &mut observation, &mut rewards);
            let here = format!("{task}, episode {number}, step {step}");
            for (ours, theirs) in observation.iter().zip(&episode.observations[step]) {
                assert!(
                    (ours - theirs).abs() <= TOLERANCE * theirs.abs().max(1.0),
                    "{here}: {ours} {theirs}"
                );
            }
            let theirs = episode.rewards[step];
            assert!(
                (rewards[0] - theirs).abs() <= TOLERANCE * theirs.abs().max(1.0),
                "{here}: {rewards:?} {theirs}"
            );
            let terminated = episode.terminated && step + 1 == episode.actions.len();
            assert_eq!(outcome == Outcome::Terminated, terminated, "{here}");
        }
    }
}

#[test]
fn cart_pole_follows_gymnasium() {
    follows("CartPole-v1", |start| cart_pole::CartPole { state: start.try_into().unwrap(), taken: 0 });
}

#[test]
fn pendulum_follows_gymnasium() {
    follows("Pendulum-v1", |start| pendulum::Pendulum { state: start.try_into().unwrap(), taken: 0 });
}

#[test]
fn acrobot_follows_gymnasium() {
    follows("Acrobot-v1", |start| acrobot::Acrobot { state: start.try_into().unwrap(), taken: 0 });
}
