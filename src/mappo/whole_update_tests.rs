//! An iteration after its rollout compared with `tests/fixtures/r_mappo.py`, which follows marlbenchmark/on-policy: denormalised
//! values, GAE, normalised advantages, then ten epochs with ValueNorm, losses, clipping and Adam; and the same with a GRU
//! (`r_mappo_recurrent.py`).

use serde::Deserialize;

use super::testing::{
    AGENTS, ENVS, OBS_DIM, Still, Tensors, begin_epoch, floats, near, put_weights, tensor_error,
};
use super::{Config, Trainer};
use crate::gpu::Recorder;
use crate::mappo::Algorithm;
use crate::nn::forward::Memory;
use crate::nn::{Activation, Sharing};
use crate::ppo::scalars;

#[derive(Deserialize)]
struct Epoch {
    policy: f64,
    value: f64,
    entropy: f64,
    kl: f64,
    clip_fraction: f64,
    actor_norm: f64,
    critic_norm: f64,
    value_norm: [f64; 3],
}

#[derive(Deserialize)]
struct Fixture {
    activation: Activation,
    hidden: Vec<u32>,
    params: Tensors,
    #[serde(default)]
    params_after_1: Tensors,
    #[serde(default)]
    params_after_10: Tensors,
    observations: Vec<f64>,
    masks: Vec<u32>,
    actions: Vec<u32>,
    old_log_probabilities: Vec<f64>,
    old_values: Vec<f64>,
    rewards: Vec<f64>,
    dones: Vec<u32>,
    returns: Vec<f64>,
    advantages: Vec<f64>,
    value_norm: [f64; 3],
    #[serde(default)]
    epochs: Vec<Epoch>,
    /// HAPPO: the order of the agents.
    #[serde(default)]
    order: Vec<usize>,
    #[serde(default, rename = "turns")]
    agent_steps: Vec<Vec<Epoch>>,
    /// HAPPO: the factors after every agent step, `[slot][env]`.
    #[serde(default)]
    factors: Vec<Vec<Vec<f64>>>,
    #[serde(default)]
    params_after: Tensors,
    #[serde(default)]
    gradients: Tensors,
    /// GRU states before slot 0, `[stack][agent][entry][env]`; empty without a GRU.
    #[serde(default)]
    states: Vec<f64>,
    /// GRU states after every sequence except the last, `[sequence][stack][agent][entry][env]`.
    #[serde(default)]
    chunk_states: Vec<f64>,
}

/// Steps of truncated back-propagation through time in the recurrent fixture.
const CHUNK: u32 = 3;

impl Fixture {
    fn steps(&self) -> usize {
        self.dones.len() / ENVS
    }

    fn rows(&self) -> usize {
        self.steps() * AGENTS * ENVS
    }

    /// States in the layout of the device: `[stack][entry][agent][env]`.
    fn on_device(&self, states: &[f64]) -> Vec<f32> {
        let size = *self.hidden.last().unwrap() as usize;
        (0..states.len())
            .map(|i| {
                let (env, agent) = (i % ENVS, i / ENVS % AGENTS);
                let (entry, stack) = (i / ENVS / AGENTS % size, i / ENVS / AGENTS / size);
                states[((stack * AGENTS + agent) * size + entry) * ENVS + env] as f32
            })
            .collect()
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../tests/fixtures/r_mappo.json")).unwrap()
}

fn config(case: &Fixture, target_kl: f64) -> Config {
    let mut config = Config::on_policy_mpe();
    config.ppo.target_kl = target_kl;
    config.ppo.num_envs = ENVS as u32;
    config.ppo.rollout_steps = case.steps() as u32;
    config.network.recurrent = !case.states.is_empty();
    config.network.chunk_length = CHUNK;
    config.network.hidden = case.hidden.clone();
    config.network.activation = case.activation;
    config.network.agent_identity = true;
    config
}

/// A trainer whose buffers hold the rollout of the fixture.
fn ready(case: &Fixture, target_kl: f64) -> (Trainer, Recorder) {
    ready_for(case, ENVS, case.steps(), config(case, target_kl))
}

fn ready_for(case: &Fixture, envs: usize, steps: usize, mut config: Config) -> (Trainer, Recorder) {
    let gpu = crate::testing::unchecked_gpu();
    config.ppo.num_envs = envs as u32;
    let slots = case.observations.len() / (AGENTS * OBS_DIM * envs);
    let still = Still { truncations: (slots - steps - 1) as u32, ..Still::default() };
    let trainer = Trainer::new(&gpu, &still, &config).unwrap();
    let mut recorder = Recorder::new(&gpu);
    let f32s = |of: &[f64]| of.iter().map(|x| *x as f32).collect::<Vec<_>>();
    let write = |buffer: &wgpu::Buffer, at: usize, bytes: &[u8]| {
        gpu.write(buffer, at as u64 * 4, bytes).unwrap();
    };
    put_weights(&trainer, &case.params);
    // The fixture has features before agents.
    let observations: Vec<f32> = (0..case.observations.len())
        .map(|i| {
            let (env, feature) = (i % envs, i / envs % OBS_DIM);
            let (agent, slot) = (i / envs / OBS_DIM % AGENTS, i / envs / OBS_DIM / AGENTS);
            case.observations[((slot * OBS_DIM + feature) * AGENTS + agent) * envs + env] as f32
        })
        .collect();
    write(&trainer.buffers.rollout.observations, 0, bytemuck::cast_slice(&observations));
    write(&trainer.buffers.rollout.dones_and_masks, 0, bytemuck::cast_slice(&case.dones));
    write(&trainer.buffers.rollout.dones_and_masks, steps * envs, bytemuck::cast_slice(&case.masks));
    recorder.run(&trainer.rollout.prepare).unwrap();
    if config.network.recurrent {
        remember(case, &trainer, &mut recorder);
    }
    write(&trainer.buffers.rollout.actions, 0, bytemuck::cast_slice(&case.actions));
    write(&trainer.buffers.rollout.rewards, 0, bytemuck::cast_slice(&f32s(&case.rewards)));
    write(&trainer.buffers.rollout.targets, 0, bytemuck::cast_slice(&f32s(&case.old_log_probabilities)));
    let [m, s, d] = case.value_norm;
    let deviation = (s / d - (m / d).powi(2)).max(1e-2).sqrt();
    for group in (0..trainer.sizes.groups).filter(|_| config.ppo.value_norm) {
        write(
            &trainer.buffers.rollout.scalars,
            scalars::of_group(group, scalars::VALUE_NORM_MEAN),
            bytemuck::cast_slice(&f32s(&[m, s, d, m / d, deviation])),
        );
    }
    (trainer, recorder)
}

/// Runs the actors over the rollout, which stores the GRU states that each sequence starts from.
fn remember(case: &Fixture, trainer: &Trainer, recorder: &mut Recorder) {
    let write = |buffer: &wgpu::Buffer, at: u64, bytes: &[u8]| {
        trainer.gpu.write(buffer, at, bytes).unwrap();
    };
    write(&trainer.buffers.rollout.dones_and_masks, trainer.sizes.endings() * 4, &[0; ENVS * 4]);
    let place = trainer.sizes.memory_bytes(&trainer.layout);
    let first = case.on_device(&case.states);
    write(
        &trainer.buffers.recurrent.as_ref().unwrap().states,
        u64::from(Memory::place(0, CHUNK)) * place,
        bytemuck::cast_slice(&first),
    );
    recorder.run(&trainer.rollout.collect).unwrap();
}

/// Compares the GRU states of the actors (0) or critics (1) that the second and later sequences start from.
fn compare_states(case: &Fixture, trainer: &Trainer, stack: usize) {
    if case.states.is_empty() {
        return;
    }
    let states = floats(trainer, |t| &t.buffers.recurrent.as_ref().unwrap().states);
    let place = case.states.len();
    for (number, expected) in case.chunk_states.chunks_exact(place).enumerate() {
        let at = Memory::place((number as u32 + 1) * CHUNK, CHUNK) as usize * place;
        let half = stack * place / 2..(stack + 1) * place / 2;
        for (got, expected) in
            states[at..at + place][half.clone()].iter().zip(&case.on_device(expected)[half])
        {
            near("state", f64::from(*got), f64::from(*expected), 1e-5);
        }
    }
}

#[test]
fn ten_epochs_are_those_of_the_reference() {
    follow(&fixture());
}

/// GRU states from step to step, an episode that ends between two sequences, a truncated one whose value needs its GRU state, and
/// gradients through time. Sequences restart in every environment and truncated episodes bootstrap from their final observation,
/// unlike in on-policy (docs/reference.md).
#[test]
fn ten_epochs_with_a_gru_and_a_truncation_are_those_of_pytorch() {
    let case: Fixture =
        serde_json::from_str(include_str!("../../tests/fixtures/r_mappo_recurrent.json")).unwrap();
    assert!(case.dones[2 * ENVS..3 * ENVS].contains(&1) && case.dones.contains(&2));
    follow(&case);
}

fn follow(case: &Fixture) {
    let (steps, rows) = (case.steps(), case.rows());
    let (trainer, mut recorder) = ready(case, 0.0);
    compare_states(case, &trainer, 0);
    // The trainer computes the values itself, with its critics.
    recorder.run(&trainer.rollout.values).unwrap();
    let values = floats(&trainer, |t| &t.buffers.rollout.values);
    for (i, expected) in case.old_values.iter().enumerate() {
        // The final observations of truncated episodes follow the rollout; other environments have none.
        let truncated = (0..steps).any(|step| case.dones[step * ENVS + i % ENVS] == 2);
        if i < (steps + 1) * AGENTS * ENVS || truncated {
            near("value", f64::from(values[i]), *expected, 1e-5);
        }
    }
    compare_states(case, &trainer, 1);
    recorder.run(&trainer.update.advantages).unwrap();
    let targets = floats(&trainer, |t| &t.buffers.rollout.targets);
    let moments = floats(&trainer, |t| &t.buffers.rollout.scalars);
    let [mean, scale] = [moments[scalars::ADVANTAGE_MEAN], moments[scalars::ADVANTAGE_SCALE]].map(f64::from);
    for i in 0..rows {
        near("return", f64::from(targets[2 * rows + i]), case.returns[i], 1e-5);
        near("advantage", (f64::from(targets[rows + i]) - mean) * scale, case.advantages[i], 1e-5);
    }

    assert_eq!(case.epochs.len(), trainer.update.epochs.len());
    for (number, epoch) in case.epochs.iter().enumerate() {
        let what = |of: &str| format!("epoch {number}: {of}");
        let rest = begin_epoch(&trainer, &mut recorder, number, number == 0);
        let moments = floats(&trainer, |t| &t.buffers.rollout.scalars);
        for (i, expected) in epoch.value_norm.iter().enumerate() {
            near(&what("ValueNorm"), f64::from(moments[scalars::VALUE_NORM_MEAN + i]), *expected, 1e-5);
        }
        recorder.run(rest).unwrap();
        // Each epoch has separate partial sums.
        let statistics = floats(&trainer, |t| &t.update_buffers.statistics);
        let places = statistics.len() / 10 / 8;
        let sum = |i: usize| {
            let own = statistics[number * places * 8..(number + 1) * places * 8].chunks_exact(8);
            own.map(|place| f64::from(place[i])).sum::<f64>() / rows as f64
        };
        if number == 0 && !case.gradients.is_empty() {
            let worst = tensor_error(&trainer, |t| &t.update_buffers.gradient, &case.gradients);
            assert!(worst < 1e-4, "gradients: {worst:.1e}");
        }
        near(&what("policy loss"), sum(0), epoch.policy, 1e-4);
        near(&what("value loss"), sum(1), epoch.value, 1e-4);
        near(&what("entropy"), sum(2), epoch.entropy, 1e-4);
        near(&what("KL"), sum(3), epoch.kl, 1e-4);
        near(&what("clip fraction"), sum(4), epoch.clip_fraction, 1e-6);
        let optimizer = floats(&trainer, |t| &t.update_buffers.optimizer);
        near(&what("actor's norm"), f64::from(optimizer[1]), epoch.actor_norm, 1e-4);
        near(&what("critic's norm"), f64::from(optimizer[9]), epoch.critic_norm, 1e-4);
        let after = match number {
            0 => &case.params_after_1,
            9 => &case.params_after_10,
            _ => continue,
        };
        let worst = tensor_error(&trainer, |t| &t.buffers.networks.params, after);
        println!("{}: weights within {worst:.1e}", what("all"));
        assert!(worst < 1e-4, "{}: {worst:.1e}", what("weights"));
    }
}

/// HAPPO (`happo.py`): each agent is updated with the factors of the agents before it and a ValueNorm of its own, and no other
/// weights change.
#[test]
fn agent_steps_are_those_of_happo() {
    let case: Fixture = serde_json::from_str(include_str!("../../tests/fixtures/happo.json")).unwrap();
    assert_eq!([case.order.len(), case.agent_steps.len(), case.factors.len()], [AGENTS; 3]);
    let each = case.agent_steps[0].len();
    let mut settings = config(&case, 0.0);
    settings.ppo.algorithm = Algorithm::Happo;
    settings.ppo.epochs = each as u32;
    settings.network.networks = Sharing::Separate;
    let (trainer, mut recorder) = ready_for(&case, ENVS, case.steps(), settings);
    recorder.run(&trainer.rollout.values).unwrap();
    recorder.run(&trainer.update.advantages).unwrap();
    // Factors, and as many log-probabilities.
    let factors = case.steps() * ENVS;
    let own_rows = (case.rows() / AGENTS) as f64;
    for (place, (agent_step, agent)) in case.agent_steps.iter().zip(&case.order).enumerate() {
        let [before, after] = &trainer.update.evaluations[*agent];
        recorder.run(before).unwrap();
        for (number, epoch) in agent_step.iter().enumerate() {
            let index = agent * each + number;
            let what = |of: &str| format!("agent {agent}, epoch {number}: {of}");
            let rest = begin_epoch(&trainer, &mut recorder, index, number == 0);
            let moments = floats(&trainer, |t| &t.buffers.rollout.scalars);
            for (i, expected) in epoch.value_norm.iter().enumerate() {
                let got = moments[scalars::of_group(*agent as u32, scalars::VALUE_NORM_MEAN + i)];
                near(&what("ValueNorm"), f64::from(got), *expected, 1e-5);
            }
            recorder.run(rest).unwrap();
            let statistics = floats(&trainer, |t| &t.update_buffers.statistics);
            let places = (statistics.len() - 2 * factors) / 8 / each / AGENTS;
            let sum = |i: usize| {
                let own = statistics[index * places * 8..(index + 1) * places * 8].chunks_exact(8);
                own.map(|place| f64::from(place[i])).sum::<f64>() / own_rows
            };
            near(&what("policy loss"), sum(0), epoch.policy, 1e-4);
            near(&what("value loss"), sum(1), epoch.value, 1e-4);
            near(&what("entropy"), sum(2), epoch.entropy, 1e-4);
            near(&what("KL"), sum(3), epoch.kl, 1e-4);
            near(&what("clip fraction"), sum(4), epoch.clip_fraction, 1e-6);
            let optimizer = floats(&trainer, |t| &t.update_buffers.optimizer);
            near(&what("actor's norm"), f64::from(optimizer[agent * 8 + 1]), epoch.actor_norm, 1e-4);
            near(
                &what("critic's norm"),
                f64::from(optimizer[(AGENTS + agent) * 8 + 1]),
                epoch.critic_norm,
                1e-4,
            );
        }
        recorder.run(after).unwrap();
        let statistics = floats(&trainer, |t| &t.update_buffers.statistics);
        for (got, expected) in
            statistics[statistics.len() - 2 * factors..].iter().zip(case.factors[place].iter().flatten())
        {
            near("factor", f64::from(*got), *expected, 1e-4);
        }
        // The weights of later agents are still unchanged.
        let params = floats(&trainer, |t| &t.buffers.networks.params);
        for tensor in &trainer.layout.tensors {
            let waits =
                case.order[place + 1..].iter().any(|other| tensor.name.contains(&format!("agent{other}.")));
            let same = params[tensor.first] == case.params[&tensor.name][0] as f32;
            assert!(same || !waits, "{} has moved", tensor.name);
        }
    }
    let worst = tensor_error(&trainer, |t| &t.buffers.networks.params, &case.params_after);
    println!("weights within {worst:.1e}");
    assert!(worst < 1e-4, "weights: {worst:.1e}");
    recorder.run(&trainer.update.write_metrics).unwrap();
    let record: Vec<crate::ppo::write_metrics::Record> =
        trainer.gpu.read(&trainer.update_buffers.record).unwrap();
    let mean =
        case.agent_steps.iter().flatten().map(|epoch| epoch.value).sum::<f64>() / (each * AGENTS) as f64;
    near("mean value loss", f64::from(record[0].value_loss), mean, 1e-4);
    assert_eq!(record[0].epochs, each as f32);
}

/// Adds a copy of every environment, with inactive agents and other advantages and values. Only the running statistics of the returns
/// change, which include all returns.
#[test]
fn inactive_agents_are_not_learned_from() {
    let case = fixture();
    let steps = case.steps();
    let mut twice = fixture();
    let again = |of: &[f64], other: f64| -> Vec<f64> {
        of.chunks_exact(ENVS)
            .flat_map(|row| row.iter().copied().chain(row.iter().map(move |x| x + other)))
            .collect()
    };
    twice.observations = again(&case.observations, 0.5);
    twice.old_log_probabilities = again(&case.old_log_probabilities, -1.0);
    let of_u32 = |of: &[u32], keep: u32| -> Vec<u32> {
        of.chunks_exact(ENVS)
            .flat_map(|row| row.iter().copied().chain(row.iter().map(move |x| x * keep)))
            .collect()
    };
    (twice.masks, twice.actions, twice.dones) =
        (of_u32(&case.masks, 0), of_u32(&case.actions, 1), of_u32(&case.dones, 1));
    twice.rewards = again(&case.rewards, 0.25);
    let weights = |case: &Fixture| {
        let mut config = config(case, 0.0);
        config.ppo.rollout_steps = steps as u32;
        config.ppo.value_norm = false;
        let (trainer, mut recorder) = ready_for(case, case.dones.len() / steps, steps, config);
        recorder.run(&trainer.rollout.values).unwrap();
        recorder.run(&trainer.update.advantages).unwrap();
        trainer.update.epochs.iter().for_each(|epoch| {
            recorder.run(epoch).unwrap();
        });
        recorder.run(&trainer.update.write_metrics).unwrap();
        let record: Vec<crate::ppo::write_metrics::Record> =
            trainer.gpu.read(&trainer.update_buffers.record).unwrap();
        let record = record[0];
        let means =
            [record.policy_loss, record.value_loss, record.entropy, record.approx_kl, record.clip_fraction];
        (trainer.weights().unwrap(), means)
    };
    let ((once, means), (with_idle, idle_means)) = (weights(&case), weights(&twice));
    let start = case.params["actor.0.weight"][0] as f32;
    assert!(once.iter().all(|w| w.is_finite()) && !once.contains(&start), "the weights have moved");
    for (a, b) in once.iter().zip(&with_idle) {
        assert!((a - b).abs() <= 2e-6, "{a} and {b}");
    }
    for (a, b) in means.iter().zip(idle_means) {
        near("means", f64::from(b), f64::from(*a), 1e-5);
    }
}

/// The policy moves further with every epoch; once the divergence exceeds the limit the remaining epochs change nothing.
#[test]
fn a_limit_on_the_divergence_ends_the_epochs() {
    let case = fixture();
    let after = |target_kl: f64, epochs: u32| {
        let mut settings = config(&case, target_kl);
        settings.ppo.epochs = epochs;
        let (trainer, mut recorder) = ready_for(&case, ENVS, case.steps(), settings);
        recorder.run(&trainer.rollout.values).unwrap();
        recorder.run(&trainer.update.advantages).unwrap();
        trainer.update.epochs.iter().for_each(|epoch| {
            recorder.run(epoch).unwrap();
        });
        recorder.run(&trainer.update.write_metrics).unwrap();
        let record: Vec<crate::ppo::write_metrics::Record> =
            trainer.gpu.read(&trainer.update_buffers.record).unwrap();
        let (own, update) = (&trainer.buffers, &trainer.update_buffers);
        let state = [
            &own.networks.params,
            &update.first_moments,
            &update.second_moments,
            &update.optimizer,
            &own.rollout.scalars,
        ];
        let mut bits: Vec<u32> =
            state.iter().flat_map(|buffer| trainer.gpu.read(buffer).unwrap()).map(f32::to_bits).collect();
        // The flag that ends the epochs differs.
        let flag = bits.len() - floats(&trainer, |t| &t.buffers.rollout.scalars).len() + scalars::STOPPED;
        bits[flag] = 0;
        (record[0], bits)
    };
    let target = (case.epochs[6].kl + case.epochs[7].kl) / 2.0;
    assert!(case.epochs[..7].iter().all(|epoch| epoch.kl < target) && target < case.epochs[7].kl);
    let (stopped, bits) = after(target, 10);
    let (eight, expected) = after(0.0, 8);
    assert_eq!((stopped.epochs, eight.epochs), (8.0, 8.0));
    assert!(bits == expected, "as if there had been eight epochs");
    assert_eq!(stopped.skipped, 0.0);
    let mean = case.epochs[..8].iter().map(|epoch| epoch.kl).sum::<f64>() / 8.0;
    near("mean divergence of the epochs that counted", f64::from(stopped.approx_kl), mean, 1e-4);
    assert_eq!(stopped.approx_kl, eight.approx_kl);
}
