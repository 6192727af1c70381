//! Rollouts of a [`CpuEnv`] on the device against the same simulators stepped by hand.

use half::f16;

use super::instance::EnvInstance;
use super::*;
use crate::env::{HostState, State};
use crate::gpu::{Recorder, STATE};
use crate::nn::Storage;
use crate::random::Stream;

mod faults;

const AGENTS: usize = 2;
const FEATURES: usize = 3;
const NUMBERS: usize = 5;
const LIMIT: u32 = 4;

/// Stores its seed and step count; terminates in the second step if the seed is a multiple of three.
#[derive(Default)]
struct Counter {
    seed: u64,
    taken: u32,
    faulty: bool,
    blind: bool,
    /// An observation of agent 0 in the second step.
    huge: Option<f32>,
    /// A mask that is written for agent 0.
    mask: Option<u32>,
    /// The method that panics.
    panics: &'static str,
}

impl Counter {
    fn observe(&self, observations: &mut [f32]) {
        for (number, value) in observations.iter_mut().enumerate() {
            // Exact in f16.
            *value = (self.seed % 8) as f32 + number as f32 * 0.125 + self.taken as f32 * 8.0;
        }
    }
}

impl Simulator for Counter {
    fn spec(&self) -> Spec {
        Spec { agents: AGENTS as u32, obs_dim: FEATURES as u32, actions: 3 }
    }

    fn time_limit(&self) -> Option<u32> {
        Some(LIMIT)
    }

    fn state_dim(&self) -> u32 {
        NUMBERS as u32
    }

    /// Leaves the last number at its default.
    fn state(&self, state: &mut [f32]) {
        for (number, value) in state[..NUMBERS - 1].iter_mut().enumerate() {
            *value = (self.seed % 16) as f32 * 4.0 - number as f32 - self.taken as f32 * 0.25;
        }
        if self.blind {
            state[2] = f32::INFINITY;
        }
    }

    fn reset(&mut self, seed: u64, observations: &mut [f32]) {
        assert!(self.panics != "reset", "no reset today");
        (self.seed, self.taken) = (seed, 0);
        self.observe(observations);
    }

    fn step(&mut self, actions: &[u32], observations: &mut [f32], rewards: &mut [f32]) -> Outcome {
        self.taken += 1;
        if self.panics == "step" && self.taken == 2 {
            std::panic::panic_any(format!("seed {} is unlucky", self.seed));
        }
        self.observe(observations);
        if let (2, Some(huge)) = (self.taken, self.huge) {
            observations[1] = huge;
        }
        for (agent, action) in actions.iter().enumerate() {
            rewards[agent] = *action as f32 - agent as f32 * 0.5;
        }
        if self.faulty && self.taken == 2 {
            rewards[1] = f32::NAN;
        }
        match (self.seed.is_multiple_of(3), self.taken) {
            (true, 2) => Outcome::Terminated,
            (_, LIMIT) => Outcome::Truncated,
            _ => Outcome::Continues,
        }
    }

    fn allowed(&self, masks: &mut [u32]) {
        masks[0] = self.mask.unwrap_or(masks[0]);
        masks[1] = if self.taken.is_multiple_of(2) { 0b101 } else { 0b10 };
    }

    fn save(&self) -> Option<Vec<u8>> {
        assert!(self.panics != "save", "nothing to save");
        Some([self.seed.to_le_bytes().as_slice(), &self.taken.to_le_bytes()].concat())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (seed, taken) = bytes.split_first_chunk().ok_or("too short")?;
        self.seed = u64::from_le_bytes(*seed);
        self.taken = u32::from_le_bytes(taken.try_into().map_err(|_| "too short")?);
        Ok(())
    }
}

const ENVS: usize = 8;
const STEPS: usize = 10;

struct Bench {
    gpu: Gpu,
    recorded: EnvRecording,
    buffers: [wgpu::Buffer; 5],
    recorder: Recorder,
    slots: usize,
    state_dim: usize,
}

impl Bench {
    fn new(cpu_env: &CpuEnv, storage: Storage) -> Self {
        Self::with_state(cpu_env, storage, NUMBERS)
    }

    /// With a global state of this size, or without one (0).
    fn with_state(cpu_env: &CpuEnv, storage: Storage, state_dim: usize) -> Self {
        let gpu = crate::testing::gpu();
        let slots = STEPS + 1 + cpu_env.truncations(STEPS as u32) as usize;
        let rows = AGENTS * ENVS;
        let stored = storage.precision().bytes();
        let words = [
            slots as u64 * (rows * FEATURES + ENVS * state_dim) as u64 * stored / 4,
            (STEPS * rows) as u64,
            (STEPS * rows) as u64,
            (STEPS * ENVS + (STEPS + 1) * rows) as u64,
            4 * ENVS as u64,
        ];
        let buffers = words.map(|words| gpu.buffer("rollout", words * 4, STATE).unwrap());
        let [observations, actions, rewards, dones_and_masks, episodes] = &buffers;
        let (envs, steps) = (ENVS as u32, STEPS as u32);
        let rollout = RolloutBuffers {
            envs,
            steps,
            seed: 11,
            storage,
            state_dim: state_dim as u32,
            first_state: (slots * rows * FEATURES) as u32,
            observations,
            actions,
            rewards,
            dones_and_masks,
            episodes,
        };
        let recorded = cpu_env.record(&gpu, &rollout).unwrap();
        let recorder = Recorder::new(&gpu);
        Self { recorded, buffers: buffers.clone(), recorder, gpu, slots, state_dim }
    }

    /// Observations and global states as f32.
    fn observations(&self, storage: Storage) -> Vec<f32> {
        match storage {
            Storage::F32 => self.gpu.read(&self.buffers[0]).unwrap(),
            _ => {
                let halves: Vec<u16> = self.gpu.read(&self.buffers[0]).unwrap();
                halves.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect()
            }
        }
    }

    fn roll(&mut self, actions: &[u32]) -> Result<()> {
        self.gpu.write(&self.buffers[1], 0, bytemuck::cast_slice(actions))?;
        self.recorded.steps.iter().try_for_each(|step| self.recorder.encode(step))
    }

    fn state(&self) -> &Arc<dyn HostState> {
        let State::Host(state) = &self.recorded.state[0] else { panic!("expected CPU state") };
        state
    }
}

fn random_actions(seed: u64) -> Vec<u32> {
    let mut stream = Stream::new(seed, 3);
    (0..STEPS * AGENTS * ENVS).map(|_| (stream.uniform() * 3.0) as u32).collect()
}

#[test]
fn rollouts_match_simulators_stepped_by_hand() {
    let cpu_env = CpuEnv::new("counter", Counter::default);
    let all = [(Storage::F32, NUMBERS), (Storage::Packed, NUMBERS), (Storage::F32, 0)];
    for (storage, state_dim) in all {
        let mut bench = Bench::with_state(&cpu_env, storage, state_dim);
        bench.recorder.run(&bench.recorded.reset).unwrap();
        let mut by_hand: Vec<EnvInstance> =
            (0..ENVS).map(|_| EnvInstance::new(Box::new(Counter::default()), &cpu_env.spec, 0)).collect();
        for (env, instance) in by_hand.iter_mut().enumerate() {
            instance.begin(11, env);
        }
        let (mut terminated, mut truncated) = (0, 0);
        for rollout in 0..3 {
            let actions = random_actions(rollout);
            bench.roll(&actions).unwrap();
            let [_, _, rewards, dones_and_masks, episodes] = &bench.buffers;
            let seen = bench.observations(storage);
            let first_state = bench.slots * AGENTS * FEATURES * ENVS;
            assert_eq!(seen.len(), first_state + bench.slots * state_dim * ENVS);
            let rewards: Vec<f32> = bench.gpu.read(rewards).unwrap();
            let dones_and_masks: Vec<u32> = bench.gpu.read(dones_and_masks).unwrap();
            let ended: Vec<f32> = bench.gpu.read(episodes).unwrap();
            for (env, instance) in by_hand.iter_mut().enumerate() {
                let slot = |slot: usize| -> Vec<f32> {
                    (0..AGENTS * FEATURES)
                        .map(|i| seen[(slot * AGENTS * FEATURES + i) * ENVS + env])
                        .collect()
                };
                let shown = |slot: usize| -> Vec<f32> {
                    (0..state_dim).map(|i| seen[first_state + (slot * state_dim + i) * ENVS + env]).collect()
                };
                let now = |instance: &EnvInstance| -> Vec<f32> {
                    let mut state = vec![0.0; NUMBERS];
                    instance.simulator.state(&mut state);
                    state[..state_dim].to_vec()
                };
                let mut sums = [0f32; 4];
                let mut cut = 0;
                for step in 0..STEPS {
                    let own: Vec<u32> =
                        (0..AGENTS).map(|a| actions[(step * AGENTS + a) * ENVS + env]).collect();
                    let mut last = vec![0.0; AGENTS * FEATURES];
                    let outcome = instance.simulator.step(&own, &mut last, &mut instance.rewards);
                    instance.taken += 1;
                    instance.total += f64::from(instance.rewards.iter().sum::<f32>()) / AGENTS as f64;
                    let end = match outcome {
                        Outcome::Continues => 0,
                        Outcome::Terminated => 1,
                        Outcome::Truncated => {
                            cut += 1;
                            assert_eq!(
                                slot(STEPS + cut),
                                last,
                                "the final observation of a truncated episode"
                            );
                            assert_eq!(
                                shown(STEPS + cut),
                                now(instance),
                                "the final state of a truncated episode"
                            );
                            1 + cut as u32
                        }
                    };
                    assert_eq!(dones_and_masks[step * ENVS + env], end, "environment {env}, step {step}");
                    if outcome == Outcome::Continues {
                        instance.observations = last;
                    } else {
                        let ends = f32::from(u8::from(outcome == Outcome::Terminated));
                        let own = [instance.total as f32, 1.0, instance.taken as f32, ends];
                        sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
                        terminated += usize::from(outcome == Outcome::Terminated);
                        truncated += usize::from(outcome == Outcome::Truncated);
                        instance.begin(11, env);
                    }
                    assert_eq!(slot(step + 1), instance.observations, "environment {env}, step {step}");
                    assert_eq!(shown(step + 1), now(instance), "environment {env}, step {step}");
                    let mut masks = [0b111; AGENTS];
                    instance.simulator.allowed(&mut masks);
                    for agent in 0..AGENTS {
                        assert_eq!(rewards[(step * AGENTS + agent) * ENVS + env], instance.rewards[agent]);
                        let at = STEPS * ENVS + ((step + 1) * AGENTS + agent) * ENVS + env;
                        assert_eq!(dones_and_masks[at], masks[agent]);
                    }
                }
                let found: Vec<f32> = (0..4).map(|i| ended[i * ENVS + env]).collect();
                assert_eq!(found, sums, "environment {env}");
            }
        }
        assert!(terminated > 5 && truncated > 5, "{terminated} terminated, {truncated} truncated");
    }
}

#[test]
fn a_restored_environment_continues_identically() {
    let cpu_env = CpuEnv::new("counter", Counter::default);
    let mut whole = Bench::new(&cpu_env, Storage::F32);
    whole.recorder.run(&whole.recorded.reset).unwrap();
    whole.roll(&random_actions(1)).unwrap();
    let saved = whole.state().save().unwrap();
    whole.roll(&random_actions(2)).unwrap();
    let mut parts = Bench::new(&cpu_env, Storage::F32);
    for length in [0, 7, saved.len() / 2, saved.len() - 1] {
        assert!(parts.state().load(&saved[..length]).is_err());
    }
    assert!(parts.state().load(&[saved.clone(), vec![0]].concat()).is_err());
    let restore = parts.state().load(&saved).unwrap();
    restore();
    parts.roll(&random_actions(2)).unwrap();
    let last = |bench: &Bench| -> Vec<u32> {
        let buffers = [0, 2, 3, 4].map(|i| bench.gpu.read::<u32>(&bench.buffers[i]).unwrap());
        // Slot 0 and its masks belong to the rollout before.
        let first_state = bench.slots * AGENTS * FEATURES * ENVS;
        let mut observations = buffers[0][AGENTS * FEATURES * ENVS..].to_vec();
        let first = first_state - AGENTS * FEATURES * ENVS;
        observations.drain(first..first + bench.state_dim * ENVS);
        let masks = buffers[2][STEPS * ENVS + AGENTS * ENVS..].to_vec();
        [observations, buffers[1].clone(), buffers[2][..STEPS * ENVS].to_vec(), masks, buffers[3].clone()]
            .concat()
    };
    assert!(last(&whole) == last(&parts));
}

#[test]
fn non_finite_numbers_are_named() {
    let cpu_env = CpuEnv::new("faulty", || Counter { faulty: true, ..Counter::default() });
    let mut bench = Bench::new(&cpu_env, Storage::F32);
    bench.recorder.run(&bench.recorded.reset).unwrap();
    let error = bench.roll(&random_actions(1)).unwrap_err().to_string();
    assert!(error.contains("environment 0: reward of agent 1 is NaN (episode 1, step 2)"), "{error}");
    // Finite, but its square is not; and finite, but not in f16.
    let make = || Counter { huge: Some(-1e30), ..Counter::default() };
    let error = error_of(make);
    assert!(error.contains("environment 0: observation 1 is -1e30, which is too large: scale it"), "{error}");
    let mut bench = Bench::new(
        &CpuEnv::new("large", || Counter { huge: Some(70_000.0), ..Counter::default() }),
        Storage::Packed,
    );
    bench.recorder.run(&bench.recorded.reset).unwrap();
    let error = bench.roll(&random_actions(1)).unwrap_err().to_string();
    assert!(error.contains("observation 1 is 7e4, which is too large"), "{error}");
    let cpu_env = CpuEnv::new("blind", || Counter { blind: true, ..Counter::default() });
    let mut bench = Bench::new(&cpu_env, Storage::F32);
    let error = bench.recorder.run(&bench.recorded.reset).unwrap_err().to_string();
    assert!(error.contains("environment 0: global state 2 is inf"), "{error}");
}

/// The error of a rollout of `simulator`, after a reset.
fn error_of(make: impl Fn() -> Counter + Send + Sync + 'static) -> String {
    let mut bench = Bench::new(&CpuEnv::new("counter", make), Storage::F32);
    let reset = bench.recorder.run(&bench.recorded.reset);
    reset.and_then(|_| bench.roll(&random_actions(1))).unwrap_err().to_string()
}
