//! Swinging a two-link arm above a line by a torque on its elbow, as in Gymnasium's `Acrobot-v1` (Sutton, 1996, with the equations
//! of Sutton and Barto's book).

use std::f64::consts::PI;

use phalanx::env::{Outcome, Simulator, Spec};
use phalanx::random::Stream;

/// Angle of the upper link from hanging down, angle of the lower link to the upper one, and their angular velocities.
#[derive(Default)]
pub struct Acrobot {
    pub state: [f64; 4],
    pub taken: u32,
}

const LIMIT: u32 = 500;

/// Time derivative of the state. Both links have length and mass 1, their centre of mass in the middle, and moment of inertia 1.
fn derivative(state: [f64; 4], torque: f64) -> [f64; 4] {
    const GRAVITY: f64 = 9.8;
    const CENTRE: f64 = 0.5;
    let [upper, lower, upper_velocity, lower_velocity] = state;
    let (sin, cos) = lower.sin_cos();
    let own = CENTRE * CENTRE + 1.0;
    let coupled = CENTRE * CENTRE + CENTRE * cos + 1.0;
    let both = CENTRE * CENTRE + 1.0 + CENTRE * CENTRE + 2.0 * CENTRE * cos + 2.0;
    let weight = CENTRE * GRAVITY * (upper + lower - PI / 2.0).cos();
    let pull = -CENTRE * lower_velocity * lower_velocity * sin
        - 2.0 * CENTRE * lower_velocity * upper_velocity * sin
        + (CENTRE + 1.0) * GRAVITY * (upper - PI / 2.0).cos()
        + weight;
    let lower_acceleration =
        (torque + coupled / both * pull - CENTRE * upper_velocity * upper_velocity * sin - weight)
            / (own - coupled * coupled / both);
    let upper_acceleration = -(coupled * lower_acceleration + pull) / both;
    [upper_velocity, lower_velocity, upper_acceleration, lower_acceleration]
}

/// One step of the classical Runge-Kutta method.
fn integrate(state: [f64; 4], torque: f64) -> [f64; 4] {
    const TIME_STEP: f64 = 0.2;
    let after = |slope: [f64; 4], time: f64| std::array::from_fn(|i| state[i] + time * slope[i]);
    let first = derivative(state, torque);
    let second = derivative(after(first, TIME_STEP / 2.0), torque);
    let third = derivative(after(second, TIME_STEP / 2.0), torque);
    let fourth = derivative(after(third, TIME_STEP), torque);
    after(std::array::from_fn(|i| (first[i] + 2.0 * second[i] + 2.0 * third[i] + fourth[i]) / 6.0), TIME_STEP)
}

/// The angle between -pi and pi.
fn wrapped(angle: f64) -> f64 {
    (angle + PI).rem_euclid(2.0 * PI) - PI
}

impl Acrobot {
    fn observe(&self, observations: &mut [f32]) {
        let [upper, lower, upper_velocity, lower_velocity] = self.state;
        let features = [upper.cos(), upper.sin(), lower.cos(), lower.sin(), upper_velocity, lower_velocity];
        observations.iter_mut().zip(features).for_each(|(feature, value)| *feature = value as f32);
    }
}

impl Simulator for Acrobot {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 6, actions: 3 }
    }

    fn time_limit(&self) -> Option<u32> {
        Some(LIMIT)
    }

    fn reset(&mut self, seed: u64, observations: &mut [f32]) {
        let mut stream = Stream::new(seed, 0);
        self.state = std::array::from_fn(|_| 0.2 * stream.uniform() - 0.1);
        self.taken = 0;
        self.observe(observations);
    }

    fn step(&mut self, actions: &[u32], observations: &mut [f32], rewards: &mut [f32]) -> Outcome {
        let [upper, lower, upper_velocity, lower_velocity] =
            integrate(self.state, f64::from(actions[0]) - 1.0);
        self.state = [
            wrapped(upper),
            wrapped(lower),
            upper_velocity.clamp(-4.0 * PI, 4.0 * PI),
            lower_velocity.clamp(-9.0 * PI, 9.0 * PI),
        ];
        self.taken += 1;
        self.observe(observations);
        let [upper, lower, ..] = self.state;
        let above = -upper.cos() - (upper + lower).cos() > 1.0;
        rewards[0] = if above { 0.0 } else { -1.0 };
        match above {
            true => Outcome::Terminated,
            false if self.taken >= LIMIT => Outcome::Truncated,
            false => Outcome::Continues,
        }
    }
}
