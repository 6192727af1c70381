//! Begins a minibatch of an epoch: moves the running statistics of the returns that scale the critic's output (ValueNorm of the
//! MAPPO paper, arXiv 2103.01955), sets the entropy coefficient, and ends the updates on a rollout when the policy has moved too far.
//!
//! `m <- b m + (1-b) E[x]; s <- b s + (1-b) E[x^2]; d <- b d + (1-b)`; mean = m / max(d, 1e-5);
//! var = max(s / max(d, 1e-5) - mean^2, floor). E[x] and E[x^2] are means over the minibatch, from [`super::advantage_stats`]. The
//! entropy coefficient and the decay of the learning rates move linearly with the iterations. The KL divergence is the k3 estimate over all rows of the epoch before:
//! once it exceeds the limit, neither weights nor statistics move until the next rollout.
//!
//! The kernel's work is in `shaders/lib/minibatch.wgsl`, which [`super::end_step`] shares.

use crate::Result;
use crate::gpu::{Access, BindGroup, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/epoch");

/// Workgroups: one.
pub const GROUPS: [u32; 3] = [1, 1, 1];

/// Counterpart of `Epoch` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Epoch {
    /// 1 - b.
    pub weight: f32,
    /// Smallest variance.
    pub floor: f32,
    /// 0: the mean stays 0 and the deviation 1.
    pub enabled: u32,
    /// Epoch of the rollout, from 0.
    pub number: u32,
    /// Workgroups of [`super::loss`] in one epoch, each of which leaves partial sums in a place of its own.
    pub places: u32,
    /// KL divergence above which the updates on a rollout end; 0: never.
    pub target_kl: f32,
    /// Entropy coefficient of the first iteration.
    pub entropy: f32,
    /// Change of the entropy coefficient per iteration.
    pub entropy_step: f32,
    /// Iterations over which the entropy coefficient changes.
    pub iterations: u32,
    /// 0: the first minibatch of the epoch; 1: a later one.
    pub further: u32,
    /// Index of the minibatch's statistics in the scalars ([`super::scalars::minibatch`]); 0: those of the rollout are used.
    pub minibatch_stats: u32,
    /// HAPPO: the agent that learns, from 1; 0: all agents.
    pub agent_step: u32,
    /// Agents.
    pub agents: u32,
    /// Minibatches of an epoch.
    pub minibatches: u32,
    /// First place of the partial sums of the agent step.
    pub first_place: u32,
    /// Groups of agents that share networks, each with a ValueNorm: 1, or one per agent.
    pub groups: u32,
    /// 1 / iterations until the learning rates are 0; 0: they stay.
    pub rate_decay: f32,
    /// 0: [`super::end_step`] begins no minibatch.
    pub begins: u32,
    /// Fills up to 16 bytes.
    pub pad: [u32; 2],
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{DynamicUniform, Read, Write};
    let access = [DynamicUniform, Write, Read, Read];
    Kernel::trusted(gpu, &SHADER, Variant::reducing(gpu.class()), &access, size_of::<Epoch>())
}

/// Binds a table of [`Epoch`]s, scalars, statistics and iteration.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(gpu: &Gpu, kernel: &Kernel, buffers: [&wgpu::Buffer; 4]) -> Result<BindGroup> {
    kernel.bind(gpu, &buffers)
}

#[cfg(test)]
mod tests {
    use super::super::scalars;
    use super::super::testing::{close, gpu, run_at};
    use super::*;

    /// All agents share networks.
    const EPOCH: Epoch = Epoch {
        weight: 0.0,
        floor: 0.0,
        enabled: 0,
        number: 0,
        places: 0,
        target_kl: 0.0,
        entropy: 0.0,
        entropy_step: 0.0,
        iterations: 0,
        further: 0,
        minibatch_stats: 0,
        agent_step: 0,
        agents: 0,
        minibatches: 0,
        first_place: 0,
        groups: 1,
        rate_decay: 0.0,
        begins: 1,
        pad: [0; 2],
    };

    /// Scalars after one epoch that begins with `scalars`, the statistics and the iteration.
    fn begin(epoch: Epoch, scalars: &[f32], statistics: &[f32], iteration: u32) -> Vec<f32> {
        let gpu = gpu();
        let kernel = kernel(&gpu).unwrap();
        let buffer = gpu.upload("scalars", scalars).unwrap();
        let buffers = [
            &gpu.uniform_table("epoch", &[epoch]).unwrap(),
            &buffer,
            &gpu.upload("statistics", statistics).unwrap(),
            &gpu.upload("iteration", &[iteration, 0, 0, 0]).unwrap(),
        ];
        run_at(&gpu, &kernel, &bind(&gpu, &kernel, buffers).unwrap(), GROUPS);
        gpu.read(&buffer).unwrap()
    }

    #[test]
    fn three_batches_give_the_golden_values() {
        let epoch = Epoch { weight: 1e-5, floor: 1e-6, enabled: 1, ..EPOCH };
        let golden = [
            ([1.0f32, 2.0, 3.0, 4.0], 2.5, 1.25),
            ([10.0, 12.0, 14.0, 16.0], 7.7500263, 30.6875094),
            ([-5.0, 0.0, 5.0, 10.0], 6.0, 37.0001),
        ];
        let mut now = vec![0f32; 16];
        for (batch, mean, variance) in golden {
            now[scalars::RETURN_MEAN] = batch.iter().sum::<f32>() / 4.0;
            now[scalars::RETURN_SQUARE] = batch.iter().map(|x| x * x).sum::<f32>() / 4.0;
            now = begin(epoch, &now, &[0.0; 8], 0);
            let deviation = now[scalars::DEVIATION];
            close("moments", &[now[scalars::MEAN], deviation * deviation], &[mean, variance], 1e-5);
        }
    }

    #[test]
    fn a_further_minibatch_moves_the_moments_by_its_own_and_nothing_else() {
        let own = scalars::minibatch(1, 3, 2, 1) as usize;
        let mut start = [0f32; 32];
        start[own..own + 4].copy_from_slice(&[0.5, 2.0, 4.0, 20.0]);
        (start[scalars::EPOCHS], start[scalars::RETURN_MEAN]) = (1.0, 100.0);
        let minibatch_stats = own as u32;
        let further = Epoch { weight: 0.5, enabled: 1, further: 1, minibatch_stats, target_kl: 1.0, ..EPOCH };
        let got = begin(further, &start, &[9.0; 8], 0);
        assert_eq!(got[scalars::ADVANTAGE_MEAN..=scalars::RETURN_SQUARE], [0.5, 2.0, 4.0, 20.0]);
        assert_eq!(got[scalars::VALUE_NORM_MEAN..3], [2.0, 10.0, 0.5]);
        assert_eq!([got[scalars::STOPPED], got[scalars::EPOCHS]], [0.0, 1.0], "the epoch is the same");
        start[scalars::STOPPED] = 1.0;
        assert_eq!(begin(further, &start, &[9.0; 8], 0), start, "nor where it has been stopped");
    }

    /// Two agents with separate networks: each moves by the returns of its own rows, all together or in an agent step of HAPPO.
    #[test]
    fn every_group_has_moments_of_its_own() {
        let own = scalars::minibatch(2, 2, 3, 1) as usize;
        let mut start = vec![0f32; scalars::words(2, 2, 3) as usize];
        start[own..own + 8].copy_from_slice(&[0.5, 2.0, 4.0, 20.0, -0.5, 3.0, -6.0, 52.0]);
        let epoch = |agent_step| Epoch {
            weight: 0.5,
            enabled: 1,
            minibatch_stats: own as u32,
            agents: 2,
            minibatches: 3,
            groups: 2,
            agent_step,
            ..EPOCH
        };
        let stats = |of: &[f32], group: u32| {
            let at = |index| of[scalars::of_group(group, index)];
            [scalars::ADVANTAGE_MEAN, scalars::ADVANTAGE_SCALE, scalars::MEAN, scalars::DEVIATION].map(at)
        };
        let got = begin(epoch(0), &start, &[0.0; 8], 0);
        assert_eq!(stats(&got, 0), [0.5, 2.0, 4.0, 2.0]);
        assert_eq!(stats(&got, 1), [-0.5, 3.0, -6.0, 4.0]);
        let second = begin(epoch(2), &start, &[0.0; 8], 0);
        assert_eq!(stats(&second, 0), [0.0; 4]);
        assert_eq!(stats(&second, 1), [-0.5, 3.0, -6.0, 4.0]);
    }

    #[test]
    fn switched_off_it_leaves_values_alone_and_the_floor_holds() {
        let mut start = [0f32; 16];
        start[scalars::RETURN_MEAN] = 3.0;
        start[scalars::RETURN_SQUARE] = 9.0;
        for (enabled, expected) in [(0, [0.0, 1.0]), (1, [3.0, 0.5])] {
            let epoch = Epoch { weight: 0.5, floor: 0.25, enabled, ..EPOCH };
            let got = begin(epoch, &start, &[0.0; 8], 0);
            assert_eq!([got[scalars::MEAN], got[scalars::DEVIATION]], expected);
        }
    }

    #[test]
    fn the_learning_rates_fall_to_zero() {
        for (decay, iteration, expected) in [(0.0, 7, 1.0), (0.1, 0, 1.0), (0.1, 2, 0.8), (0.1, 50, 0.0)] {
            let got = begin(Epoch { rate_decay: decay, ..EPOCH }, &[0.0; 16], &[0.0; 8], iteration);
            assert!((got[scalars::RATE_SHARE] - expected).abs() < 1e-6, "{decay}, {iteration}: {got:?}");
        }
    }

    #[test]
    fn the_entropy_coefficient_moves_and_stays_at_its_end() {
        for (iteration, expected) in [(0, 0.5), (3, 0.35), (9, 0.05), (10, 0.0), (99, 0.0)] {
            let epoch = Epoch { entropy: 0.5, entropy_step: -0.05, iterations: 10, ..EPOCH };
            let got = begin(epoch, &[0.0; 16], &[0.0; 8], iteration)[scalars::ENTROPY];
            assert!((got - expected).abs() < 1e-6, "{iteration}: {got}");
        }
    }

    #[test]
    fn a_policy_that_has_moved_far_enough_stays_until_the_next_rollout() {
        // 21 places of two vec4s in each of three epochs; the divergence is the fourth number. Mean over 42 rows: 0.25.
        let places = 21u32;
        let mut statistics = vec![f32::NAN; places as usize * 8 * 3];
        for place in places..2 * places {
            statistics[place as usize * 8 + 3] = 0.5;
        }
        let mut start = [0f32; 16];
        (start[scalars::RETURN_MEAN], start[scalars::EPOCHS]) = (7.0, 2.0);
        start[scalars::ROW_SHARE] = 1.0 / 42.0;
        let epoch = |number, target_kl| Epoch { weight: 0.5, enabled: 1, number, places, target_kl, ..EPOCH };
        // Epoch 2 tests the divergence of epoch 1.
        for (target_kl, stopped) in [(0.0, false), (0.26, false), (0.24, true)] {
            let got = begin(epoch(2, target_kl), &start, &statistics, 0);
            assert_eq!(got[scalars::STOPPED] == 1.0, stopped);
            assert_eq!(got[scalars::EPOCHS], if stopped { 2.0 } else { 3.0 });
            assert_eq!(
                got[scalars::VALUE_NORM_MEAN],
                if stopped { 0.0 } else { 3.5 },
                "statistics stay as well"
            );
        }
        // A stop lasts until the next rollout.
        let mut stopped = start;
        stopped[scalars::STOPPED] = 1.0;
        let quiet = vec![0f32; statistics.len()];
        assert_eq!(begin(epoch(2, 0.24), &stopped, &quiet, 0)[scalars::STOPPED], 1.0);
        let fresh = begin(epoch(0, 0.24), &stopped, &statistics, 0);
        assert_eq!([fresh[scalars::STOPPED], fresh[scalars::EPOCHS]], [0.0, 3.0]);
        // With HAPPO the rows are those of one agent, and its places come after those of the agents before it.
        let agent_step =
            Epoch { agent_step: 2, agents: 2, minibatches: 1, first_place: places, ..epoch(1, 0.24) };
        let mut by_agent = vec![0f32; 18];
        by_agent[16..].copy_from_slice(&[f32::NAN, 1.0 / 21.0]);
        let mut other = vec![f32::NAN; places as usize * 8];
        other.extend((0..places * 8).map(|_| 0.23f32));
        assert_eq!(begin(agent_step, &by_agent, &other, 0)[scalars::STOPPED], 0.0);
        other.iter_mut().for_each(|x| *x += 0.02);
        assert_eq!(begin(agent_step, &by_agent, &other, 0)[scalars::STOPPED], 1.0);
    }
}
