//! Evaluation: whole episodes on environments of its own, and nothing of training changes.

use phalanx::env::spread::Definition;
use phalanx::env::{Host, Outcome, Simulator, Spec, Spread};
use phalanx::gpu::{Gpu, GpuOptions};
use phalanx::mappo::{Choice, Config, Evaluation, Schedule, Trainer};

fn schedule(choice: Choice) -> Schedule {
    Schedule { envs: 256, episodes: 2, most_steps: 100, choice }
}

#[test]
fn a_policy_that_knows_nothing_gets_what_chance_gets() {
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let config = Config { num_envs: 8, rollout_steps: 10, hidden: vec![16], ..Config::on_policy_mpe() };
    // Rollouts of ten steps, episodes of 25: they go on from one rollout to the next.
    for (definition, mean) in [(Definition::OnPolicy, -218.6), (Definition::Mpe2, -26.46)] {
        let spread = Spread::new(definition);
        let trainer = Trainer::new(&gpu, &spread, &config).unwrap();
        let mut evaluation = Evaluation::new(&gpu, &spread, &config, &schedule(Choice::Sampled)).unwrap();
        let score = evaluation.run(&trainer).unwrap();
        assert_eq!((score.returns.len(), score.length), (512, 25.0));
        let (found, error) = (score.mean(), score.error());
        println!("{definition:?}: {found:.2} +- {error:.2}");
        assert!((found - mean).abs() < 4.0 * error, "{definition:?}: {found} +- {error} for {mean}");
        assert_eq!(evaluation.run(&trainer).unwrap(), score, "the same episodes every time");
    }
}

#[test]
fn training_does_not_notice() {
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let config =
        Config { num_envs: 8, rollout_steps: 10, iterations: 3, hidden: vec![16], ..Config::on_policy_mpe() };
    let spread = Spread::new(Definition::OnPolicy);
    let weights = |evaluate: bool| {
        let mut trainer = Trainer::new(&gpu, &spread, &config).unwrap();
        let mut evaluation = Evaluation::new(&gpu, &spread, &config, &schedule(Choice::Greedy)).unwrap();
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

/// Every second episode has one step, the others have `long`; a step is worth 1.
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
fn short_episodes_count_no_more_than_long_ones() {
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let config = Config { num_envs: 4, rollout_steps: 6, hidden: vec![8], ..Config::default() };
    let score = |long: u32| {
        let host = Host::new("uneven", move || Uneven { long, episode: 0, taken: 0 });
        let trainer = Trainer::new(&gpu, &host, &config).unwrap();
        let schedule = Schedule { envs: 4, episodes: 2, most_steps: 60, choice: Choice::Greedy };
        Evaluation::new(&gpu, &host, &config, &schedule).unwrap().run(&trainer)
    };
    let found = score(20).unwrap();
    assert_eq!((found.returns, found.length), ([20.0, 1.0].repeat(4), 10.5));
    let error = score(100).unwrap_err().to_string();
    assert!(error.contains("did not end within the 60 steps"), "{error}");
}
