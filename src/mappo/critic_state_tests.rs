//! Critics that see the global state, which contains what the observations do not show.

use half::f16;

use super::*;
use crate::env::{CpuEnv, Outcome, Simulator, Spec};
use crate::mappo::{EvalConfig, Evaluation};
use crate::nn::{Activation, CriticInput, Sharing};
use crate::ppo::scalars;

const AGENTS: usize = 2;
const NUMBERS: usize = 3;
const ENVS: usize = 16;
const STEPS: usize = 12;
/// Steps of an episode; not a divisor of the rollout's steps.
const LIMIT: u32 = 5;
const GAMMA: f32 = 0.5;

/// A hidden coin per episode: its sides give a reward of 1 or -1 per step for any actions. All episodes are truncated, so the
/// value at every step is the reward / (1 - gamma).
#[derive(Default)]
struct Coin {
    side: f32,
    taken: u32,
}

impl Simulator for Coin {
    fn spec(&self) -> Spec {
        Spec { agents: AGENTS as u32, obs_dim: 2, actions: 2 }
    }

    fn time_limit(&self) -> Option<u32> {
        Some(LIMIT)
    }

    fn state_dim(&self) -> u32 {
        NUMBERS as u32
    }

    fn state(&self, state: &mut [f32]) {
        state.copy_from_slice(&[self.taken as f32 / LIMIT as f32, 0.5, self.side]);
    }

    fn reset(&mut self, seed: u64, seen: &mut [f32]) {
        *self = Self { side: if seed.is_multiple_of(2) { 1.0 } else { -1.0 }, taken: 0 };
        seen[0] = 1.0;
    }

    fn step(&mut self, _: &[u32], seen: &mut [f32], rewards: &mut [f32]) -> Outcome {
        self.taken += 1;
        seen.fill(self.taken as f32 / LIMIT as f32);
        rewards.fill(self.side);
        if self.taken == LIMIT { Outcome::Truncated } else { Outcome::Continues }
    }
}

fn config(critic_input: CriticInput) -> Config {
    let mut config = Config::default();
    config.ppo.num_envs = ENVS as u32;
    config.ppo.rollout_steps = STEPS as u32;
    config.ppo.gamma = f64::from(GAMMA);
    config.ppo.iterations = 25;
    config.network.hidden = vec![16];
    config.network.activation = Activation::Tanh;
    config.network.input_norm = false;
    config.network.hidden_norm = false;
    config.network.critic_input = critic_input;
    config.optimizer.critic_learning_rate = 0.01;
    config.optimizer.learning_rate_decay = false;
    config
}

/// The largest errors of the critics, in slots 0 to T and in those of truncated episodes, and the number of truncated episodes.
fn errors(config: &Config) -> ([f32; 2], usize) {
    let gpu = crate::testing::unchecked_gpu();
    let coin = CpuEnv::new("coin", Coin::default);
    let mut trainer = Trainer::new(&gpu, &coin, config).unwrap();
    trainer.train(|_| -> Result<()> { Ok(()) }).unwrap();
    // Values of the critics after the last update.
    trainer.recorder.run(&trainer.rollout.collect).unwrap();
    trainer.recorder.run(&trainer.rollout.values).unwrap();
    let bytes: Vec<u8> = gpu.read(&trainer.buffers.rollout.observations).unwrap();
    let seen: Vec<f32> = match config.device.precision {
        Precision::F32 => bytemuck::pod_collect_to_vec(&bytes),
        Precision::F16 => {
            bytemuck::pod_collect_to_vec::<u8, f16>(&bytes).into_iter().map(f16::to_f32).collect()
        }
    };
    let own = &trainer.buffers.rollout;
    let floats = |buffer: &wgpu::Buffer| -> Vec<f32> { gpu.read(buffer).unwrap() };
    let (values, scalars) = (floats(&own.values), floats(&own.scalars));
    let ends: Vec<u32> = gpu.read(&trainer.buffers.rollout.dones_and_masks).unwrap();
    let rewards = floats(&own.rewards);
    let mut worst = [0f32; 2];
    let mut truncated = 0;
    for env in 0..ENVS {
        // Slots in use, with the coin of the step before; slot 0, which is carried over, with its own coin.
        let mut slots = vec![(0, rewards[env])];
        for step in 0..STEPS {
            let coin = rewards[step * AGENTS * ENVS + env];
            match ends[step * ENVS + env] {
                0 => slots.push((step + 1, coin)),
                signal => slots.push((STEPS + signal as usize - 1, coin)),
            }
        }
        for (slot, coin) in slots {
            if config.network.critic_input == CriticInput::State {
                let first = trainer.sizes.first_state() as usize;
                let shown = seen[first + (slot * NUMBERS + 2) * ENVS + env];
                assert_eq!(shown, coin, "environment {env}, slot {slot}");
            }
            let kind = usize::from(slot > STEPS);
            truncated += kind;
            for agent in 0..AGENTS {
                let value = values[(slot * AGENTS + agent) * ENVS + env];
                let group = agent as u32 % trainer.sizes.groups;
                let [mean, deviation] =
                    [scalars::MEAN, scalars::DEVIATION].map(|index| scalars[scalars::of_group(group, index)]);
                let value = value * deviation + mean;
                worst[kind] = worst[kind].max((value - coin / (1.0 - GAMMA)).abs());
            }
        }
    }
    // An evaluation runs without critics.
    let eval_config = EvalConfig { envs: 4, episodes: 2, most_steps: 100, mode: ActionMode::Sampled };
    let score = Evaluation::new(&gpu, &coin, config, &eval_config).unwrap().run(&trainer).unwrap();
    assert!(score.returns.iter().all(|sum| sum.abs() == LIMIT as f64), "{score:?}");
    (worst, truncated)
}

#[test]
fn critics_learn_from_a_state_what_observations_do_not_say() {
    let state = config(CriticInput::State);
    let mut half = state.clone();
    half.device.precision = Precision::F16;
    let mut separate = state.clone();
    separate.ppo.minibatches = 2;
    separate.network.networks = Sharing::Separate;
    let mut recurrent = state.clone();
    recurrent.network.recurrent = true;
    recurrent.network.chunk_length = 3;
    for config in [state, half, separate, recurrent] {
        let (worst, truncated) = errors(&config);
        println!("errors {worst:?} in all slots and in {truncated} of truncated episodes: {config:?}");
        assert!(truncated >= 2 * ENVS, "{truncated}");
        assert!(worst.iter().all(|error| *error < 0.5), "{worst:?}: {config:?}");
    }
}

/// Observations do not show the side, so the predicted value lies between both values.
#[test]
fn critics_of_observations_do_not_see_it() {
    for critic_input in [CriticInput::Joint, CriticInput::Own] {
        let (worst, _) = errors(&config(critic_input));
        assert!(worst.iter().all(|error| *error > 1.5), "{worst:?}: {critic_input:?}");
    }
}
