//! The cart-pole of Barto, Sutton and Anderson (1983), as in Gymnasium's `CartPole-v1`.

use phalanx::env::{Outcome, Simulator, Spec};
use phalanx::random::Stream;

/// Position and velocity of the cart, angle and angular velocity of the pole.
#[derive(Default)]
pub struct CartPole {
    pub state: [f64; 4],
    pub taken: u32,
}

const LIMIT: u32 = 500;

impl CartPole {
    fn observe(&self, observations: &mut [f32]) {
        observations.iter_mut().zip(self.state).for_each(|(feature, value)| *feature = value as f32);
    }
}

impl Simulator for CartPole {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 4, actions: 2 }
    }

    fn time_limit(&self) -> Option<u32> {
        Some(LIMIT)
    }

    fn reset(&mut self, seed: u64, observations: &mut [f32]) {
        let mut stream = Stream::new(seed, 0);
        self.state = std::array::from_fn(|_| 0.1 * stream.uniform() - 0.05);
        self.taken = 0;
        self.observe(observations);
    }

    fn step(&mut self, actions: &[u32], observations: &mut [f32], rewards: &mut [f32]) -> Outcome {
        const GRAVITY: f64 = 9.8;
        const CART: f64 = 1.0;
        const POLE: f64 = 0.1;
        const HALF_LENGTH: f64 = 0.5;
        const TIME_STEP: f64 = 0.02;
        let [x, velocity, angle, angular_velocity] = self.state;
        let force = if actions[0] == 1 { 10.0 } else { -10.0 };
        let (sin, cos) = angle.sin_cos();
        let push = (force + POLE * HALF_LENGTH * angular_velocity * angular_velocity * sin) / (CART + POLE);
        let angular_acceleration =
            (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE * cos * cos / (CART + POLE)));
        let acceleration = push - POLE * HALF_LENGTH * angular_acceleration * cos / (CART + POLE);
        self.state = [
            x + TIME_STEP * velocity,
            velocity + TIME_STEP * acceleration,
            angle + TIME_STEP * angular_velocity,
            angular_velocity + TIME_STEP * angular_acceleration,
        ];
        self.taken += 1;
        self.observe(observations);
        rewards[0] = 1.0;
        if self.state[0].abs() > 2.4 || self.state[2].abs() > 12f64.to_radians() {
            Outcome::Terminated
        } else if self.taken >= LIMIT {
            Outcome::Truncated
        } else {
            Outcome::Continues
        }
    }

    fn save(&self) -> Option<Vec<u8>> {
        let numbers = self.state.iter().flat_map(|x| x.to_le_bytes());
        Some(numbers.chain(self.taken.to_le_bytes()).collect())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (numbers, taken) = bytes.as_chunks::<8>();
        let numbers: Vec<f64> = numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        self.state = numbers.try_into().map_err(|_| "expected four numbers")?;
        self.taken = u32::from_le_bytes(taken.try_into().map_err(|_| "the number of steps is missing")?);
        Ok(())
    }
}
