//! Evaluation runs whole episodes in separate environments and does not affect training.

use phalanx::env::spread::Definition;
use phalanx::env::{CpuEnv, Outcome, Simulator, Spec, Spread};
use phalanx::mappo::{ActionMode, Config, EvalConfig, Evaluation, Trainer};
use phalanx::mappo::{Activation, Sharing};
use phalanx::random::Stream;

use crate::testing::unchecked_gpu;

fn eval_config(mode: ActionMode) -> EvalConfig {
    EvalConfig { envs: 256, episodes: 2, most_steps: 100, mode }
}

#[test]
fn an_untrained_policy_gets_the_returns_of_random_actions() {
    let gpu = unchecked_gpu();
    let mut config = Config::on_policy_mpe();
    config.ppo.num_envs = 8;
    config.ppo.rollout_steps = 10;
    config.network.hidden = vec![16];
    // Rollouts of ten steps, episodes of 25: episodes continue from one rollout to the next.
    for (definition, mean) in [(Definition::OnPolicy, -218.6), (Definition::Mpe2, -26.46)] {
        let spread = Spread::new(definition);
        let trainer = Trainer::new(&gpu, &spread, &config).unwrap();
        let mut evaluation =
            Evaluation::new(&gpu, &spread, &config, &eval_config(ActionMode::Sampled)).unwrap();
        let score = evaluation.run(&trainer).unwrap();
        assert_eq!((score.returns.len(), score.length), (512, 25.0));
        let (found, error) = (score.mean(), score.error());
        println!("{definition:?}: {found:.2} +- {error:.2}");
        assert!((found - mean).abs() < 4.0 * error, "{definition:?}: {found} +- {error} for {mean}");
        assert_eq!(evaluation.run(&trainer).unwrap(), score, "the same episodes every time");
    }
}

#[test]
fn evaluation_does_not_affect_training() {
    let gpu = unchecked_gpu();
    let mut config = Config::on_policy_mpe();
    config.ppo.num_envs = 8;
    config.ppo.rollout_steps = 10;
    config.ppo.iterations = 3;
    config.network.hidden = vec![16];
    let spread = Spread::new(Definition::OnPolicy);
    let weights = |evaluate: bool| {
        let mut trainer = Trainer::new(&gpu, &spread, &config).unwrap();
        let mut evaluation =
            Evaluation::new(&gpu, &spread, &config, &eval_config(ActionMode::Greedy)).unwrap();
        let mut scores = Vec::new();
        for iteration in 1..=3 {
            trainer.train_until(iteration, |_| -> phalanx::Result<()> { Ok(()) }).unwrap();
            if evaluate {
                scores.push(evaluation.run(&trainer).unwrap());
            }
        }
        assert!(!evaluate || scores[0] != scores[2], "the policy changed");
        trainer.weights().unwrap()
    };
    let bits = |weights: Vec<f32>| weights.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert!(bits(weights(true)) == bits(weights(false)));
}

/// Every second episode has one step, the others have `long`; every step has reward 1.
struct Uneven {
    long: u32,
    episode: u32,
    taken: u32,
}

impl Simulator for Uneven {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 1, actions: 2 }
    }

    fn reset(&mut self, _: u64, seen: &mut [f32]) {
        self.episode += 1;
        self.taken = 0;
        seen[0] = 0.0;
    }

    fn step(&mut self, _: &[u32], seen: &mut [f32], rewards: &mut [f32]) -> Outcome {
        self.taken += 1;
        (seen[0], rewards[0]) = (self.taken as f32, 1.0);
        let length = if self.episode.is_multiple_of(2) { 1 } else { self.long };
        if self.taken == length { Outcome::Terminated } else { Outcome::Continues }
    }
}

#[test]
fn short_and_long_episodes_have_equal_weight() {
    let gpu = unchecked_gpu();
    let mut config = Config::default();
    config.ppo.num_envs = 4;
    config.ppo.rollout_steps = 6;
    config.network.hidden = vec![8];
    let score = |long: u32| {
        let host = CpuEnv::new("uneven", move || Uneven { long, episode: 0, taken: 0 });
        let trainer = Trainer::new(&gpu, &host, &config).unwrap();
        let eval_config = EvalConfig { envs: 4, episodes: 2, most_steps: 60, mode: ActionMode::Greedy };
        Evaluation::new(&gpu, &host, &config, &eval_config).unwrap().run(&trainer)
    };
    let found = score(20).unwrap();
    assert_eq!((found.returns, found.length), ([20.0, 1.0].repeat(4), 10.5));
    let error = score(100).unwrap_err().to_string();
    assert!(error.contains("did not end within the 60 steps"), "{error}");
}

/// An agent observes the right options of two choices: one of four places, and one of two sides.
struct Clerk {
    wanted: [u32; 2],
    state: u64,
    taken: u32,
}

impl Clerk {
    fn next(&mut self, seen: &mut [f32]) {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.wanted = [(self.state >> 40) as u32 % 4, (self.state >> 50) as u32 % 2];
        seen.fill(0.0);
        seen[self.wanted[0] as usize] = 1.0;
        seen[4 + self.wanted[1] as usize] = 1.0;
    }
}

impl Simulator for Clerk {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 6, actions: 6 }
    }

    fn choices(&self) -> Vec<u32> {
        vec![4, 2]
    }

    fn time_limit(&self) -> Option<u32> {
        Some(16)
    }

    fn reset(&mut self, seed: u64, seen: &mut [f32]) {
        (self.state, self.taken) = (seed, 0);
        self.next(seen);
    }

    fn step(&mut self, actions: &[u32], seen: &mut [f32], rewards: &mut [f32]) -> Outcome {
        assert!(actions[0] < 8);
        let done = [actions[0] % 4, actions[0] / 4];
        rewards[0] =
            done.iter().zip(self.wanted).map(|(done, wanted)| f32::from(u8::from(*done == wanted))).sum();
        self.taken += 1;
        self.next(seen);
        if self.taken == 16 { Outcome::Truncated } else { Outcome::Continues }
    }
}

#[test]
fn multi_discrete_actions_are_learnt() {
    let gpu = unchecked_gpu();
    let mut config = Config::default();
    config.ppo.num_envs = 32;
    config.ppo.rollout_steps = 16;
    config.ppo.iterations = 25;
    config.ppo.minibatches = 4;
    config.ppo.gamma = 0.0;
    config.network.hidden = vec![32];
    config.network.input_norm = false;
    config.optimizer.actor_learning_rate = 3e-3;
    config.optimizer.critic_learning_rate = 3e-3;
    let host = CpuEnv::new("clerk", || Clerk { wanted: [0; 2], state: 0, taken: 0 });
    let mut trainer = Trainer::new(&gpu, &host, &config).unwrap();
    let eval_config = EvalConfig { envs: 32, episodes: 1, most_steps: 100, mode: ActionMode::Greedy };
    let mut evaluation = Evaluation::new(&gpu, &host, &config, &eval_config).unwrap();
    trainer.train(|_| -> phalanx::Result<()> { Ok(()) }).unwrap();
    let score = evaluation.run(&trainer).unwrap().mean();
    assert!(score > 31.0, "{score} of 32; chance is 12");

    struct Wrong;
    impl Simulator for Wrong {
        fn spec(&self) -> Spec {
            Spec { agents: 1, obs_dim: 1, actions: 5 }
        }
        fn choices(&self) -> Vec<u32> {
            vec![4, 2]
        }
        fn reset(&mut self, _: u64, _: &mut [f32]) {}
        fn step(&mut self, _: &[u32], _: &mut [f32], _: &mut [f32]) -> Outcome {
            Outcome::Continues
        }
    }
    let error = Trainer::new(&gpu, &CpuEnv::new("wrong", || Wrong), &config).unwrap_err().to_string();
    assert!(error.contains("add up to 5") && error.contains("[4, 2]"), "{error}");
}

/// Two agents output two continuous actions each, which should match targets that they observe.
struct Aim {
    wanted: [f32; 4],
    stream: Stream,
    taken: u32,
    /// Guaranteed bound on the actions.
    bound: f32,
}

impl Aim {
    fn new(bound: f32) -> Self {
        Self { wanted: [0.0; 4], stream: Stream::new(0, 0), taken: 0, bound }
    }

    fn next(&mut self, seen: &mut [f32]) {
        self.wanted = std::array::from_fn(|_| 2.0 * self.stream.uniform() as f32 - 1.0);
        seen.copy_from_slice(&self.wanted);
    }
}

impl Simulator for Aim {
    fn spec(&self) -> Spec {
        Spec { agents: 2, obs_dim: 2, actions: 2 }
    }

    fn continuous(&self) -> bool {
        true
    }

    fn time_limit(&self) -> Option<u32> {
        Some(8)
    }

    fn reset(&mut self, seed: u64, seen: &mut [f32]) {
        (self.stream, self.taken) = (Stream::new(seed, 0), 0);
        self.next(seen);
    }

    fn step(&mut self, actions: &[u32], seen: &mut [f32], rewards: &mut [f32]) -> Outcome {
        assert!(actions.iter().all(|action| f32::from_bits(*action).abs() < self.bound));
        for (agent, reward) in rewards.iter_mut().enumerate() {
            // The second agent's targets are in reverse order.
            let own = |number: usize| f32::from_bits(actions[2 * agent + number]);
            let aims = [self.wanted[2 * agent + agent], self.wanted[2 * agent + 1 - agent]];
            *reward = -(own(0) - aims[0]).powi(2) - (own(1) - aims[1]).powi(2);
        }
        self.taken += 1;
        self.next(seen);
        if self.taken == 8 { Outcome::Truncated } else { Outcome::Continues }
    }
}

#[test]
fn continuous_actions_are_learnt() {
    let gpu = unchecked_gpu();
    for networks in [Sharing::Shared, Sharing::Separate] {
        let mut config = Config::default();
        config.ppo.num_envs = 32;
        config.ppo.rollout_steps = 8;
        config.ppo.iterations = 20;
        config.ppo.minibatches = 2;
        config.ppo.entropy = 0.0;
        config.ppo.gamma = 0.0;
        config.network.hidden = vec![16];
        config.network.activation = Activation::Tanh;
        config.network.input_norm = false;
        config.network.networks = networks;
        config.optimizer.actor_learning_rate = 1e-2;
        config.optimizer.critic_learning_rate = 1e-2;
        let host = CpuEnv::new("aim", || Aim::new(f32::INFINITY));
        let mut trainer = Trainer::new(&gpu, &host, &config).unwrap();
        let eval_config = EvalConfig { envs: 32, episodes: 1, most_steps: 100, mode: ActionMode::Greedy };
        let mut evaluation = Evaluation::new(&gpu, &host, &config, &eval_config).unwrap();
        let before = evaluation.run(&trainer).unwrap().mean();
        trainer.train(|_| -> phalanx::Result<()> { Ok(()) }).unwrap();
        let after = evaluation.run(&trainer).unwrap().mean();
        println!("{networks:?}: {before:.2}, then {after:.2}");
        // Means near 0 have an expected error of one third per number: 8 steps of two numbers.
        assert!(before < -4.0 && after > -0.8, "{networks:?}: {before}, then {after}");
        let weights = trainer.weights().unwrap();
        let stds = trainer.layout().tensors.iter().filter(|tensor| tensor.name.ends_with("log_std"));
        let stds: Vec<&[f32]> = stds.map(|tensor| &weights[tensor.first..tensor.first + 2]).collect();
        assert_eq!(stds.len(), if networks == Sharing::Shared { 1 } else { 2 });
        assert!(
            stds.concat().iter().all(|log_std| *log_std < -0.3),
            "standard deviations must shrink: {stds:?}"
        );
    }
}

#[test]
fn squashed_actions_are_learnt() {
    let gpu = unchecked_gpu();
    let mut config = Config::default();
    config.ppo.num_envs = 32;
    config.ppo.rollout_steps = 8;
    config.ppo.epochs = 1;
    config.ppo.iterations = 150;
    config.ppo.entropy = 0.0;
    config.ppo.gamma = 0.0;
    config.network.hidden = vec![16];
    config.network.activation = Activation::Tanh;
    config.network.input_norm = false;
    config.network.squash = true;
    config.optimizer.actor_learning_rate = 3e-2;
    config.optimizer.critic_learning_rate = 3e-2;
    config.device.accumulation = 1;
    let host = CpuEnv::new("aim", || Aim::new(1.0));
    let mut trainer = Trainer::new(&gpu, &host, &config).unwrap();
    let eval_config = EvalConfig { envs: 32, episodes: 1, most_steps: 100, mode: ActionMode::Greedy };
    let mut evaluation = Evaluation::new(&gpu, &host, &config, &eval_config).unwrap();
    let before = evaluation.run(&trainer).unwrap().mean();
    let mut furthest = 0f32;
    trainer
        .train(|progress| -> phalanx::Result<()> {
            furthest = furthest.max(progress.record.approx_kl.abs());
            Ok(())
        })
        .unwrap();
    // With one epoch the trained policy is the one that acted: the loss must use the sampled numbers.
    assert!(furthest < 1e-6, "{furthest}");
    let after = evaluation.run(&trainer).unwrap().mean();
    println!("{before:.2}, then {after:.3}");
    assert!(before < -4.0 && after > -0.2, "{before}, then {after}");
}

#[test]
fn an_evaluation_counts_against_the_budget_of_its_training() {
    let gpu = unchecked_gpu();
    let mut config = Config::on_policy_mpe();
    config.ppo.num_envs = 8;
    config.ppo.rollout_steps = 10;
    config.network.hidden = vec![16];
    config.device.memory_budget_mb = Some(1);
    let spread = Spread::new(Definition::OnPolicy);
    let eval_config = EvalConfig { envs: 4, episodes: 1, most_steps: 100, mode: ActionMode::Greedy };
    let own = Evaluation::plan_of(&gpu, &spread, &config, &eval_config).unwrap().bytes();
    let trainer = Trainer::beside(&gpu, &spread, &config, None, own).unwrap();
    assert!(trainer.plan().bytes() + own <= 1 << 20);
    let mut evaluation = Evaluation::reserved(&gpu, &spread, &config, &eval_config).unwrap();
    assert_eq!(evaluation.plan().bytes(), own);
    assert!(evaluation.run(&trainer).unwrap().mean().is_finite());
    let error = Trainer::beside(&gpu, &spread, &config, None, (1 << 20) - 1).unwrap_err();
    assert!(matches!(error, phalanx::Error::Budget { budget: 1, needed, .. } if needed > 1), "{error:?}");
    let text = error.to_string();
    for part in ["with 1.00 MiB for evaluations, needs", "`memory_budget_mb`", "or do without evaluations"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_evaluation_of_nothing_is_refused() {
    let gpu = unchecked_gpu();
    let spread = Spread::new(Definition::Mpe2);
    let good = eval_config(ActionMode::Greedy);
    for (key, eval_config) in [
        ("envs", EvalConfig { envs: 0, ..good }),
        ("episodes", EvalConfig { episodes: 0, ..good }),
        ("most_steps", EvalConfig { most_steps: 0, ..good }),
    ] {
        let error = Evaluation::new(&gpu, &spread, &Config::default(), &eval_config).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")) && error.contains("from 1 to"), "{error}");
    }
}
