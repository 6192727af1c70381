//! Observations with very different units: agents learn only if they are normalised.

use phalanx::env::spread::Definition;
use phalanx::env::{CpuEnv, Outcome, Simulator, Spec, Spread};
use phalanx::mappo::{ActionMode, Config, EvalConfig, Evaluation, Precision, Trainer};
use phalanx::mappo::{Activation, CriticInput};
use phalanx::random::Stream;

use crate::testing::unchecked_gpu;

const AGENTS: usize = 2;
const LIMIT: u32 = 5;
/// Rollouts start within an episode; two rollouts together contain whole episodes.
const STEPS: u32 = 14;
const PRICE: f32 = 40_000.0;

/// Observes a price slightly above or below its mean, which is the right answer, the time in an extreme unit, and a constant.
#[derive(Default)]
struct Quotes {
    seed: u64,
    taken: u32,
    above: [bool; AGENTS],
}

impl Quotes {
    fn show(&mut self, seen: &mut [f32]) {
        let mut stream = Stream::new(self.seed, self.taken);
        for (above, seen) in self.above.iter_mut().zip(seen.chunks_exact_mut(3)) {
            *above = stream.uniform() < 0.5;
            let distance = 1.0 + 3.0 * stream.uniform() as f32;
            seen[0] = PRICE + if *above { distance } else { -distance };
            seen[1] = 1e-7 * self.taken as f32;
            seen[2] = -12.5;
        }
    }
}

impl Simulator for Quotes {
    fn spec(&self) -> Spec {
        Spec { agents: AGENTS as u32, obs_dim: 3, actions: 2 }
    }

    fn time_limit(&self) -> Option<u32> {
        Some(LIMIT)
    }

    fn state_dim(&self) -> u32 {
        1
    }

    fn state(&self, state: &mut [f32]) {
        state[0] = 1e6 * self.taken as f32;
    }

    fn reset(&mut self, seed: u64, seen: &mut [f32]) {
        *self = Self { seed, ..Self::default() };
        self.show(seen);
    }

    fn step(&mut self, actions: &[u32], seen: &mut [f32], rewards: &mut [f32]) -> Outcome {
        for ((action, above), reward) in actions.iter().zip(self.above).zip(rewards) {
            *reward = if *action == u32::from(above) { 1.0 } else { 0.0 };
        }
        self.taken += 1;
        self.show(seen);
        if self.taken == LIMIT { Outcome::Truncated } else { Outcome::Continues }
    }
}

fn config(observation_norm: bool, precision: Precision) -> Config {
    let mut config = Config::default();
    config.ppo.num_envs = 32;
    config.ppo.rollout_steps = STEPS;
    config.ppo.epochs = 5;
    config.ppo.iterations = 25;
    config.ppo.gamma = 0.5;
    config.network.hidden = vec![16];
    config.network.activation = Activation::Tanh;
    config.network.input_norm = false;
    config.network.observation_norm = observation_norm;
    config.network.critic_input = CriticInput::State;
    config.optimizer.actor_learning_rate = 5e-3;
    config.optimizer.critic_learning_rate = 5e-3;
    config.device.accumulation = 1;
    config.device.precision = precision;
    config
}

/// Fraction of right answers in evaluation episodes.
fn share_of_right_answers(config: &Config) -> f64 {
    let gpu = unchecked_gpu();
    let environment = CpuEnv::new("quotes", Quotes::default);
    let mut trainer = Trainer::new(&gpu, &environment, config).unwrap();
    trainer.train(|_| -> phalanx::Result<()> { Ok(()) }).unwrap();
    let eval_config = EvalConfig { envs: 32, episodes: 4, most_steps: 100, mode: ActionMode::Greedy };
    let mut evaluation = Evaluation::new(&gpu, &environment, config, &eval_config).unwrap();
    let score = evaluation.run(&trainer).unwrap();
    assert_eq!(score, evaluation.run(&trainer).unwrap());
    score.mean() / f64::from(LIMIT)
}

#[test]
fn normalised_observations_are_distinguished() {
    for precision in [Precision::F32, Precision::F16] {
        let share = share_of_right_answers(&config(true, precision));
        assert!(share > 0.95, "{precision:?}: {share}");
    }
    let share = share_of_right_answers(&config(false, Precision::F32));
    assert!(share < 0.65, "{share}");
}

#[test]
fn statistics_are_initialised_before_training_and_updated_by_every_rollout() {
    let gpu = unchecked_gpu();
    let environment = CpuEnv::new("quotes", Quotes::default);
    let config = config(true, Precision::F16);
    let mut trainer = Trainer::new(&gpu, &environment, &config).unwrap();
    let rows = (config.ppo.num_envs * config.ppo.rollout_steps) as f32;
    let first = trainer.observation_moments().unwrap();
    // Three features per agent, and the global state.
    assert_eq!(first.len(), AGENTS * 3 + 1);
    assert_eq!(first[..3], first[3..6], "shared networks share statistics");
    let [price, time, constant, .., state] = first[..] else { unreachable!() };
    let deviation = |moment: [f32; 4]| (moment[2] / moment[3]).sqrt();
    assert_eq!([price[3], time[3], state[3]], [2.0 * rows, 2.0 * rows, rows]);
    assert!((price[0] - PRICE).abs() < 0.5 && (2.0..3.5).contains(&deviation(price)), "{price:?}");
    // Times 0 to 4 are about equally frequent.
    assert!((time[0] - 2e-7).abs() < 0.2e-7 && (deviation(time) / 1.414e-7 - 1.0).abs() < 0.1, "{time:?}");
    assert!((state[0] - 2e6).abs() < 0.2e6 && (deviation(state) / 1.414e6 - 1.0).abs() < 0.1, "{state:?}");
    assert_eq!(constant[..3], [-12.5, 0.0, 0.0]);
    let mut ends = 0.0;
    trainer
        .train_until(2, |progress| -> phalanx::Result<()> {
            ends += progress.record.episodes;
            Ok(())
        })
        .unwrap();
    let later = trainer.observation_moments().unwrap();
    assert_eq!(later[0][3], 6.0 * rows);
    assert!(later[0][0] != price[0] && (later[0][0] - PRICE).abs() < 0.5);
    // The rollout that initialises the statistics does not count, or there would be one more episode.
    assert_eq!(ends, (2 * STEPS / LIMIT * config.ppo.num_envs) as f32);
}

/// Environments on the device add to the totals of episodes, which must be cleared after the initial rollout.
#[test]
fn environments_on_the_device_are_reset_after_the_initial_rollout() {
    let gpu = unchecked_gpu();
    let mut config = Config::on_policy_mpe();
    config.ppo.num_envs = 8;
    config.ppo.rollout_steps = 30;
    config.ppo.iterations = 1;
    config.network.hidden = vec![16];
    config.network.observation_norm = true;
    let mut trainer = Trainer::new(&gpu, &Spread::new(Definition::Mpe2), &config).unwrap();
    let mut seen = None;
    trainer
        .train(|progress| -> phalanx::Result<()> {
            seen = Some((progress.record.episodes, progress.mean_length()));
            Ok(())
        })
        .unwrap();
    // The 30 steps contain one episode of 25.
    assert_eq!(seen, Some((8.0, Some(25.0))));
}

#[test]
fn evaluation_rejects_another_observation_norm() {
    let gpu = unchecked_gpu();
    let environment = CpuEnv::new("quotes", Quotes::default);
    let trainer = Trainer::new(&gpu, &environment, &config(true, Precision::F32)).unwrap();
    let eval_config = EvalConfig { envs: 4, episodes: 1, most_steps: 100, mode: ActionMode::Greedy };
    let other = config(false, Precision::F32);
    let mut evaluation = Evaluation::new(&gpu, &environment, &other, &eval_config).unwrap();
    let error = evaluation.run(&trainer).unwrap_err().to_string();
    assert!(error.contains("`observation_norm`"), "{error}");
}
