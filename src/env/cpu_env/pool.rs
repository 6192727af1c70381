//! All copies of a simulator on the buffers of one trainer: actions come down, the copies move side by side, and what they say
//! goes up, laid out as in [`RolloutBuffers`].

use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use rayon::prelude::*;

use super::instance::EnvInstance;
use super::{CpuEnv, Make, Outcome};
use crate::env::{EnvRecording, Environment, HostState, RolloutBuffers, Spec, State};
use crate::gpu::{Command, Gpu, HostWork, Readback, Recorder, STATE};
use crate::nn::{Precision, Storage};
use crate::{Error, Result};

/// Copies for every environment of the rollout, and what moves them.
pub(super) fn record(host: &CpuEnv, gpu: &Gpu, rollout: &RolloutBuffers<'_>) -> Result<EnvRecording> {
    let bytes = u64::from(rollout.envs) * u64::from(host.words()) * 4;
    let down = gpu.buffer("actions for the host", bytes.max(16), STATE)?;
    let truncations = host.truncations(rollout.steps) as usize;
    let room = |numbers: u32| vec![0.0; truncations * (numbers * rollout.envs) as usize];
    let lanes =
        (0..rollout.envs).map(|_| EnvInstance::new((host.make)(), &host.spec, rollout.state_dim)).collect();
    let pool = Pool {
        spec: host.spec,
        make: host.make.clone(),
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
        moving: Mutex::new(Moving {
            lanes,
            readback: Readback::new(gpu, bytes.max(16), 1)?,
            ended: vec![0.0; 4 * rollout.envs as usize],
            cut: vec![0; rollout.envs as usize],
            lasts: room(host.spec.agents * host.spec.obs_dim),
            last_states: room(rollout.state_dim),
        }),
        down: down.clone(),
    };
    let pool = Arc::new(pool);
    let steps = (0..rollout.steps).map(|step| {
        vec![
            Command::Copy {
                source: rollout.actions.clone(),
                source_offset: u64::from(step) * bytes,
                target: down.clone(),
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

/// All copies, on the buffers of one trainer.
struct Pool {
    spec: Spec,
    make: Make,
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
    down: wgpu::Buffer,
    moving: Mutex<Moving>,
}

struct Moving {
    lanes: Vec<EnvInstance>,
    readback: Readback,
    /// As [`RolloutBuffers::episodes`], of this rollout.
    ended: Vec<f32>,
    /// Episodes truncated in this rollout, of every environment.
    cut: Vec<u32>,
    /// Their last observations and states, as they go into the slots after the rollout's.
    lasts: Vec<f32>,
    last_states: Vec<f32>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("envs", &self.envs).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Work {
    pool: Arc<Pool>,
    /// `None` starts afresh.
    step: Option<usize>,
}

impl HostWork for Work {
    fn run(&self, recorder: &mut Recorder) -> Result<()> {
        let mut moving = self.pool.moving.lock().unwrap_or_else(PoisonError::into_inner);
        match self.step {
            None => self.pool.reset(recorder.gpu(), &mut moving),
            Some(step) => self.pool.step(recorder, &mut moving, step),
        }
    }
}

impl Pool {
    fn reset(&self, gpu: &Gpu, moving: &mut Moving) -> Result<()> {
        let (seed, actions) = (self.seed, self.spec.actions);
        moving.lanes.par_iter_mut().enumerate().for_each(|(env, lane)| {
            lane.episode = 0;
            lane.begin(seed, env);
            lane.allow(actions);
        });
        moving.ended.fill(0.0);
        moving.cut.fill(0);
        self.check(moving)?;
        self.show(gpu, moving, 0)?;
        self.allow(gpu, moving, 0)
    }

    fn step(&self, recorder: &mut Recorder, moving: &mut Moving, step: usize) -> Result<()> {
        recorder.submit_with_readback(&self.down, &mut moving.readback)?;
        let gpu = recorder.gpu().clone();
        let actions: Vec<u32> = moving.readback.take(&gpu)?.ok_or_else(|| Error::Gpu {
            action: "reading the actions of a step".into(),
            reason: "no readback was under way".into(),
        })?;
        let (envs, agents) = (self.envs, self.spec.agents as usize);
        let (seed, spec, words) = (self.seed, self.spec, actions.len() / envs);
        moving.lanes.par_iter_mut().enumerate().for_each(|(env, lane)| {
            let own: Vec<u32> = (0..words).map(|word| actions[word * envs + env]).collect();
            lane.step(&own, seed, env, &spec);
        });
        self.check(moving)?;
        if step == 0 {
            moving.cut.fill(0);
            moving.lasts.fill(0.0);
            moving.last_states.fill(0.0);
        }
        let mut ends = vec![0u32; envs];
        let Moving { lanes, ended, cut, lasts, last_states, .. } = &mut *moving;
        for (env, lane) in lanes.iter().enumerate() {
            let Some((total, taken)) = lane.finished else { continue };
            let terminated = lane.outcome == Outcome::Terminated;
            ends[env] = 1;
            if !terminated {
                if cut[env] as usize >= self.truncations {
                    let text = "was truncated more often than its time limit allows";
                    return Err(Error::Data(format!("environment {env} {text}")));
                }
                ends[env] = 2 + cut[env];
                for (slots, last) in [(&mut *lasts, &lane.last), (&mut *last_states, &lane.last_state)] {
                    let first = cut[env] as usize * last.len();
                    for (number, value) in last.iter().enumerate() {
                        slots[(first + number) * envs + env] = *value;
                    }
                }
                cut[env] += 1;
            }
            let sums = [total as f32, 1.0, taken as f32, f32::from(u8::from(terminated))];
            sums.iter().enumerate().for_each(|(i, sum)| ended[i * envs + env] += sum);
        }
        let at = |row: usize| (row * envs * 4) as u64;
        gpu.write(&self.dones_and_masks, at(step), bytemuck::cast_slice(&ends))?;
        let rewards: Vec<f32> =
            (0..agents * envs).map(|i| moving.lanes[i % envs].rewards[i / envs]).collect();
        gpu.write(&self.rewards, at(step * agents), bytemuck::cast_slice(&rewards))?;
        self.show(&gpu, moving, step + 1)?;
        self.allow(&gpu, moving, step + 1)?;
        if step + 1 == self.steps {
            gpu.write(&self.episodes, 0, bytemuck::cast_slice(&moving.ended))?;
            moving.ended.fill(0.0);
            self.write(&gpu, self.steps + 1, [&moving.lasts, &moving.last_states])?;
        }
        Ok(())
    }

    fn check(&self, moving: &Moving) -> Result<()> {
        let fault = moving
            .lanes
            .iter()
            .enumerate()
            .find_map(|(env, lane)| Some((env, lane.fault(self.storage.precision())?)));
        fault.map_or(Ok(()), |(env, fault)| Err(Error::Data(format!("environment {env}: {fault}"))))
    }

    /// Writes observations and states from a slot on.
    fn write(&self, gpu: &Gpu, slot: usize, [seen, states]: [&[f32]; 2]) -> Result<()> {
        let at = |numbers: u32| slot as u64 * u64::from(numbers) * self.envs as u64;
        let stored = self.storage.precision().bytes();
        let first = at(self.spec.agents * self.spec.obs_dim);
        gpu.write(&self.observations, first * stored, &self.stored(seen))?;
        if states.is_empty() {
            return Ok(());
        }
        let first = self.first_state + at(self.state_dim);
        gpu.write(&self.observations, first * stored, &self.stored(states))
    }

    fn stored(&self, values: &[f32]) -> Vec<u8> {
        match self.storage.precision() {
            Precision::F32 => bytemuck::cast_slice(values).to_vec(),
            Precision::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        }
    }

    /// Writes what all see into a slot, environment fastest.
    fn show(&self, gpu: &Gpu, moving: &Moving, slot: usize) -> Result<()> {
        let (envs, lanes) = (self.envs, &moving.lanes);
        let all = |numbers: u32| 0..numbers as usize * envs;
        let seen: Vec<f32> =
            all(self.spec.agents * self.spec.obs_dim).map(|i| lanes[i % envs].seen[i / envs]).collect();
        let states: Vec<f32> = all(self.state_dim).map(|i| lanes[i % envs].state[i / envs]).collect();
        self.write(gpu, slot, [&seen, &states])
    }

    fn allow(&self, gpu: &Gpu, moving: &Moving, slot: usize) -> Result<()> {
        let (envs, agents) = (self.envs, self.spec.agents as usize);
        let masks: Vec<u32> = (0..agents * envs).map(|i| moving.lanes[i % envs].masks[i / envs]).collect();
        let first = self.steps * envs + slot * agents * envs;
        gpu.write(&self.dones_and_masks, first as u64 * 4, bytemuck::cast_slice(&masks))
    }
}

impl HostState for Pool {
    fn save(&self) -> Result<Vec<u8>> {
        let moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::new();
        for lane in &moving.lanes {
            lane.save(&mut bytes).ok_or_else(|| {
                Error::Data("this environment cannot be saved: it has no `Simulator::save`".into())
            })?;
        }
        Ok(bytes)
    }

    fn load<'a>(&'a self, mut bytes: &[u8]) -> Result<Box<dyn FnOnce() + 'a>> {
        let mut lanes = Vec::new();
        for env in 0..self.envs {
            let mut lane = EnvInstance::new((self.make)(), &self.spec, self.state_dim);
            lane.load(&mut bytes).map_err(|reason| Error::Data(format!("environment {env}: {reason}")))?;
            lanes.push(lane);
        }
        if !bytes.is_empty() {
            let (envs, rest) = (self.envs, bytes.len());
            return Err(Error::Data(format!(
                "{rest} bytes follow the last of {envs} environments: the state was saved by more of them"
            )));
        }
        Ok(Box::new(move || {
            let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
            moving.lanes = lanes;
            moving.ended.fill(0.0);
            moving.cut.fill(0);
        }))
    }
}
