//! What was seen earlier decides what is right now: agents that remember learn it, others cannot.

use phalanx::env::{CpuEnv, Outcome, Simulator, Spec};
use phalanx::mappo::Activation;
use phalanx::mappo::{ActionMode, Config, EvalConfig, Evaluation, Precision, Trainer};

use crate::testing::unchecked_gpu;

/// Shows one of two signs at first and asks for it some steps later: 1 for the right answer.
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
        // Episodes of four to seven steps: rollouts and chunks begin and end anywhere in them.
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

/// Share of right answers in episodes that were not trained on.
fn share_of_right_answers(recurrent: bool, precision: Precision) -> f64 {
    let config = Config {
        num_envs: 64,
        rollout_steps: 20,
        epochs: 5,
        iterations: 60,
        hidden: vec![16],
        activation: Activation::Tanh,
        // Two numbers that say something by their size.
        input_norm: false,
        actor_learning_rate: 5e-3,
        critic_learning_rate: 5e-3,
        accumulation: 1,
        recurrent,
        precision,
        ..Config::default()
    };
    let gpu = unchecked_gpu();
    let environment = CpuEnv::new("recall", Recall::default);
    let mut trainer = Trainer::new(&gpu, &environment, &config).unwrap();
    trainer.train(|_| -> phalanx::Result<()> { Ok(()) }).unwrap();
    let eval_config = EvalConfig { envs: 64, episodes: 4, most_steps: 100, mode: ActionMode::Greedy };
    let mut evaluation = Evaluation::new(&gpu, &environment, &config, &eval_config).unwrap();
    let first = evaluation.run(&trainer).unwrap();
    // What the first evaluation remembered at its end is nothing to the second.
    assert_eq!(first, evaluation.run(&trainer).unwrap());
    first.mean()
}

#[test]
fn agents_that_remember_answer_and_others_guess() {
    for precision in [Precision::F32, Precision::F16] {
        let share = share_of_right_answers(true, precision);
        assert!(share > 0.95, "{precision:?}: {share}");
    }
    let share = share_of_right_answers(false, Precision::F32);
    assert!(share < 0.65, "{share}");
}
