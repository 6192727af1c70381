//! Training that is stopped, that fails, that cannot learn, and that starts from the weights of a file.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::env::{CpuEnv, Outcome, Simulator, Spec};
use crate::gpu::Gpu;
use crate::mappo::{Config, Trainer};
use crate::model::Checkpoint;
use crate::{Error, Result};

/// Faults of a simulator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Trouble {
    #[default]
    None,
    /// Observations whose squares exceed f32.
    Huge,
    /// No action is ever allowed.
    Masked,
}

/// Ends after three steps; the reward is the action.
#[derive(Default)]
struct Short {
    trouble: Trouble,
    taken: u32,
    /// Steps of all copies after which one panics; 0: never.
    panic_at: u32,
    steps: Arc<AtomicU32>,
}

impl Simulator for Short {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 2, actions: 2 }
    }

    fn reset(&mut self, _: u64, observations: &mut [f32]) {
        self.taken = 0;
        observations.copy_from_slice(&[1.0, if self.trouble == Trouble::Huge { 1e30 } else { 0.5 }]);
    }

    fn step(&mut self, actions: &[u32], observations: &mut [f32], rewards: &mut [f32]) -> Outcome {
        let steps = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(steps != self.panic_at, "step {steps} is one too many");
        self.taken += 1;
        observations.copy_from_slice(&[-1.0, if self.trouble == Trouble::Huge { -1e30 } else { 0.5 }]);
        rewards[0] = actions[0] as f32;
        if self.taken == 3 { Outcome::Terminated } else { Outcome::Continues }
    }

    fn allowed(&self, masks: &mut [u32]) {
        if self.trouble == Trouble::Masked {
            masks.fill(0);
        }
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(vec![self.taken as u8])
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.taken = bytes.first().copied().ok_or("one byte is missing")?.into();
        Ok(())
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.ppo.num_envs = 4;
    config.ppo.rollout_steps = 6;
    config.ppo.epochs = 2;
    config.ppo.iterations = 6;
    config.network.hidden = vec![4];
    config.network.input_norm = false;
    config
}

fn trainer(gpu: &Gpu, config: &Config, trouble: Trouble) -> Trainer {
    let environment = CpuEnv::new("short", move || Short { trouble, ..Short::default() });
    Trainer::new(gpu, &environment, config).unwrap()
}

#[test]
fn training_that_cannot_learn_is_an_error_that_says_why() {
    let gpu = crate::testing::unchecked_gpu();
    for (trouble, parts) in [
        (
            Trouble::None,
            &[
                "3 iterations",
                "not finite",
                "largest observation 1e0 (feature 0 of agent 0) in the last rollout",
                "lower the learning rates",
            ] as &[_],
        ),
        (Trouble::Masked, &["no agent was active", "3 iterations", "action mask was 0"]),
    ] {
        let mut trainer = trainer(&gpu, &config(), trouble);
        if trouble == Trouble::None {
            // As after an update that went too far.
            let broken = vec![f32::NAN; trainer.weights().unwrap().len()];
            gpu.write(&trainer.buffers.networks.params, 0, bytemuck::cast_slice(&broken)).unwrap();
            trainer.recorder.run(&trainer.rollout.prepare).unwrap();
        }
        let mut reported = Vec::new();
        let error = trainer.train(|progress| reported.push(*progress)).unwrap_err();
        assert!(matches!(error, Error::Data(_)), "{error:?}");
        let error = error.to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{part}: {error}"));
        assert_eq!(reported.len(), 3, "every iteration until then is reported");
        let expected = if trouble == Trouble::None { [1, 2, 3] } else { [0; 3] };
        assert_eq!([0, 1, 2].map(|i| reported[i].iterations_without_step), expected);
        assert_eq!(reported[2].record.active_fraction, if trouble == Trouble::None { 1.0 } else { 0.0 });
        // Nothing is under way.
        assert_eq!(trainer.iteration(), 4, "the iteration in flight was completed");
        trainer.weights().unwrap();
        assert!(trainer.collect().unwrap().is_none());
    }
}

/// With a LayerNorm of the inputs, the networks would see zeros, and every step would be taken.
#[test]
fn observations_that_no_network_can_use_are_refused_at_the_start() {
    let gpu = crate::testing::unchecked_gpu();
    let environment = CpuEnv::new("short", || Short { trouble: Trouble::Huge, ..Short::default() });
    let error = Trainer::new(&gpu, &environment, &config()).unwrap_err().to_string();
    assert!(error.contains("environment 0: observation 1 is 1e30, which is too large"), "{error}");
    // As an environment on the device might write it.
    let trainer = trainer(&gpu, &config(), Trouble::None);
    trainer.examine().unwrap();
    gpu.write(trainer.buffers.observed(), 4 * 4, bytemuck::bytes_of(&-1e30f32)).unwrap();
    let error = trainer.examine().unwrap_err().to_string();
    assert!(error.contains("observation -1e30 (feature 1 of agent 0) is too large"), "{error}");
}

#[test]
fn the_callback_stops_training_and_nothing_is_left_under_way() {
    let gpu = crate::testing::unchecked_gpu();
    let folder = tempfile::tempdir().unwrap();
    let mut stopped = trainer(&gpu, &config(), Trouble::None);
    let mut reported = Vec::new();
    stopped
        .train(|progress| {
            reported.push(progress.iteration);
            if progress.iteration == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    // The iteration that was in flight is completed and reported.
    assert_eq!((reported, stopped.iteration()), (vec![1, 2, 3], 3));
    stopped.save(&folder.path().join("stopped"), None).unwrap();
    // An error of the callback leaves nothing under way either.
    let error = stopped.train(|_| -> Result<()> { Err(Error::Data("enough".into())) }).unwrap_err();
    assert!(error.to_string().contains("enough"));
    assert!(stopped.iteration() > 3 && stopped.iteration() < 6, "{}", stopped.iteration());
    stopped.save(&folder.path().join("failed"), None).unwrap();
    // It trains on, to the same bytes as without a stop.
    stopped.train(|_| ()).unwrap();
    let mut whole = trainer(&gpu, &config(), Trouble::None);
    let mut last = None;
    whole
        .train(|progress| -> Result<ControlFlow<()>> {
            last = Some(*progress);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    assert_eq!((whole.iteration(), whole.weights().unwrap()), (6, stopped.weights().unwrap()));
    let last = last.unwrap();
    let running = last.running_return.unwrap();
    assert!((0.0..=3.0).contains(&running) && last.mean_return().unwrap() >= 0.0, "{running}");
    assert!(last.record.explained_variance <= 1.0 && last.record.active_fraction == 1.0, "{:?}", last.record);
}

#[test]
fn a_panic_in_a_simulator_is_an_error_and_a_snapshot_continues() {
    let gpu = crate::testing::unchecked_gpu();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let steps = Arc::new(AtomicU32::new(0));
    let counter = steps.clone();
    // Two iterations are 48 steps of all copies together.
    let make = move || Short { panic_at: 70, steps: counter.clone(), ..Short::default() };
    let environment = CpuEnv::new("short", make);
    let mut trainer = Trainer::new(&gpu, &environment, &config()).unwrap();
    trainer.train_until(2, |_| ()).unwrap();
    trainer.save(&path, None).unwrap();
    let error = trainer.train(|_| ()).unwrap_err().to_string();
    for part in ["environment ", "the simulator panicked", "step 70 is one too many"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    for error in [trainer.train(|_| ()).unwrap_err(), trainer.save(&path, None).unwrap_err()] {
        assert!(error.to_string().contains("Trainer::resume"), "{error}");
    }
    trainer.resume(&path).unwrap();
    trainer.train(|_| ()).unwrap();
    assert_eq!(trainer.iteration(), 6);
    assert!(steps.load(Ordering::Relaxed) >= 70 + 4 * 24);
}

#[test]
fn training_starts_from_the_weights_of_a_file() {
    let gpu = crate::testing::unchecked_gpu();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut source = trainer(&gpu, &config(), Trouble::None);
    source.train_until(2, |_| ()).unwrap();
    let save = |trainer: &Trainer, metadata: serde_json::Value| {
        let model = Checkpoint { metadata, weights: trainer.weights().unwrap() };
        model.save(&path, trainer.layout()).unwrap();
    };
    save(&source, serde_json::json!({}));
    let mut other = config();
    other.ppo.seed = 5;
    let mut target = trainer(&gpu, &other, Trouble::None);
    assert_ne!(target.weights().unwrap(), source.weights().unwrap());
    target.load_weights(&path).unwrap();
    assert_eq!(target.weights().unwrap(), source.weights().unwrap());
    // The networks act with them: the working weights follow the master weights.
    let working =
        |trainer: &Trainer| -> Vec<f32> { gpu.read(&trainer.buffers.networks.working_weights).unwrap() };
    assert_eq!(working(&target), working(&source));
    target.train(|_| ()).unwrap();
    assert_eq!(target.iteration(), 6);

    // Other shapes, other names, and statistics that are missing, are refused, and nothing changes.
    let refused = |config: &Config, part: &str| {
        let mut target = trainer(&gpu, config, Trouble::None);
        let before = target.weights().unwrap();
        let error = target.load_weights(&path).unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && error.contains(part), "{part}: {error}");
        assert_eq!(target.weights().unwrap(), before);
    };
    let mut wider = config();
    wider.network.hidden = vec![6];
    refused(&wider, "expected F32");
    let mut bare = config();
    bare.network.hidden_norm = false;
    refused(&bare, "is not part of these networks");
    let mut normalized = config();
    normalized.network.observation_norm = true;
    refused(&normalized, "it was trained with `observation_norm = false`");
    save(&source, serde_json::json!({"observation_moments": [[0.0, 0.0, -1.0, 9.0], [0.0, 0.0, 1.0, 9.0]]}));
    refused(&config(), "it was trained with `observation_norm = true`");
    refused(&normalized, "`observation_moments` 0");
    save(&source, serde_json::json!({"observation_moments": [[0.5, 0.0, 4.0, 9.0], [0.25, 0.0, 1.0, 9.0]]}));
    let mut target = trainer(&gpu, &normalized, Trouble::None);
    target.load_weights(&path).unwrap();
    assert_eq!(target.observation_moments().unwrap(), [[0.5, 0.0, 4.0, 9.0], [0.25, 0.0, 1.0, 9.0]]);
}
