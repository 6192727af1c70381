//! Test fixture: an environment recorded on the buffers of one rollout.

use super::{EnvRecording, Environment, RolloutBuffers, State};
use crate::gpu::{Gpu, Recorder, STATE};
use crate::nn::Storage;

/// An environment and its rollout buffers.
pub(super) struct Bench {
    pub(super) gpu: Gpu,
    pub(super) envs: usize,
    pub(super) recorded: EnvRecording,
    pub(super) actions: wgpu::Buffer,
    pub(super) rewards: wgpu::Buffer,
    pub(super) observations: wgpu::Buffer,
    pub(super) storage: Storage,
    pub(super) episodes: wgpu::Buffer,
    pub(super) dones_and_masks: wgpu::Buffer,
    pub(super) recorder: Recorder,
}

impl Bench {
    /// Records the environment with observations in f32 and runs its reset.
    pub(super) fn new(gpu: &Gpu, environment: &dyn Environment, envs: usize, steps: u32, seed: u64) -> Self {
        Self::stored(gpu, environment, envs, steps, seed, Storage::F32)
    }

    /// Records the environment, with its global state, and runs its reset.
    pub(super) fn stored(
        gpu: &Gpu,
        environment: &dyn Environment,
        envs: usize,
        steps: u32,
        seed: u64,
        storage: Storage,
    ) -> Self {
        let (spec, length) = (environment.spec(), steps as usize);
        let slots = length + 1 + environment.truncations(steps) as usize;
        let rows = envs * spec.agents as usize;
        let numbers = if environment.continuous() { spec.actions as usize } else { 1 };
        let (features, state_dim) = (rows * spec.obs_dim as usize, environment.state_dim());
        let buffer = |words: usize| gpu.buffer("rollout", words as u64 * 4, STATE).unwrap();
        let actions = buffer(length * rows * numbers);
        let rewards = buffer(length * rows);
        let observations = buffer(slots * (features + state_dim as usize * envs));
        let episodes = buffer(4 * envs);
        let dones_and_masks = buffer(length * envs + (length + 1) * rows);
        let rollout = RolloutBuffers {
            envs: envs as u32,
            steps,
            seed,
            storage,
            state_dim,
            first_state: (slots * features) as u32,
            observations: &observations,
            actions: &actions,
            rewards: &rewards,
            dones_and_masks: &dones_and_masks,
            episodes: &episodes,
        };
        let recorded = environment.record(gpu, &rollout).unwrap();
        let mut recorder = Recorder::new(gpu);
        recorder.run(&recorded.reset).unwrap();
        Self {
            gpu: gpu.clone(),
            envs,
            recorded,
            actions,
            rewards,
            observations,
            storage,
            episodes,
            dones_and_masks,
            recorder,
        }
    }

    /// Uploads the actions of the rollout, `[step][agent][env]`.
    pub(super) fn act(&self, actions: &[u32]) {
        self.gpu.write(&self.actions, 0, bytemuck::cast_slice(actions)).unwrap();
    }

    pub(super) fn run(&mut self) {
        for step in &self.recorded.steps {
            self.recorder.run(step).unwrap();
        }
    }

    pub(super) fn read(&self, buffer: &wgpu::Buffer) -> Vec<f32> {
        self.gpu.read(buffer).unwrap()
    }

    /// Observations and global states in f32, whatever their storage.
    pub(super) fn observed(&self) -> Vec<f32> {
        if self.storage == Storage::F32 {
            return self.read(&self.observations);
        }
        let halves: Vec<half::f16> = self.gpu.read(&self.observations).unwrap();
        halves.into_iter().map(f32::from).collect()
    }

    pub(super) fn words(&self, buffer: &wgpu::Buffer) -> Vec<u32> {
        self.gpu.read(buffer).unwrap()
    }

    pub(super) fn state(&self) -> &wgpu::Buffer {
        let State::Device(state) = &self.recorded.state[0] else { panic!("expected device state") };
        state.buffer()
    }

    /// Mean episode return, its standard error, and the standard deviation of the returns; every environment has to have
    /// finished exactly one episode.
    pub(super) fn returns(&self) -> [f64; 3] {
        let episodes = self.read(&self.episodes);
        let ended: f32 = episodes[self.envs..2 * self.envs].iter().sum();
        assert_eq!(ended as usize, self.envs, "every environment finishes one episode");
        let returns: Vec<f64> = episodes[..self.envs].iter().map(|r| f64::from(*r)).collect();
        let n = self.envs as f64;
        let mean = returns.iter().sum::<f64>() / n;
        let variance = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0);
        [mean, (variance / n).sqrt(), variance.sqrt()]
    }
}
