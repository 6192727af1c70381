//! Ends an iteration: writes the metrics for the host as one [`Record`], clears the episode counters and counts the iteration.

use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/write_metrics");

/// Workgroups: one.
pub const GROUPS: [u32; 3] = [1, 1, 1];

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
    /// Fills up to 16 bytes.
    pub pad: u32,
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
    let access = [Uniform, Read, Read, Read, Read, Write, Write, Write, Read];
    Kernel::trusted(gpu, &SHADER, Variant::reducing(gpu.class()), &access, 0)
}

/// Most iterations of the loops of one invocation, for adapters that limit them. `statistics` are pairs of vec4s.
#[must_use]
pub fn loop_iterations(class: Class, statistics: u64, rewards: u64, envs: u64) -> u64 {
    let lanes = u64::from(Variant::reducing(class).workgroup);
    // Eight pairs or rows in an iteration, one environment. Rows are read twice, for means and for deviations.
    (statistics + 2 * rewards).div_ceil(8 * lanes) + envs.div_ceil(lanes)
}

/// Binds statistics, rewards, optimizer state, scalars, episode counters, iteration, record and targets.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    parameters: &WriteMetrics,
    buffers: [&wgpu::Buffer; 8],
) -> Result<BindGroup> {
    let uniform = gpu.uniform("write metrics", parameters)?;
    let mut all = vec![&uniform];
    all.extend(buffers);
    kernel.bind(gpu, &all)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{gpu, run};
    use super::*;

    #[test]
    fn the_record_gathers_and_the_counters_start_over() {
        let gpu = gpu();
        let kernel = kernel(&gpu).unwrap();
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
            pad: 0,
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
        let buffers = [
            &gpu.upload("statistics", &statistics).unwrap(),
            &gpu.upload("rewards", &(0..24).map(|i| i as f32).collect::<Vec<_>>()).unwrap(),
            &gpu.upload("optimizer", &optimizer).unwrap(),
            &gpu.upload("scalars", &scalars).unwrap(),
            &episodes,
            &iteration,
            &record,
            &gpu.upload("targets", &targets).unwrap(),
        ];
        run(&gpu, &kernel, &bind(&gpu, &kernel, &metrics, buffers).unwrap(), GROUPS);
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
}
