//! Environments in ordinary Rust: the user's own simulator, many copies of it stepped side by side on the processor's threads.
//!
//! The networks stay on the device. Every step the actions come down, the simulators move, and observations, rewards and ends
//! go up: one exchange a step. How to write one: `docs/environments.md`.

use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use rayon::prelude::*;

use super::{Attached, Environment, HostState, Seat, Spec, State};
use crate::gpu::{Command, Gpu, HostWork, Plan, Readback, Recorder, STATE};
use crate::nn::{Precision, Storage};
use crate::random::threefry;
use crate::{Error, Result};

/// How a step left the episode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    #[default]
    Continues,
    /// It has come to an end of its own: nothing is to be gained any more.
    Terminated,
    /// It was cut off, at a time limit for instance; it could have gone on.
    Truncated,
}

/// One copy of an environment. Copies share nothing and are stepped on different threads.
pub trait Simulator: Send {
    /// Agents, features and actions; the same at all times and for all copies.
    fn spec(&self) -> Spec;

    /// Whether actions are real numbers, `spec().actions` of them an agent ([`Environment::continuous`]); no, if left alone.
    fn continuous(&self) -> bool {
        false
    }

    /// Sizes of the choices that an action consists of ([`Environment::choices`]); one choice, if left alone.
    fn choices(&self) -> Vec<u32> {
        vec![self.spec().actions]
    }

    /// The fewest steps after which an episode may be truncated; `None`: none ever is. Room for last observations is planned
    /// by it.
    fn time_limit(&self) -> Option<u32> {
        None
    }

    /// Numbers of a state that [`Simulator::state`] writes for the critics ([`Environment::state_dim`]); none, if left alone.
    fn state_dim(&self) -> u32 {
        0
    }

    /// Begins an episode with the random numbers that follow from `seed`, and writes what is seen first,
    /// `[agent][feature]`, which comes filled with 0.
    fn reset(&mut self, seed: u64, seen: &mut [f32]);

    /// Moves one step with an action for every agent; of real numbers with all of every agent's, `[agent][number]`, as bits
    /// (`f32::from_bits`), squashed ones after their tanh. Writes what is seen then, `[agent][feature]`, and every agent's
    /// reward; both come filled with 0. After an end, `seen` is the last of the episode; [`Simulator::reset`] follows.
    fn step(&mut self, actions: &[u32], seen: &mut [f32], rewards: &mut [f32]) -> Outcome;

    /// Which actions every agent may take next, a bit each; all, if left alone. An agent that may take none is not active: it is
    /// given action 0, and what it sees and does is not learnt from.
    fn allowed(&self, masks: &mut [u32]) {
        let _ = masks;
    }

    /// Writes the state as it is, [`Simulator::state_dim`] numbers, which come filled with 0. Asked for after every reset and
    /// every step, also the last of an episode, if critics see it; agents never do.
    fn state(&self, state: &mut [f32]) {
        let _ = state;
    }

    /// All that [`Simulator::load`] needs to go on from here; `None` if training cannot be saved.
    fn save(&self) -> Option<Vec<u8>> {
        None
    }

    /// Goes on from what [`Simulator::save`] returned.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let _ = bytes;
        Err("this environment cannot be saved".into())
    }
}

type Make = Arc<dyn Fn() -> Box<dyn Simulator> + Send + Sync>;

/// Copies of a [`Simulator`] as an environment to train in.
#[derive(Clone)]
pub struct Host {
    make: Make,
    spec: Spec,
    choices: Vec<u32>,
    continuous: bool,
    limit: Option<u32>,
    state_dim: u32,
    name: String,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.name).field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Host {
    /// An environment whose copies `make` makes. The name tells it from others in checkpoints.
    pub fn new<S: Simulator + 'static>(name: &str, make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        let one = make();
        let (spec, choices, limit) = (one.spec(), one.choices(), one.time_limit());
        let (continuous, state_dim) = (one.continuous(), one.state_dim());
        let make: Make = Arc::new(move || Box::new(make()));
        let limit = limit.map(|steps| steps.max(1));
        Self { make, spec, choices, continuous, limit, state_dim, name: name.into() }
    }
}

impl Host {
    /// Words of all agents' actions.
    fn words(&self) -> u32 {
        self.spec.agents * if self.continuous { self.spec.actions } else { 1 }
    }
}

impl Environment for Host {
    fn spec(&self) -> Spec {
        self.spec
    }

    fn choices(&self) -> Vec<u32> {
        self.choices.clone()
    }

    fn continuous(&self) -> bool {
        self.continuous
    }

    fn state_dim(&self) -> u32 {
        self.state_dim
    }

    fn identity(&self) -> String {
        format!("host environment {}", self.name)
    }

    fn truncations(&self, steps: u32) -> u32 {
        self.limit.map_or(0, |limit| steps.div_ceil(limit))
    }

    fn plan(&self, envs: u32, _: u32) -> Plan {
        let mut plan = Plan::new();
        let actions = u64::from(envs) * u64::from(self.words());
        plan.words("actions for the host", actions);
        plan.words("actions on their way to the host", actions);
        plan
    }

    fn attach(&self, gpu: &Gpu, seat: &Seat<'_>) -> Result<Attached> {
        let bytes = u64::from(seat.envs) * u64::from(self.words()) * 4;
        let down = gpu.buffer("actions for the host", bytes.max(16), STATE)?;
        let truncations = self.truncations(seat.steps) as usize;
        let room = |numbers: u32| vec![0.0; truncations * (numbers * seat.envs) as usize];
        let lanes = (0..seat.envs).map(|_| Lane::new((self.make)(), &self.spec, seat.state_dim)).collect();
        let pool = Pool {
            spec: self.spec,
            make: self.make.clone(),
            envs: seat.envs as usize,
            steps: seat.steps as usize,
            truncations,
            state_dim: seat.state_dim,
            first_state: u64::from(seat.first_state),
            seed: seat.seed,
            storage: seat.storage,
            observations: seat.observations.clone(),
            rewards: seat.rewards.clone(),
            signals: seat.signals.clone(),
            episodes: seat.episodes.clone(),
            moving: Mutex::new(Moving {
                lanes,
                readback: Readback::new(gpu, bytes.max(16), 1)?,
                ended: vec![0.0; 4 * seat.envs as usize],
                cut: vec![0; seat.envs as usize],
                lasts: room(self.spec.agents * self.spec.obs_dim),
                last_states: room(seat.state_dim),
            }),
            down: down.clone(),
        };
        let pool = Arc::new(pool);
        let steps = (0..seat.steps).map(|step| {
            vec![
                Command::Copy {
                    source: seat.actions.clone(),
                    source_offset: u64::from(step) * bytes,
                    target: down.clone(),
                    target_offset: 0,
                    bytes,
                },
                Command::Host(Arc::new(Work { pool: pool.clone(), step: Some(step as usize) })),
            ]
        });
        Ok(Attached {
            steps: steps.collect(),
            reset: vec![Command::Host(Arc::new(Work { pool: pool.clone(), step: None }))],
            state: vec![State::Host(pool)],
        })
    }
}

/// One copy and what it last said.
struct Lane {
    simulator: Box<dyn Simulator>,
    seen: Vec<f32>,
    /// The last observation of an episode that ended in this step.
    last: Vec<f32>,
    /// What critics see, and the last of an episode that ended in this step; empty if they see something else.
    state: Vec<f32>,
    last_state: Vec<f32>,
    rewards: Vec<f32>,
    masks: Vec<u32>,
    outcome: Outcome,
    episode: u32,
    taken: u32,
    total: f64,
    /// Return and steps of the episode that ended in this step.
    finished: Option<(f64, u32)>,
    /// Episode and step that all this is of, each from 1.
    moment: (u32, u32),
}

impl Lane {
    fn new(simulator: Box<dyn Simulator>, spec: &Spec, state_dim: u32) -> Self {
        let numbers = (spec.agents * spec.obs_dim) as usize;
        Self {
            simulator,
            seen: vec![0.0; numbers],
            last: vec![0.0; numbers],
            state: vec![0.0; state_dim as usize],
            last_state: vec![0.0; state_dim as usize],
            rewards: vec![0.0; spec.agents as usize],
            masks: vec![0; spec.agents as usize],
            outcome: Outcome::Continues,
            episode: 0,
            taken: 0,
            total: 0.0,
            finished: None,
            moment: (0, 0),
        }
    }

    fn begin(&mut self, seed: u64, env: usize) {
        // A key of its own: initial weights draw from the seed itself.
        let key = [seed as u32, (seed >> 32) as u32 ^ 0x5EED_0E17];
        let [high, low] = threefry(key, [self.episode, env as u32]);
        self.seen.fill(0.0);
        self.simulator.reset(u64::from(high) << 32 | u64::from(low), &mut self.seen);
        self.look();
        self.episode += 1;
        (self.taken, self.total) = (0, 0.0);
    }

    /// Asks for the state, if somebody sees it.
    fn look(&mut self) {
        if !self.state.is_empty() {
            self.state.fill(0.0);
            self.simulator.state(&mut self.state);
        }
    }

    fn allow(&mut self, actions: u32) {
        let all = u32::MAX >> (32 - actions.clamp(1, 32));
        self.masks.fill(all);
        self.simulator.allowed(&mut self.masks);
        self.masks.iter_mut().for_each(|mask| *mask &= all);
    }

    fn step(&mut self, actions: &[u32], seed: u64, env: usize, spec: &Spec) {
        // What a simulator leaves out is 0, and not what was there before: that no checkpoint has.
        self.seen.fill(0.0);
        self.rewards.fill(0.0);
        self.outcome = self.simulator.step(actions, &mut self.seen, &mut self.rewards);
        self.look();
        let agents = self.rewards.len() as f64;
        self.total += self.rewards.iter().map(|reward| f64::from(*reward)).sum::<f64>() / agents;
        self.taken += 1;
        self.moment = (self.episode, self.taken);
        self.finished = None;
        if self.outcome != Outcome::Continues {
            self.finished = Some((self.total, self.taken));
            self.last.copy_from_slice(&self.seen);
            self.last_state.copy_from_slice(&self.state);
            self.begin(seed, env);
        }
        self.allow(spec.actions);
    }

    /// What of the last step no network could make anything of.
    fn fault(&self, precision: Precision) -> Option<String> {
        let at = |what: &str, index: usize, value: f32| {
            let (episode, step) = self.moment;
            format!("{what} {index} is {value} (episode {episode}, step {step})")
        };
        // As it will be stored.
        let storable = |value: f32| match precision {
            Precision::F32 => value.is_finite(),
            Precision::F16 => f16::from_f32(value).is_finite(),
        };
        let find = |what: &str, values: &[f32], good: &dyn Fn(f32) -> bool| {
            let found = values.iter().position(|value| !good(*value));
            found.map(|index| at(what, index, values[index]))
        };
        find("observation", &self.seen, &storable)
            .or_else(|| find("last observation", &self.last, &storable))
            .or_else(|| find("number of the state", &self.state, &storable))
            .or_else(|| find("number of the last state", &self.last_state, &storable))
            .or_else(|| find("reward of agent", &self.rewards, &|value| value.is_finite()))
    }
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
    signals: wgpu::Buffer,
    episodes: wgpu::Buffer,
    down: wgpu::Buffer,
    moving: Mutex<Moving>,
}

struct Moving {
    lanes: Vec<Lane>,
    readback: Readback,
    /// As [`Seat::episodes`], of this rollout.
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
        let actions: Vec<u32> = moving.readback.take(&gpu)?.unwrap_or_default();
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
        gpu.write(&self.signals, at(step), bytemuck::cast_slice(&ends))?;
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
        gpu.write(&self.signals, first as u64 * 4, bytemuck::cast_slice(&masks))
    }
}

impl HostState for Pool {
    fn save(&self) -> Result<Vec<u8>> {
        let moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::new();
        for lane in &moving.lanes {
            let saved = lane.simulator.save().ok_or_else(|| {
                Error::Data("this environment cannot be saved: it has no `Simulator::save`".into())
            })?;
            bytes.extend(lane.episode.to_le_bytes());
            bytes.extend(lane.taken.to_le_bytes());
            bytes.extend(lane.total.to_le_bytes());
            bytes.extend((saved.len() as u64).to_le_bytes());
            bytes.extend(saved);
        }
        Ok(bytes)
    }

    fn load(&self, mut bytes: &[u8]) -> Result<()> {
        let mut lanes = Vec::new();
        for env in 0..self.envs {
            let fault = |reason: &str| Error::Data(format!("environment {env}: {reason}"));
            let short = || fault("its saved state ends too early");
            let mut lane = Lane::new((self.make)(), &self.spec, self.state_dim);
            lane.episode = u32::from_le_bytes(take(&mut bytes).ok_or_else(short)?);
            lane.taken = u32::from_le_bytes(take(&mut bytes).ok_or_else(short)?);
            lane.total = f64::from_le_bytes(take(&mut bytes).ok_or_else(short)?);
            let length = u64::from_le_bytes(take(&mut bytes).ok_or_else(short)?);
            let (own, rest) = usize::try_from(length)
                .ok()
                .and_then(|length| bytes.split_at_checked(length))
                .ok_or_else(short)?;
            lane.simulator.load(own).map_err(|reason| fault(&reason))?;
            bytes = rest;
            lanes.push(lane);
        }
        if !bytes.is_empty() {
            return Err(Error::Data("the saved state is of more environments".into()));
        }
        let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        moving.lanes = lanes;
        moving.ended.fill(0.0);
        moving.cut.fill(0);
        Ok(())
    }
}

/// The first N bytes, which go.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
