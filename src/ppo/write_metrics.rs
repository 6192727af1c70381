//! Ends an iteration: writes the metrics for the host as one [`Record`], clears the episode counters and counts the iteration.
//!
//! Sums of parts of the losses and rows ([`metrics_sums`]) are joined by a second dispatch, in a fixed order.

use super::metrics_sums;
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/write_metrics");

/// f32s of a [`Record`].
pub const RECORD: u64 = size_of::<Record>() as u64 / 4;

/// Counterpart of `WriteMetrics` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct WriteMetrics {
    /// Pairs of vec4s that [`super::loss`] wrote in all epochs.
    pub statistics: u32,
    /// f32s of the rewards.
    pub rewards: u32,
    /// Environments.
    pub envs: u32,
    /// Networks.
    pub nets: u32,
    /// Actors among the networks.
    pub actors: u32,
    /// HAPPO: agents; else 1.
    pub agent_steps: u32,
    /// Groups of agents that share networks, each with a ValueNorm: 1, or one per agent.
    pub groups: u32,
    /// Workgroups that sum ([`metrics_sums::parts`]).
    pub parts: u32,
}

/// Metrics of an iteration, read back once. Means are over the rows of active agents, and over the epochs of the iteration that moved
/// the weights.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Record {
    /// Clipped surrogate loss, without the entropy term.
    pub policy_loss: f32,
    /// Clipped Huber loss of the normalised values.
    pub value_loss: f32,
    /// Entropy of the policy, in nats.
    pub entropy: f32,
    /// KL divergence from the policy of the rollout (k3 estimate).
    pub approx_kl: f32,
    /// Fraction of rows outside the clip range.
    pub clip_fraction: f32,
    /// Largest gradient norm of the actors at the last update, before clipping.
    pub actor_norm: f32,
    /// Largest gradient norm of the critics at the last update, before clipping.
    pub critic_norm: f32,
    /// Learning rate of the first actor.
    pub learning_rate: f32,
    /// Mean reward of a step.
    pub reward: f32,
    /// Sum of the returns of the episodes that ended (mean over agents).
    pub return_sum: f32,
    /// Episodes that ended.
    pub episodes: f32,
    /// Steps of these episodes.
    pub episode_steps: f32,
    /// Episodes that terminated, as opposed to truncated ones.
    pub terminated: f32,
    /// Optimizer steps skipped so far because a gradient was not finite.
    pub skipped: f32,
    /// Mean of the returns that values are normalised by; with separate networks, the mean over the agents.
    pub value_mean: f32,
    /// Standard deviation of the returns that values are normalised by; with separate networks, the mean over the agents.
    pub value_deviation: f32,
    /// Loss scale after the last update; 1 in f32.
    pub loss_scale: f32,
    /// Epochs that moved the weights: fewer than configured if `target_kl` ended them.
    pub epochs: f32,
    /// Fraction of the variance of the returns that the critics' values explain, over all rows of the rollout and before the update:
    /// 1 - Var(returns - values) / Var(returns). 1 is perfect, 0 no better than a constant, negative worse; NaN if all returns are
    /// equal.
    pub explained_variance: f32,
    /// Fraction of the rows of the rollout whose agent was active.
    pub active_fraction: f32,
    /// Optimizer steps that a network skipped in a row, up to its last one; the largest number of all networks.
    pub skipped_in_a_row: f32,
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    let access = [Uniform, Read, Read, Read, Write, Write];
    Kernel::trusted(gpu, &SHADER, Variant::reducing(gpu.class()), &access, 0)
}

/// Most iterations of the loops of one invocation, for adapters that limit them. `statistics` are pairs of vec4s.
#[must_use]
pub fn loop_iterations(class: Class, statistics: u64, rewards: u64, envs: u64) -> u64 {
    let lanes = u64::from(Variant::reducing(class).workgroup);
    let tree = u64::from(lanes.ilog2()) + 1;
    let parts = u64::from(metrics_sums::parts(class, statistics, rewards));
    let turns = |count: u64, unrolled: u64| count.div_ceil(parts).div_ceil(unrolled * lanes);
    // Rows are read twice, for means and for deviations.
    let sum = turns(statistics, 4) + 2 * turns(rewards, 4) + turns(envs, 1) + 5 * tree;
    sum.max(2 * parts.div_ceil(lanes) + 4 * tree)
}

/// The buffers of both dispatches.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// Sums of the losses ([`super::loss`]).
    pub statistics: &'a wgpu::Buffer,
    /// Rewards.
    pub rewards: &'a wgpu::Buffer,
    /// Log-probabilities, advantages and returns.
    pub targets: &'a wgpu::Buffer,
    /// Counters of the episodes that ended.
    pub episodes: &'a wgpu::Buffer,
    /// State of the optimizer.
    pub optimizer: &'a wgpu::Buffer,
    /// [`super::scalars`].
    pub scalars: &'a wgpu::Buffer,
    /// Number of the iteration.
    pub iteration: &'a wgpu::Buffer,
    /// Sums of the parts, [`metrics_sums::words`].
    pub sums: &'a wgpu::Buffer,
    /// The [`Record`].
    pub record: &'a wgpu::Buffer,
}

/// The dispatches that end an iteration.
///
/// # Errors
/// As [`Kernel::new`] and [`Kernel::bind`].
pub fn commands(gpu: &Gpu, parameters: &WriteMetrics, bound: Bound<'_>) -> Result<[Command; 2]> {
    let Bound { statistics, rewards, targets, episodes, optimizer, scalars, iteration, sums, record } = bound;
    let uniform = gpu.uniform("write metrics", parameters)?;
    let (sum, write) = (metrics_sums::kernel(gpu)?, kernel(gpu)?);
    let summed = sum.bind(gpu, &[&uniform, statistics, rewards, targets, episodes, sums])?;
    let written = write.bind(gpu, &[&uniform, sums, optimizer, scalars, iteration, record])?;
    Ok([
        Command::dispatch(&sum, &summed, [parameters.parts, 1, 1]),
        Command::dispatch(&write, &written, [1, 1, 1]),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Recorder;
    use crate::testing::both_classes;

    #[test]
    fn the_record_gathers_and_the_counters_start_over() {
        for (gpu, parts) in both_classes().iter().flat_map(|gpu| [1, 5, 30].map(|parts| (gpu, parts))) {
            the_record_gathers(gpu, parts);
        }
    }

    /// With 30 parts some have no rows, no losses or no environments.
    fn the_record_gathers(gpu: &Gpu, parts: u32) {
        let (groups, envs) = (37u32, 12u32);
        // Two epochs that count, of three: one for each of two agents.
        let epoch = |factor: f32| {
            (0..groups).flat_map(move |g| [1.0, 2.0, g as f32, 0.5, 3.0, 9.0, 9.0, 9.0].map(|x| x * factor))
        };
        let statistics: Vec<f32> = epoch(0.5).chain(epoch(1.5)).chain(epoch(0.0)).collect();
        let metrics = WriteMetrics {
            statistics: 3 * groups,
            rewards: 24,
            envs,
            nets: 3,
            actors: 2,
            agent_steps: 2,
            groups: 2,
            parts,
        };
        let mut optimizer = [0f32; 24];
        (optimizer[1], optimizer[9], optimizer[17]) = (3.0, 5.0, 7.0);
        (optimizer[3], optimizer[7], optimizer[23]) = (0.01, 2.0, 1.0);
        // Applied; the third in a row that is skipped; waiting, with four skipped before.
        (optimizer[6], optimizer[14], optimizer[22]) = (1.0, -3.0, 6.0);
        let episodes = gpu.upload("episodes", &(0..envs * 4).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
        let iteration = gpu.upload("iteration", &[41u32, 0]).unwrap();
        let record = gpu.upload("record", &[Record::default()]).unwrap();
        // Log-probabilities, advantages and returns of 24 rows. The returns are far from 0.
        let wave = |i: usize, k: usize| ((i * k) % 11) as f32 * 0.25;
        let advantages: Vec<f32> = (0..24).map(|i| wave(i, 7) - 1.0).collect();
        let returns: Vec<f32> = (0..24).map(|i| 1000.0 + 2.0 * wave(i, 5)).collect();
        let targets = [vec![9.0; 24], advantages.clone(), returns.clone()].concat();
        let mut scalars = [0f32; 32];
        (scalars[3], scalars[4], scalars[9], scalars[13], scalars[14]) = (1.5, 2.5, 512.0, 2.0, 0.5);
        (scalars[16 + 3], scalars[16 + 4]) = (-0.5, 1.5);
        let bound = Bound {
            statistics: &gpu.upload("statistics", &statistics).unwrap(),
            rewards: &gpu.upload("rewards", &(0..24).map(|i| i as f32).collect::<Vec<_>>()).unwrap(),
            targets: &gpu.upload("targets", &targets).unwrap(),
            episodes: &episodes,
            optimizer: &gpu.upload("optimizer", &optimizer).unwrap(),
            scalars: &gpu.upload("scalars", &scalars).unwrap(),
            iteration: &iteration,
            // NaN: the second dispatch must not read what the first did not write.
            sums: &gpu.upload("sums", &vec![f32::NAN; parts as usize * metrics_sums::PART as usize]).unwrap(),
            record: &record,
        };
        Recorder::new(gpu).run(&commands(gpu, &metrics, bound).unwrap()).unwrap();
        let got: Vec<Record> = gpu.read(&record).unwrap();
        let variance = |values: &[f32]| {
            let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64;
            values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / values.len() as f64
        };
        // Advantages are returns minus values.
        let explained = 1.0 - variance(&advantages) / variance(&returns);
        let found = f64::from(got[0].explained_variance);
        assert!((found - explained).abs() < 1e-6 && explained < 0.9, "{found} for {explained}");
        let sum = |from: u32| (from * envs..(from + 1) * envs).sum::<u32>() as f32;
        let expected = Record {
            policy_loss: 37.0,
            value_loss: 74.0,
            entropy: 666.0,
            approx_kl: 18.5,
            clip_fraction: 111.0,
            actor_norm: 5.0,
            critic_norm: 7.0,
            learning_rate: 0.01,
            reward: 11.5,
            return_sum: sum(0),
            episodes: sum(1),
            episode_steps: sum(2),
            terminated: sum(3),
            skipped: 3.0,
            value_mean: 0.5,
            value_deviation: 2.0,
            loss_scale: 512.0,
            epochs: 1.0,
            explained_variance: got[0].explained_variance,
            // Two of 24 rows: the share of a row is a half.
            active_fraction: 2.0 / 24.0,
            skipped_in_a_row: 4.0,
        };
        assert_eq!(got[0], expected);
        assert_eq!(gpu.read::<u32>(&iteration).unwrap()[0], 42);
        assert!(gpu.read::<f32>(&episodes).unwrap().iter().all(|x| *x == 0.0));
    }

    /// Odd sizes, returns far from 0 with a small deviation: against f64, and with the same bits again.
    #[test]
    fn metrics_of_many_parts_agree_with_f64() {
        for gpu in both_classes() {
            for (rows, statistics, envs) in
                [(1u32, 1u32, 1u32), (2049, 7, 3), (70_001, 1500, 1023), (30_000, 9001, 4)]
            {
                let noise = |i: u32, k: u32| f64::from((i.wrapping_mul(k) >> 7) % 10_007) / 10_007.0 - 0.5;
                let parts = metrics_sums::parts(Class::Hardware, statistics.into(), rows.into());
                assert!(parts == 1 || rows > 2048);
                let metrics = WriteMetrics {
                    statistics,
                    rewards: rows,
                    envs,
                    nets: 1,
                    actors: 1,
                    agent_steps: 1,
                    groups: 1,
                    parts,
                };
                let rewards: Vec<f32> = (0..rows).map(|i| noise(i, 7919) as f32).collect();
                let advantages: Vec<f32> = (0..rows).map(|i| (3.0 + noise(i, 104_729)) as f32).collect();
                let returns: Vec<f32> = (0..rows).map(|i| (5000.0 + 4.0 * noise(i, 6007)) as f32).collect();
                let losses: Vec<f32> = (0..8 * statistics).map(|i| (1.0 + noise(i, 7907)) as f32).collect();
                let counters: Vec<f32> = (0..4 * envs).map(|i| f64::from(i % 13) as f32).collect();
                let mut scalars = [0f32; 16];
                (scalars[super::super::scalars::EPOCHS], scalars[super::super::scalars::ROW_SHARE]) =
                    (1.0, 1.0);
                let run = || {
                    let record = gpu.upload("record", &[Record::default()]).unwrap();
                    let bound = Bound {
                        statistics: &gpu.upload("statistics", &losses).unwrap(),
                        rewards: &gpu.upload("rewards", &rewards).unwrap(),
                        targets: &gpu
                            .upload("targets", &[&rewards[..], &advantages, &returns].concat())
                            .unwrap(),
                        episodes: &gpu.upload("episodes", &counters).unwrap(),
                        optimizer: &gpu.upload("optimizer", &[0f32; 8]).unwrap(),
                        scalars: &gpu.upload("scalars", &scalars).unwrap(),
                        iteration: &gpu.upload("iteration", &[0u32, 0]).unwrap(),
                        sums: &gpu.upload("sums", &vec![f32::NAN; 20 * parts as usize]).unwrap(),
                        record: &record,
                    };
                    Recorder::new(&gpu).run(&commands(&gpu, &metrics, bound).unwrap()).unwrap();
                    gpu.read::<Record>(&record).unwrap()[0]
                };
                let got = run();
                let again = run();
                assert_eq!(bytemuck::bytes_of(&got), bytemuck::bytes_of(&again));
                let near = |name: &str, got: f32, want: f64| {
                    let error = (f64::from(got) - want).abs();
                    assert!(error <= 2e-6 * want.abs().max(0.1), "{name} of {rows} rows: {got} for {want}");
                };
                let f64s = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
                let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
                let loss = |k: usize| losses.iter().skip(k).step_by(8).map(|x| f64::from(*x)).sum::<f64>();
                let ended = |k: u32| (k * envs..(k + 1) * envs).map(|i| f64::from(i % 13)).sum::<f64>();
                near("policy loss", got.policy_loss, loss(0));
                near("KL divergence", got.approx_kl, loss(3));
                near("clipped", got.clip_fraction, loss(4));
                near("reward", got.reward, mean(&f64s(&rewards)));
                near("returns", got.return_sum, ended(0));
                near("terminated", got.terminated, ended(3));
                let variance = |values: &[f64]| {
                    let centre = mean(values);
                    mean(&values.iter().map(|x| (x - centre).powi(2)).collect::<Vec<_>>())
                };
                if rows > 1 {
                    let explained = 1.0 - variance(&f64s(&advantages)) / variance(&f64s(&returns));
                    near("explained variance", got.explained_variance, explained);
                } else {
                    assert!(got.explained_variance.is_nan(), "one return is constant");
                }
            }
        }
    }
}
