//! Swinging up a pendulum with a weak motor, as in Gymnasium's `Pendulum-v1`.

use std::f64::consts::PI;

use phalanx::env::{Outcome, Simulator, Spec};
use phalanx::random::Stream;

/// Angle from the upright position and angular velocity.
#[derive(Default)]
pub struct Pendulum {
    pub state: [f64; 2],
    pub taken: u32,
}

const LIMIT: u32 = 200;

impl Pendulum {
    fn observe(&self, observations: &mut [f32]) {
        let [angle, velocity] = self.state;
        let features = [angle.cos(), angle.sin(), velocity];
        observations.iter_mut().zip(features).for_each(|(feature, value)| *feature = value as f32);
    }
}

impl Simulator for Pendulum {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 3, actions: 1 }
    }

    fn continuous(&self) -> bool {
        true
    }

    fn time_limit(&self) -> Option<u32> {
        Some(LIMIT)
    }

    fn reset(&mut self, seed: u64, observations: &mut [f32]) {
        let mut stream = Stream::new(seed, 0);
        self.state = [PI, 1.0].map(|limit| limit * (2.0 * stream.uniform() - 1.0));
        self.taken = 0;
        self.observe(observations);
    }

    /// The action is a torque, clamped to Gymnasium's range of -2 to 2.
    fn step(&mut self, actions: &[u32], observations: &mut [f32], rewards: &mut [f32]) -> Outcome {
        const GRAVITY: f64 = 10.0;
        const TIME_STEP: f64 = 0.05;
        let torque = f64::from(f32::from_bits(actions[0]).clamp(-2.0, 2.0));
        let [angle, velocity] = self.state;
        let wrapped = (angle + PI).rem_euclid(2.0 * PI) - PI;
        let cost = wrapped * wrapped + 0.1 * velocity * velocity + 0.001 * torque * torque;
        let acceleration = 1.5 * GRAVITY * angle.sin() + 3.0 * torque;
        let velocity = (velocity + TIME_STEP * acceleration).clamp(-8.0, 8.0);
        self.state = [angle + TIME_STEP * velocity, velocity];
        self.taken += 1;
        self.observe(observations);
        rewards[0] = -cost as f32;
        if self.taken >= LIMIT { Outcome::Truncated } else { Outcome::Continues }
    }
}
