//! Updates compared with those of original code: of marlbenchmark/on-policy (`tests/fixtures/on_policy.py`), gradients that are clipped
//! and networks without agent identity, several choices per action, separate networks, and HAPPO; of PKU-MARL/HARL
//! (`tests/fixtures/harl_happo.py`), HAPPO.

use std::collections::HashMap;

use serde::Deserialize;

use super::testing::{
    AGENTS, ENVS, OBS_DIM, Still, Tensors, begin_epoch, floats, near, put_weights, tensor_error,
};
use super::{Config, Trainer};
use crate::gpu::Recorder;
use crate::mappo::Algorithm;
use crate::nn::{Activation, Sharing};
use crate::ppo::{gae, scalars};

#[derive(Deserialize)]
struct Epoch {
    policy: f64,
    value: f64,
    entropy: f64,
    actor_norm: f64,
    critic_norm: f64,
    value_norm: [f64; 3],
}

/// The shared networks, or those of one agent.
#[derive(Deserialize)]
struct Networks {
    value_norm: [f64; 3],
    epochs: Vec<Epoch>,
}

#[derive(Deserialize)]
struct Case {
    activation: Activation,
    /// Options of every choice of an action.
    sizes: Vec<u32>,
    max_grad_norm: f64,
    hidden: Vec<u32>,
    params: Tensors,
    observations: Vec<f64>,
    masks: Vec<u32>,
    actions: Vec<u32>,
    /// `[choice][slot][agent][env]`
    old_log_probabilities: Vec<f64>,
    old_values: Vec<f64>,
    rewards: Vec<f64>,
    dones: Vec<u32>,
    returns: Vec<f64>,
    advantages: Vec<f64>,
    trainers: Vec<Networks>,
    /// The order in which agents with separate networks are updated.
    order: Vec<usize>,
    /// HAPPO: the factors that each agent in this order is updated with, `[slot][env]`.
    factors: Vec<Vec<f64>>,
    params_after: Tensors,
}

impl Case {
    fn new(name: &str) -> Self {
        Self::of(include_str!("../../tests/fixtures/on_policy.json"), name)
    }

    fn of(file: &str, name: &str) -> Self {
        let mut all: HashMap<String, serde_json::Value> = serde_json::from_str(file).unwrap();
        serde_json::from_value(all.remove(name).unwrap()).unwrap()
    }

    fn rows(&self) -> usize {
        self.rewards.len()
    }

    fn epochs(&self) -> usize {
        self.trainers[0].epochs.len()
    }

    fn config(&self) -> Config {
        let mut config = Config::on_policy_mpe();
        config.ppo.num_envs = ENVS as u32;
        config.ppo.rollout_steps = (self.dones.len() / ENVS) as u32;
        config.ppo.epochs = self.epochs() as u32;
        // Not debiased yet.
        config.ppo.value_norm = self.trainers[0].value_norm[2] > 0.0;
        config.network.hidden = self.hidden.clone();
        config.network.activation = self.activation;
        config.optimizer.max_grad_norm = self.max_grad_norm;
        if self.trainers.len() > 1 {
            config.network.networks = Sharing::Separate;
        }
        if !self.factors.is_empty() {
            config.ppo.algorithm = Algorithm::Happo;
        }
        config
    }

    /// Active rows of the networks `group`.
    fn active_rows(&self, group: usize) -> f64 {
        let own = |row: &usize| self.trainers.len() == 1 || row / ENVS % AGENTS == group;
        (0..self.rows()).filter(own).filter(|row| self.masks[*row] != 0).count() as f64
    }

    /// A trainer whose buffers hold the rollout.
    fn ready(&self) -> (Trainer, Recorder) {
        let gpu = crate::testing::unchecked_gpu();
        let still = Still { choices: self.sizes.clone(), ..Still::default() };
        let trainer = Trainer::new(&gpu, &still, &self.config()).unwrap();
        let mut recorder = Recorder::new(&gpu);
        let write = |buffer: &wgpu::Buffer, at: usize, bytes: &[u8]| {
            gpu.write(buffer, at as u64 * 4, bytes).unwrap();
        };
        let f32s = |of: &[f64]| of.iter().map(|x| *x as f32).collect::<Vec<_>>();
        put_weights(&trainer, &self.params);
        // The fixture has features before agents.
        let observations: Vec<f32> = (0..self.observations.len())
            .map(|i| {
                let (env, feature) = (i % ENVS, i / ENVS % OBS_DIM);
                let (agent, slot) = (i / ENVS / OBS_DIM % AGENTS, i / ENVS / OBS_DIM / AGENTS);
                self.observations[((slot * OBS_DIM + feature) * AGENTS + agent) * ENVS + env] as f32
            })
            .collect();
        let rollout = &trainer.buffers.rollout;
        write(&rollout.observations, 0, bytemuck::cast_slice(&observations));
        write(&rollout.dones_and_masks, 0, bytemuck::cast_slice(&self.dones));
        write(&rollout.dones_and_masks, self.dones.len(), bytemuck::cast_slice(&self.masks));
        write(&rollout.actions, 0, bytemuck::cast_slice(&self.actions));
        write(&rollout.rewards, 0, bytemuck::cast_slice(&f32s(&self.rewards)));
        let whole: Vec<f32> = (0..self.rows())
            .map(|row| self.old_log_probabilities.iter().skip(row).step_by(self.rows()).sum::<f64>() as f32)
            .collect();
        write(&rollout.targets, 0, bytemuck::cast_slice(&whole));
        if self.sizes.len() > 1 {
            let first = 4 * gae::choice_targets(self.rows() as u32) as usize;
            write(&rollout.targets, first, bytemuck::cast_slice(&f32s(&self.old_log_probabilities)));
        }
        for (group, networks) in self.trainers.iter().enumerate().filter(|_| self.config().ppo.value_norm) {
            let [m, s, d] = networks.value_norm;
            let deviation = (s / d - (m / d).powi(2)).max(1e-2).sqrt();
            let stats = f32s(&[m, s, d, m / d, deviation]);
            let at = scalars::of_group(group as u32, scalars::VALUE_NORM_MEAN);
            write(&rollout.scalars, at, bytemuck::cast_slice(&stats));
        }
        recorder.run(&trainer.rollout.prepare).unwrap();
        (trainer, recorder)
    }
}

/// Sums over the rows of all agents in the partial sums of a recorded epoch: policy loss, value loss, entropy.
fn sums(trainer: &Trainer, index: usize) -> [f64; 3] {
    let statistics = floats(trainer, |t| &t.update_buffers.statistics);
    let places = trainer.sizes.partial_sums(&trainer.kernel_config) as usize;
    let own = statistics[index * places * 8..(index + 1) * places * 8].chunks_exact(8);
    own.fold([0.0; 3], |sums, place| std::array::from_fn(|i| sums[i] + f64::from(place[i])))
}

/// Compares values, returns and advantages before the first epoch.
fn compare_targets(case: &Case, trainer: &Trainer) {
    let rows = case.rows();
    let values = floats(trainer, |t| &t.buffers.rollout.values);
    for (got, expected) in values.iter().zip(&case.old_values) {
        // Both are computed in f32.
        near("value", f64::from(*got), *expected, 3e-5);
    }
    let targets = floats(trainer, |t| &t.buffers.rollout.targets);
    let stats = floats(trainer, |t| &t.buffers.rollout.scalars);
    for row in (0..rows).filter(|row| case.masks[*row] != 0) {
        let group = (row / ENVS % AGENTS % case.trainers.len()) as u32;
        let [mean, scale] = [scalars::ADVANTAGE_MEAN, scalars::ADVANTAGE_SCALE]
            .map(|index| f64::from(stats[scalars::of_group(group, index)]));
        near("return", f64::from(targets[2 * rows + row]), case.returns[row], 1e-5);
        near("advantage", (f64::from(targets[rows + row]) - mean) * scale, case.advantages[row], 1e-5);
    }
}

/// Runs epoch `number` of the networks `groups`, which was recorded as epoch `index`, and compares what it computes.
fn follow_epoch(
    case: &Case,
    (trainer, recorder): (&Trainer, &mut Recorder),
    groups: &[usize],
    number: usize,
    index: usize,
) {
    let rest = begin_epoch(trainer, recorder, index, number == 0);
    let stats = floats(trainer, |t| &t.buffers.rollout.scalars);
    for group in groups {
        let first = scalars::of_group(*group as u32, scalars::VALUE_NORM_MEAN);
        for (got, expected) in stats[first..].iter().zip(case.trainers[*group].epochs[number].value_norm) {
            near("ValueNorm", f64::from(*got), expected, 1e-5);
        }
    }
    recorder.run(rest).unwrap();
    let what = |of: &str| format!("networks {groups:?}, epoch {number}: {of}");
    let expected = |of: fn(&Epoch) -> f64| -> f64 {
        groups.iter().map(|group| of(&case.trainers[*group].epochs[number]) * case.active_rows(*group)).sum()
    };
    let [policy, value, entropy] = sums(trainer, index);
    let rows = groups.iter().map(|group| case.active_rows(*group)).sum::<f64>();
    near(&what("policy loss"), policy / rows, expected(|epoch| epoch.policy) / rows, 1e-4);
    near(&what("value loss"), value / rows, expected(|epoch| epoch.value) / rows, 1e-4);
    near(&what("entropy"), entropy / rows, expected(|epoch| epoch.entropy) / rows, 1e-4);
    let optimizer = floats(trainer, |t| &t.update_buffers.optimizer);
    for group in groups {
        let epoch = &case.trainers[*group].epochs[number];
        let norm = |net: usize| f64::from(optimizer[8 * net + 1]);
        near(&what("actor's norm"), norm(*group), epoch.actor_norm, 1e-4);
        near(&what("critic's norm"), norm(case.trainers.len() + group), epoch.critic_norm, 1e-4);
    }
}

fn compare_weights(case: &Case, trainer: &Trainer) {
    let worst = tensor_error(trainer, |t| &t.buffers.networks.params, &case.params_after);
    println!("weights within {worst:.1e}");
    assert!(worst < 1e-4, "weights: {worst:.1e}");
    let moved = tensor_error(trainer, |t| &t.buffers.networks.params, &case.params);
    assert!(moved > 1e-3, "weights moved by {moved:.1e} only");
}

/// All agents are updated together.
fn follow(name: &str) -> Case {
    let case = Case::new(name);
    let (trainer, mut recorder) = case.ready();
    recorder.run(&trainer.rollout.values).unwrap();
    recorder.run(&trainer.update.advantages).unwrap();
    compare_targets(&case, &trainer);
    let groups: Vec<usize> = (0..case.trainers.len()).collect();
    for number in 0..trainer.update.epochs.len() {
        follow_epoch(&case, (&trainer, &mut recorder), &groups, number, number);
    }
    compare_weights(&case, &trainer);
    case
}

#[test]
fn clipped_gradients_without_agent_identity_are_those_of_on_policy() {
    let case = follow("clipped");
    assert!(case.masks.contains(&0), "an inactive agent");
    for epoch in &case.trainers[0].epochs {
        assert!(epoch.actor_norm > case.max_grad_norm && epoch.critic_norm > case.max_grad_norm);
    }
}

#[test]
fn ratios_of_choices_are_clipped_one_by_one_as_in_on_policy() {
    let case = follow("choices");
    assert_eq!(case.sizes, [3, 2]);
}

#[test]
fn separate_networks_have_a_value_norm_each_as_in_on_policy() {
    let case = follow("separate");
    let [first, second] = [0, 1].map(|agent| case.trainers[agent].value_norm);
    assert_ne!(first, second);
}

#[test]
fn agent_steps_are_those_of_happo_in_on_policy() {
    follow_agent_steps(&Case::new("happo"));
}

/// HARL trains one critic for all agents; ours become equal to it, since they start equal and agents share rewards.
#[test]
fn agent_steps_are_those_of_happo_in_harl() {
    follow_agent_steps(&Case::of(include_str!("../../tests/fixtures/harl_happo.json"), "happo"));
}

/// One agent is updated after the other. The factors come from probabilities after and before the epochs of an agent; those of the
/// rollout, which are a tenth off here, have no part in them.
fn follow_agent_steps(case: &Case) {
    let (trainer, mut recorder) = case.ready();
    recorder.run(&trainer.rollout.values).unwrap();
    recorder.run(&trainer.update.advantages).unwrap();
    compare_targets(case, &trainer);
    let (epochs, factors) = (case.epochs(), case.factors[0].len());
    for (place, (agent, expected)) in case.order.iter().zip(&case.factors).enumerate() {
        let statistics = floats(&trainer, |t| &t.update_buffers.statistics);
        let first = statistics.len() - 2 * factors;
        // Agents without an action do not count in our factors; in on-policy's they do, as `docs/reference.md` says.
        let acted =
            |agent: &usize, row: usize| case.masks[(row / ENVS * AGENTS + agent) * ENVS + row % ENVS] != 0;
        for (row, (got, expected)) in statistics[first..].iter().zip(expected).enumerate() {
            if case.order[..place].iter().all(|earlier| acted(earlier, row)) {
                near("factor", f64::from(*got), *expected, 1e-4);
            }
        }
        // The epochs are compared at the reference's factors.
        let exact: Vec<f32> = expected.iter().map(|factor| *factor as f32).collect();
        trainer
            .gpu
            .write(&trainer.update_buffers.statistics, first as u64 * 4, bytemuck::cast_slice(&exact))
            .unwrap();
        let [before, after] = &trainer.update.evaluations[*agent];
        recorder.run(before).unwrap();
        for number in 0..epochs {
            let index = agent * epochs + number;
            follow_epoch(case, (&trainer, &mut recorder), &[*agent], number, index);
        }
        recorder.run(after).unwrap();
    }
    assert!(case.factors[2].iter().any(|factor| (factor - 1.0).abs() > 0.01));
    compare_weights(case, &trainer);
}
