//! Forged snapshots: valid checksums, but values that training could not have written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::tensor::{Dtype, SafeTensors};

use super::format::{self, SnapshotMetadata};
use crate::Result;
use crate::env::communication::Task;
use crate::env::spread::Definition;
use crate::env::{Communication, CpuEnv, Environment, Outcome, Simulator, Spec, Spread};
use crate::gpu::Gpu;
use crate::mappo::{Config, Precision, Ratio, Sharing, Trainer};
use crate::model::envelope::NamedTensor;
use crate::nn::CriticInput;
use crate::ppo::scalars;

/// Counts its steps, and has a global state.
#[derive(Default)]
struct Counter(u32);

impl Simulator for Counter {
    fn spec(&self) -> Spec {
        Spec { agents: 1, obs_dim: 2, actions: 3 }
    }

    fn time_limit(&self) -> Option<u32> {
        Some(5)
    }

    fn state_dim(&self) -> u32 {
        2
    }

    fn state(&self, state: &mut [f32]) {
        state.fill(self.0 as f32);
    }

    fn reset(&mut self, _: u64, observations: &mut [f32]) {
        self.0 = 0;
        observations.fill(1.0);
    }

    fn step(&mut self, actions: &[u32], observations: &mut [f32], rewards: &mut [f32]) -> Outcome {
        self.0 += 1;
        observations.fill(self.0 as f32);
        rewards.fill(actions[0] as f32);
        if self.0 == 5 { Outcome::Truncated } else { Outcome::Continues }
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(self.0.to_le_bytes().to_vec())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let steps = u32::from_le_bytes(bytes.try_into().map_err(|_| "expected four bytes")?);
        if steps > 5 {
            return Err(format!("step is {steps}, expected 0 to 5"));
        }
        self.0 = steps;
        Ok(())
    }
}

/// A saved snapshot that can be modified and written again with a valid checksum.
struct Saved {
    metadata: SnapshotMetadata,
    tensors: Vec<NamedTensor>,
}

impl Saved {
    fn of(trainer: &Trainer, path: &Path) -> Self {
        trainer.save(path, None).unwrap();
        let bytes = std::fs::read(path).unwrap();
        let (metadata, file): (_, SafeTensors<'_>) = format::read(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, view)| NamedTensor {
            name,
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        });
        Self { metadata, tensors: tensors.collect() }
    }

    /// Writes the snapshot with the bytes of one part, from `at` on, replaced.
    fn forge(&self, path: &Path, part: &str, at: usize, forged: &[u8]) {
        let tensors: Vec<_> = self
            .tensors
            .iter()
            .map(|tensor| {
                let mut bytes = tensor.bytes.clone();
                if tensor.name == part {
                    bytes[at..at + forged.len()].copy_from_slice(forged);
                }
                NamedTensor {
                    name: tensor.name.clone(),
                    dtype: tensor.dtype,
                    shape: tensor.shape.clone(),
                    bytes,
                }
            })
            .collect();
        format::write(path, &self.metadata, &tensors).unwrap();
    }
}

fn environments() -> Vec<(Box<dyn Environment>, Config)> {
    let mut config = Config::default();
    config.ppo.num_envs = 4;
    config.ppo.rollout_steps = 6;
    config.ppo.epochs = 1;
    config.ppo.iterations = 3;
    config.network.hidden = vec![4];
    config.device.precision = Precision::F32;
    let mut recurrent = config.clone();
    recurrent.network.recurrent = true;
    recurrent.network.chunk_length = 3;
    recurrent.network.observation_norm = true;
    let mut half = config.clone();
    half.device.precision = Precision::F16;
    let mut critic_state = config;
    critic_state.network.critic_input = CriticInput::State;
    vec![
        (Box::new(Spread::new(Definition::Mpe2)), recurrent),
        (Box::new(Communication::new(Task::Reference)), half),
        (Box::new(CpuEnv::new("counter", Counter::default)), critic_state),
    ]
}

fn trained(gpu: &Gpu, environment: &dyn Environment, config: &Config) -> Trainer {
    let mut trainer = Trainer::new(gpu, environment, config).unwrap();
    trainer.train_until(1, |_| -> Result<()> { Ok(()) }).unwrap();
    trainer
}

/// No part may contain bytes that are NaN or the largest integer, neither at its start nor at its end.
#[test]
fn every_part_is_validated_and_a_rejected_snapshot_changes_nothing() {
    let gpu = crate::testing::unchecked_gpu();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (environment, config) in environments() {
        let mut trainer = trained(&gpu, environment.as_ref(), &config);
        let saved = Saved::of(&trainer, &path("before"));
        let mut refused = |part: &str, at: usize, bytes: &[u8]| {
            saved.forge(&path("forged"), part, at, bytes);
            let error = trainer.resume(&path("forged")).unwrap_err().to_string();
            assert!(error.contains("forged") && error.contains(&format!("`{part}`")), "{part}: {error}");
        };
        // Never used as indices: any value is valid.
        let free = ["masks", "observations", "raw observations", "states of the environments"];
        for tensor in saved.tensors.iter().filter(|tensor| !free.contains(&tensor.name.as_str())) {
            // The last values of these are recomputed before use: norms of the optimizer, scalars of a rollout.
            let recomputed = ["optimizer", "scalars"].contains(&tensor.name.as_str());
            let host = tensor.dtype == Dtype::U8;
            let last = if recomputed || host { 0 } else { tensor.bytes.len() - 4 };
            for at in [0, last] {
                refused(&tensor.name, at, &[0xFF; 4]);
            }
        }
        trainer.save(&path("after"), None).unwrap();
        let bytes = |name: &str| std::fs::read(path(name)).unwrap();
        assert!(bytes("before") == bytes("after"), "{}", environment.identity());
        // An unmodified file is accepted.
        trainer.resume(&path("before")).unwrap();
    }
}

#[test]
fn values_out_of_range_are_named() {
    let gpu = crate::testing::unchecked_gpu();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut environments = environments();
    let (host, host_config) = environments.pop().unwrap();
    let (communication, half) = environments.pop().unwrap();
    let (spread, recurrent) = environments.pop().unwrap();
    let real = |value: f32| value.to_bits();
    let cases = [
        ("second moments", 0, real(-1.0), "at least 0"),
        ("second moments", 1, real(f32::INFINITY), "at least 0"),
        ("optimizer", 0, real(0.5), "step count of network 0 is 0.5, expected an integer"),
        ("optimizer", 8, real(-1.0), "step count of network 1 is -1"),
        ("optimizer", 4, real(1.5), "first bias correction of network 0 is 1.5"),
        ("optimizer", 7, real(1e30), "skipped steps of network 0"),
        ("scalars", scalars::DEVIATION, real(0.0), "deviation of the values is 0"),
        ("scalars", scalars::LOSS_SCALE, real(2.0), "loss scale is 2, expected 1.0 to 1.0"),
        ("scalars", scalars::LOSS_SCALE + 1, real(-1.0), "steps since the loss scale changed"),
        ("scalars", scalars::STOPPED, real(0.5), "stop flag"),
        ("scalars", scalars::ENTROPY, real(1e9), "entropy coefficient"),
        ("clock", 0, 0, "expected the iteration of the metadata, 1"),
        ("clock", 3, 1, "expected the iteration of the metadata, 1"),
        ("episodes", 2, real(1.0), "number 2 is 1, expected 0 between iterations"),
        ("observation moments", 2, real(-1.0), "squared deviations of column 0"),
        ("observation moments", 3, real(f32::INFINITY), "count of column 0"),
        ("endings", 3, 9, "environment 3: end is 9, expected 0 to 2"),
        ("environment 0", 0, real(1e9), "environment 0: position of agent 0"),
        // With three agents, counters follow 18 fields.
        ("environment 0", 18 * 4 + 1, 25, "environment 1: step of the episode is 25, expected 0 to 24"),
        ("environment 0", 19 * 4, 0, "environment 0: episode is 0"),
    ];
    check(&gpu, spread.as_ref(), &recurrent, &cases, &path("spread"));
    let cases = [
        ("scalars", scalars::LOSS_SCALE, real(0.0), "loss scale is 0"),
        ("environment 0", 14 * 4, 3, "environment 0: goal of agent 0 is 3, expected 0 to 2"),
        ("environment 0", 17 * 4 + 2, 11, "environment 2: message of agent 1 is 11, expected 0 to 10"),
        ("environment 0", 20 * 4, 2, "environment 0: truncated episodes is 2, expected 0 to 1"),
        ("environment 0", 21 * 4, real(f32::NAN), "environment 0: return is NaN"),
    ];
    check(&gpu, communication.as_ref(), &half, &cases, &path("communication"));
    // Per copy: episode, steps, return (two words), length (two words), and the simulator's bytes.
    let cases = [
        ("environment 0", 0, 0, "environment 0: episode is 0, expected 1 to"),
        ("environment 0", 7 + 1, u32::MAX, "environment 1: step of the episode is 4294967295"),
        ("environment 0", 3, 0x7FF0_0000, "environment 0: return is inf"),
        ("environment 0", 5, u32::MAX, "environment 0: the saved state is truncated"),
        ("environment 0", 3 * 7 + 6, 6, "environment 3: step is 6, expected 0 to 5"),
    ];
    check(&gpu, host.as_ref(), &host_config, &cases, &path("host"));
}

fn check(
    gpu: &Gpu,
    environment: &dyn Environment,
    config: &Config,
    cases: &[(&str, usize, u32, &str)],
    path: &Path,
) {
    let mut trainer = trained(gpu, environment, config);
    let saved = Saved::of(&trainer, path);
    for (part, word, value, wanted) in cases {
        saved.forge(path, part, word * 4, &value.to_le_bytes());
        let error = trainer.resume(path).unwrap_err().to_string();
        assert!(error.contains(&format!("`{part}`")) && error.contains(wanted), "{wanted}: {error}");
    }
    // The iteration of the metadata is validated as well.
    let forged = SnapshotMetadata { iteration: u32::MAX, ..saved.metadata.clone() };
    format::write(path, &forged, &saved.tensors).unwrap();
    let error = trainer.resume(path).unwrap_err().to_string();
    assert!(error.contains("iteration is 4294967295, expected 0 to"), "{error}");
}

/// Runs of format 2 clipped the ratio of the whole action, and agents with separate networks shared a ValueNorm: files load where
/// that makes no difference.
#[test]
fn snapshots_of_format_2_load_unless_the_run_would_go_on_differently() {
    let gpu = crate::testing::unchecked_gpu();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("older");
    let resume = |environment: &dyn Environment, config: &Config| {
        let mut trainer = trained(&gpu, environment, config);
        let mut saved = Saved::of(&trainer, &path);
        saved.metadata.format = 2;
        format::write(&path, &saved.metadata, &saved.tensors).unwrap();
        trainer.resume(&path).map(|metadata| metadata.iteration)
    };
    let mut environments = environments();
    let (host, mut host_config) = environments.pop().unwrap();
    let (communication, mut config) = environments.pop().unwrap();
    assert_eq!(resume(host.as_ref(), &host_config).unwrap(), 1);
    host_config.ppo.minibatches = 2;
    let error = resume(host.as_ref(), &host_config).unwrap_err().to_string();
    assert!(error.contains("minibatches are consecutive steps"), "{error}");
    let error = resume(communication.as_ref(), &config).unwrap_err().to_string();
    assert!(error.contains(r#"`ratio` is "joint" in the file, "per_choice" here"#), "{error}");
    config.ppo.ratio = Ratio::Joint;
    assert_eq!(resume(communication.as_ref(), &config).unwrap(), 1);
    config.network.networks = Sharing::Separate;
    let error = resume(communication.as_ref(), &config).unwrap_err().to_string();
    assert!(error.contains("share one ValueNorm") && error.contains("train anew"), "{error}");
}

#[test]
fn a_snapshot_that_could_not_be_read_back_is_not_written() {
    let gpu = crate::testing::unchecked_gpu();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let (environment, config) = environments().pop().unwrap();
    let trainer = trained(&gpu, environment.as_ref(), &config);
    trainer.save(&path, Some(2.0)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = trainer.save(&path, Some(f64::NAN)).unwrap_err().to_string();
    assert!(error.contains("could not be read back") && error.contains("its metadata"), "{error}");
    gpu.write(&trainer.buffers.networks.params, 4, &f32::NAN.to_le_bytes()).unwrap();
    let error = trainer.save(&path, Some(2.0)).unwrap_err().to_string();
    assert!(error.contains("could not be read back: `params`: number 1 is NaN"), "{error}");
    assert!(std::fs::read(&path).unwrap() == before, "the snapshot before is intact");
}

#[test]
fn saving_makes_no_simulators() {
    let made = Arc::new(AtomicUsize::new(0));
    let counted = made.clone();
    let environment = CpuEnv::new("counter", move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Counter::default()
    });
    let gpu = crate::testing::unchecked_gpu();
    let (_, config) = environments().remove(2);
    let mut trainer = trained(&gpu, &environment, &config);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot.safetensors");
    let before = made.load(Ordering::Relaxed);
    trainer.save(&path, None).unwrap();
    trainer.save(&path, None).unwrap();
    assert_eq!(made.load(Ordering::Relaxed), before);
    trainer.resume(&path).unwrap();
    assert_eq!(made.load(Ordering::Relaxed), before + 4);
}
