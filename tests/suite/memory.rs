//! A task that requires memory: recurrent agents learn it, feed-forward agents cannot.

use phalanx::env::{CpuEnv, Outcome, Simulator, Spec};
use phalanx::mappo::Activation;
use phalanx::mappo::{ActionMode, Config, EvalConfig, Evaluation, Precision, Trainer};

use crate::testing::unchecked_gpu;

/// Shows one of two signs in the first step and asks for it some steps later; the right answer has reward 1.
#[derive(Default)]
struct Recall {
    sign: u32,
    left: u32,
}

impl Simulator for Recall {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 2, actions: 2 }
    }

    fn time_limit(&self) -> Option<u32> {
        None
    }

    fn reset(&mut self, seed: u64, seen: &mut [f32]) {
        // Episodes of four to seven steps, so that rollouts and chunks start and end anywhere within them.
        *self = Self { sign: (seed >> 8) as u32 % 2, left: 4 + (seed >> 16) as u32 % 4 };
        seen.copy_from_slice(&[self.sign as f32 * 2.0 - 1.0, 0.0]);
    }

    fn step(&mut self, actions: &[u32], seen: &mut [f32], rewards: &mut [f32]) -> Outcome {
        self.left -= 1;
        if self.left == 0 {
            rewards[0] = if actions[0] == self.sign { 1.0 } else { 0.0 };
            return Outcome::Terminated;
        }
        seen.copy_from_slice(&[0.0, if self.left == 1 { 1.0 } else { 0.0 }]);
        Outcome::Continues
    }
}

/// Fraction of right answers in evaluation episodes.
fn share_of_right_answers(recurrent: bool, precision: Precision) -> f64 {
    let mut config = Config::default();
    config.ppo.num_envs = 64;
    config.ppo.rollout_steps = 20;
    config.ppo.epochs = 5;
    config.ppo.iterations = 60;
    config.network.hidden = vec![16];
    config.network.activation = Activation::Tanh;
    // LayerNorm would remove the magnitude of the two features.
    config.network.input_norm = false;
    config.network.recurrent = recurrent;
    config.optimizer.actor_learning_rate = 5e-3;
    config.optimizer.critic_learning_rate = 5e-3;
    config.device.accumulation = 1;
    config.device.precision = precision;
    let gpu = unchecked_gpu();
    let environment = CpuEnv::new("recall", Recall::default);
    let mut trainer = Trainer::new(&gpu, &environment, &config).unwrap();
    trainer.train(|_| -> phalanx::Result<()> { Ok(()) }).unwrap();
    let eval_config = EvalConfig { envs: 64, episodes: 4, most_steps: 100, mode: ActionMode::Greedy };
    let mut evaluation = Evaluation::new(&gpu, &environment, &config, &eval_config).unwrap();
    let first = evaluation.run(&trainer).unwrap();
    // The second evaluation does not start from the hidden state of the first.
    assert_eq!(first, evaluation.run(&trainer).unwrap());
    first.mean()
}

#[test]
fn recurrent_agents_answer_and_others_guess() {
    for precision in [Precision::F32, Precision::F16] {
        let share = share_of_right_answers(true, precision);
        assert!(share > 0.95, "{precision:?}: {share}");
    }
    let share = share_of_right_answers(false, Precision::F32);
    assert!(share < 0.65, "{share}");
}
