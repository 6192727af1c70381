//! All copies of a simulator, connected to the buffers of one trainer: each step downloads the actions, steps the copies in
//! parallel, and uploads their results, laid out as in [`RolloutBuffers`].

use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use rayon::prelude::*;

use super::instance::EnvInstance;
use super::{CpuEnv, Outcome, caught};
use crate::env::{EnvRecording, Environment, HostState, RolloutBuffers, Spec, State};
use crate::gpu::{Command, Gpu, HostWork, Readback, Recorder, STATE};
use crate::nn::{Precision, Storage};
use crate::{Error, Result};

/// Creates one copy per environment of the rollout and records their steps.
pub(super) fn record(cpu_env: &CpuEnv, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
    let bytes = u64::from(rollout.envs) * u64::from(cpu_env.words()) * 4;
    let actions = gpu.buffer("actions for the CPU", bytes.max(16), STATE)?;
    let truncations = cpu_env.truncations(rollout.steps) as usize;
    let slots = |numbers: u32| vec![0.0; truncations * (numbers * rollout.envs) as usize];
    let instances = (0..rollout.envs as usize)
        .map(|env| Ok(EnvInstance::new(cpu_env.copy(env)?, &cpu_env.spec, rollout.state_dim)))
        .collect::<Result<_>>()?;
    let pool = Pool {
        spec: cpu_env.spec,
        // Continuous actions have a mask of one bit a number, and no choices.
        choices: if cpu_env.continuous { vec![cpu_env.spec.actions] } else { cpu_env.choices.clone() },
        cpu_env: cpu_env.clone(),
        envs: rollout.envs as usize,
        steps: rollout.steps as usize,
        truncations,
        state_dim: rollout.state_dim,
        first_state: u64::from(rollout.first_state),
        seed: rollout.seed,
        storage: rollout.storage,
        observations: rollout.observations.clone(),
        rewards: rollout.rewards.clone(),
        dones_and_masks: rollout.dones_and_masks.clone(),
        episodes: rollout.episodes.clone(),
        progress: Mutex::new(Progress {
            instances,
            readback: Readback::new(gpu, bytes.max(16), 1)?,
            episodes: vec![0.0; 4 * rollout.envs as usize],
            truncated: vec![0; rollout.envs as usize],
            final_observations: slots(cpu_env.spec.agents * cpu_env.spec.obs_dim),
            final_states: slots(rollout.state_dim),
        }),
        actions: actions.clone(),
    };
    let pool = Arc::new(pool);
    let steps = (0..rollout.steps).map(|step| {
        vec![
            Command::Copy {
                source: rollout.actions.clone(),
                source_offset: u64::from(step) * bytes,
                target: actions.clone(),
                target_offset: 0,
                bytes,
            },
            Command::Host(Arc::new(Work { pool: pool.clone(), step: Some(step as usize) })),
        ]
    });
    Ok(EnvRecording {
        steps: steps.collect(),
        reset: vec![Command::Host(Arc::new(Work { pool: pool.clone(), step: None }))],
        state: vec![State::Host(pool)],
    })
}

/// All copies and the buffers of one trainer.
struct Pool {
    spec: Spec,
    choices: Vec<u32>,
    cpu_env: CpuEnv,
    envs: usize,
    steps: usize,
    truncations: usize,
    state_dim: u32,
    first_state: u64,
    seed: u64,
    storage: Storage,
    observations: wgpu::Buffer,
    rewards: wgpu::Buffer,
    dones_and_masks: wgpu::Buffer,
    episodes: wgpu::Buffer,
    /// Actions of one step, to be read back.
    actions: wgpu::Buffer,
    progress: Mutex<Progress>,
}

/// Everything that changes from step to step.
struct Progress {
    instances: Vec<EnvInstance>,
    readback: Readback,
    /// [`RolloutBuffers::episodes`] of this rollout.
    episodes: Vec<f32>,
    /// Number of episodes truncated in this rollout, per environment.
    truncated: Vec<u32>,
    /// Final observations of truncated episodes, `[k][agent][feature][env]`.
    final_observations: Vec<f32>,
    /// Final global states of truncated episodes, `[k][number][env]`.
    final_states: Vec<f32>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("envs", &self.envs).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Work {
    pool: Arc<Pool>,
    /// `None` resets all environments.
    step: Option<usize>,
}

impl HostWork for Work {
    fn run(&self, recorder: &mut Recorder) -> Result<()> {
        let mut progress = self.pool.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match self.step {
            None => self.pool.reset(recorder.gpu(), &mut progress),
            Some(step) => self.pool.step(recorder, &mut progress, step),
        }
    }
}

impl Pool {
    fn reset(&self, gpu: &Gpu, progress: &mut Progress) -> Result<()> {
        // A simulator that panicked is in no defined state.
        for (env, instance) in progress.instances.iter_mut().enumerate() {
            if instance.panicked() {
                *instance = EnvInstance::new(self.cpu_env.copy(env)?, &self.spec, self.state_dim);
            }
        }
        let (seed, choices) = (self.seed, &self.choices);
        progress.instances.par_iter_mut().enumerate().for_each(|(env, instance)| {
            instance.run(|instance| {
                instance.episode = 0;
                instance.begin(seed, env);
                instance.update_masks(choices);
            });
        });
        progress.episodes.fill(0.0);
        progress.truncated.fill(0);
        self.check(progress)?;
        self.write_observations(gpu, progress, 0)?;
        self.write_masks(gpu, progress, 0)
    }

    fn step(&self, recorder: &mut Recorder, progress: &mut Progress, step: usize) -> Result<()> {
        recorder.submit_with_readback(&self.actions, &mut progress.readback)?;
        let gpu = recorder.gpu().clone();
        let actions: Vec<u32> = progress.readback.take(&gpu)?.ok_or_else(|| Error::Gpu {
            action: "reading the actions of a step".into(),
            reason: "no readback is pending".into(),
        })?;
        let (envs, agents) = (self.envs, self.spec.agents as usize);
        let (seed, choices, words) = (self.seed, &self.choices, actions.len() / envs);
        progress.instances.par_iter_mut().enumerate().for_each(|(env, instance)| {
            let actions: Vec<u32> = (0..words).map(|word| actions[word * envs + env]).collect();
            instance.run(|instance| instance.step(&actions, seed, env, choices));
        });
        self.check(progress)?;
        if step == 0 {
            progress.truncated.fill(0);
            progress.final_observations.fill(0.0);
            progress.final_states.fill(0.0);
        }
        let mut ends = vec![0u32; envs];
        let Progress { instances, episodes, truncated, final_observations, final_states, .. } =
            &mut *progress;
        for (env, instance) in instances.iter().enumerate() {
            let Some((total, taken)) = instance.finished else { continue };
            let terminated = instance.outcome == Outcome::Terminated;
            ends[env] = 1;
            if !terminated {
                if self.truncations == 0 {
                    return Err(Error::Data(format!(
                        "environment {env} returned `Outcome::Truncated`, but `Simulator::time_limit` is `None`: let it return the \
                         smallest number of steps after which an episode may be truncated"
                    )));
                }
                if truncated[env] as usize >= self.truncations {
                    return Err(Error::Data(format!(
                        "environment {env} was truncated more often than its time limit allows: \
                         `Simulator::time_limit` must be the shortest truncated episode"
                    )));
                }
                ends[env] = 2 + truncated[env];
                for (slots, values) in [
                    (&mut *final_observations, &instance.final_observations),
                    (&mut *final_states, &instance.final_state),
                ] {
                    let first = truncated[env] as usize * values.len();
                    for (number, value) in values.iter().enumerate() {
                        slots[(first + number) * envs + env] = *value;
                    }
                }
                truncated[env] += 1;
            }
            let sums = [total as f32, 1.0, taken as f32, f32::from(u8::from(terminated))];
            sums.iter().enumerate().for_each(|(i, sum)| episodes[i * envs + env] += sum);
        }
        let at = |row: usize| (row * envs * 4) as u64;
        gpu.write(&self.dones_and_masks, at(step), bytemuck::cast_slice(&ends))?;
        let rewards: Vec<f32> =
            (0..agents * envs).map(|i| progress.instances[i % envs].rewards[i / envs]).collect();
        gpu.write(&self.rewards, at(step * agents), bytemuck::cast_slice(&rewards))?;
        self.write_observations(&gpu, progress, step + 1)?;
        self.write_masks(&gpu, progress, step + 1)?;
        if step + 1 == self.steps {
            gpu.write(&self.episodes, 0, bytemuck::cast_slice(&progress.episodes))?;
            progress.episodes.fill(0.0);
            self.write(&gpu, self.steps + 1, [&progress.final_observations, &progress.final_states])?;
        }
        Ok(())
    }

    /// Checks what the simulators returned in their last step.
    fn check(&self, progress: &Progress) -> Result<()> {
        let fault = progress
            .instances
            .iter()
            .enumerate()
            .find_map(|(env, instance)| Some((env, instance.fault(self.storage.precision())?)));
        fault.map_or(Ok(()), |(env, fault)| Err(Error::Data(format!("environment {env}: {fault}"))))
    }

    /// Writes observations and global states from a slot on.
    fn write(&self, gpu: &Gpu, slot: usize, [observations, states]: [&[f32]; 2]) -> Result<()> {
        let at = |numbers: u32| slot as u64 * u64::from(numbers) * self.envs as u64;
        let stored = self.storage.precision().bytes();
        let first = at(self.spec.agents * self.spec.obs_dim);
        gpu.write(&self.observations, first * stored, &self.stored(observations))?;
        if states.is_empty() {
            return Ok(());
        }
        let first = self.first_state + at(self.state_dim);
        gpu.write(&self.observations, first * stored, &self.stored(states))
    }

    /// Converts to the storage type.
    fn stored(&self, values: &[f32]) -> Vec<u8> {
        match self.storage.precision() {
            Precision::F32 => bytemuck::cast_slice(values).to_vec(),
            Precision::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        }
    }

    /// Writes the observations and global states of all environments to a slot, environment fastest.
    fn write_observations(&self, gpu: &Gpu, progress: &Progress, slot: usize) -> Result<()> {
        let (envs, instances) = (self.envs, &progress.instances);
        let all = |numbers: u32| 0..numbers as usize * envs;
        let observations: Vec<f32> = all(self.spec.agents * self.spec.obs_dim)
            .map(|i| instances[i % envs].observations[i / envs])
            .collect();
        let states: Vec<f32> = all(self.state_dim).map(|i| instances[i % envs].state[i / envs]).collect();
        self.write(gpu, slot, [&observations, &states])
    }

    /// Writes the action masks of all environments to a slot.
    fn write_masks(&self, gpu: &Gpu, progress: &Progress, slot: usize) -> Result<()> {
        let (envs, agents) = (self.envs, self.spec.agents as usize);
        let masks: Vec<u32> =
            (0..agents * envs).map(|i| progress.instances[i % envs].masks[i / envs]).collect();
        let first = self.steps * envs + slot * agents * envs;
        gpu.write(&self.dones_and_masks, first as u64 * 4, bytemuck::cast_slice(&masks))
    }
}

fn panicked(env: usize, message: &str) -> Error {
    Error::Data(format!("environment {env}: the simulator panicked: {message}"))
}

impl HostState for Pool {
    fn save(&self) -> Result<Vec<u8>> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::new();
        for (env, instance) in progress.instances.iter().enumerate() {
            if let Some(fault) = instance.fault(self.storage.precision()) {
                return Err(Error::Data(format!("environment {env}: {fault}")));
            }
            let saved = caught(|| instance.save(&mut bytes)).map_err(|message| panicked(env, &message))?;
            saved.ok_or_else(|| {
                Error::Data("this environment cannot be saved: implement `Simulator::save`".into())
            })?;
        }
        Ok(bytes)
    }

    fn load<'a>(&'a self, mut bytes: &[u8]) -> Result<Box<dyn FnOnce() + 'a>> {
        let mut instances = Vec::new();
        for env in 0..self.envs {
            let mut instance = EnvInstance::new(self.cpu_env.copy(env)?, &self.spec, self.state_dim);
            caught(|| instance.load(&mut bytes))
                .map_err(|message| panicked(env, &message))?
                .map_err(|reason| Error::Data(format!("environment {env}: {reason}")))?;
            instances.push(instance);
        }
        if !bytes.is_empty() {
            let (envs, rest) = (self.envs, bytes.len());
            return Err(Error::Data(format!(
                "{rest} bytes follow the last of {envs} environments: the state was saved with more environments"
            )));
        }
        Ok(Box::new(move || {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.instances = instances;
            progress.episodes.fill(0.0);
            progress.truncated.fill(0);
        }))
    }
}
