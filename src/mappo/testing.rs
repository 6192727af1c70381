//! Sizes, environment and comparisons shared by the tests against fixtures.

use std::collections::HashMap;

use super::Trainer;
use crate::Result;
use crate::env::{EnvRecording, Environment, RolloutBuffers, Spec};
use crate::gpu::{Command, Gpu, Plan, Recorder};

pub(super) const AGENTS: usize = 3;
pub(super) const OBS_DIM: usize = 5;
pub(super) const ACTIONS: usize = 4;
pub(super) const ENVS: usize = 4;

pub(super) type Tensors = HashMap<String, Vec<f64>>;

/// An environment whose steps do nothing.
#[derive(Default)]
pub(super) struct Still {
    pub truncations: u32,
    /// Options of every choice of an action; empty: one choice of [`ACTIONS`].
    pub choices: Vec<u32>,
}

impl Environment for Still {
    fn spec(&self) -> Spec {
        Spec { agents: AGENTS as u32, obs_dim: OBS_DIM as u32, actions: self.choices().iter().sum() }
    }
    fn choices(&self) -> Vec<u32> {
        if self.choices.is_empty() { vec![ACTIONS as u32] } else { self.choices.clone() }
    }
    fn truncations(&self, _: u32) -> u32 {
        self.truncations
    }
    fn plan(&self, _: u32, _: u32) -> Plan {
        Plan::new()
    }
    fn record(&self, _: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
        Ok(EnvRecording { reset: vec![], steps: vec![vec![]; rollout.steps as usize], state: vec![] })
    }
}

/// Contents of one of the trainer's buffers.
pub(super) fn floats(trainer: &Trainer, buffer: impl Fn(&Trainer) -> &wgpu::Buffer) -> Vec<f32> {
    trainer.gpu.read(buffer(trainer)).unwrap()
}

/// Writes the weights of a fixture into the trainer.
pub(super) fn put_weights(trainer: &Trainer, params: &Tensors) {
    let mut weights = vec![0f32; trainer.layout.params as usize * 4];
    for tensor in &trainer.layout.tensors {
        let values = &params[&tensor.name];
        let [rows, columns] = tensor.shape;
        assert_eq!(values.len(), rows * columns, "{}", tensor.name);
        for (i, value) in values.iter().enumerate() {
            weights[tensor.first + i / columns * tensor.stride + i % columns] = *value as f32;
        }
    }
    trainer.gpu.write(&trainer.buffers.networks.params, 0, bytemuck::cast_slice(&weights)).unwrap();
}

/// Largest error of any element, relative to the largest element of its tensor.
pub(super) fn tensor_error(
    trainer: &Trainer,
    buffer: impl Fn(&Trainer) -> &wgpu::Buffer,
    expected: &Tensors,
) -> f64 {
    let got = floats(trainer, buffer);
    let mut worst = 0f64;
    for tensor in &trainer.layout.tensors {
        let values = &expected[&tensor.name];
        let scale = values.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
        for (i, value) in values.iter().enumerate() {
            let at = tensor.first + i / tensor.shape[1] * tensor.stride + i % tensor.shape[1];
            let error = (f64::from(got[at]) - value).abs() / scale;
            // Not `max`, which ignores NaN.
            worst = if error <= worst { worst } else { error };
        }
    }
    worst
}

pub(super) fn near(what: &str, got: f64, expected: f64, tolerance: f64) {
    let error = (got - expected).abs() / expected.abs().max(0.1);
    assert!(error < tolerance, "{what}: {got} for {expected} ({error:.1e})");
}

/// Begins recorded epoch `index`, the first one of an agent step or, as the end of the step before has begun it, a later one. Returns the
/// rest of its commands.
pub(super) fn begin_epoch<'a>(
    trainer: &'a Trainer,
    recorder: &mut Recorder,
    index: usize,
    is_first: bool,
) -> &'a [Command] {
    let (begins, rest) = trainer.update.epochs[index].split_at(usize::from(is_first));
    recorder.run(begins).unwrap();
    rest
}
