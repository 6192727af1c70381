//! Parallel compilation of the kernels of a training run, before they are bound.

use super::config::Algorithm;
use super::setup::Setup;
use crate::Result;
use crate::gpu::{Job, in_parallel};
use crate::nn::{backward, fold, forward, reduce, unfold, weight_gradient};
use crate::ppo::{
    adamw, advantage_stats, advantage_sums, clip, epoch, gae, gradient, loss, metrics_sums, normalize,
    observation_sums, running_mean_std, sample, shuffle, write_metrics,
};

/// Compiles every kernel of the rollout and of the update into the device's cache, where [`super::Trainer`] then finds
/// them. The environment compiles its own kernels.
///
/// # Errors
/// [`crate::Error::Shader`] for a kernel that does not compile.
pub fn compile(setup: Setup<'_>) -> Result<()> {
    let Setup { gpu, config, sizes, layout, kernel_config, .. } = setup;
    let shape = &layout.shape;
    let happo = config.ppo.algorithm == Algorithm::Happo;
    // Ordered by compile time, so that the slowest kernels start first.
    let mut jobs: Vec<Job<'_>> = Vec::new();
    if kernel_config.blocks.is_some() {
        jobs.push(Box::new(|| gradient::kernel(gpu, kernel_config, shape, sizes.kind, happo).map(drop)));
    } else {
        jobs.push(Box::new(|| backward::kernel(gpu, shape, kernel_config).map(drop)));
        jobs.push(Box::new(|| weight_gradient::kernel(gpu, kernel_config).map(drop)));
    }
    jobs.push(Box::new(|| forward::kernel(gpu, shape, kernel_config).map(drop)));
    if kernel_config.blocks.is_none() || happo {
        jobs.push(Box::new(|| loss::kernel(gpu, kernel_config, sizes.kind, happo).map(drop)));
    }
    let others: [Job<'_>; 12] = [
        Box::new(|| sample::kernel(gpu, sizes.kind).map(drop)),
        Box::new(|| advantage_sums::kernel(gpu).map(drop)),
        Box::new(|| advantage_stats::kernel(gpu).map(drop)),
        Box::new(|| epoch::kernel(gpu).map(drop)),
        Box::new(|| metrics_sums::kernel(gpu).map(drop)),
        Box::new(|| write_metrics::kernel(gpu).map(drop)),
        Box::new(|| clip::kernel(gpu).map(drop)),
        Box::new(|| adamw::kernel(gpu).map(drop)),
        Box::new(|| gae::kernel(gpu).map(drop)),
        Box::new(|| fold::kernel(gpu, kernel_config).map(drop)),
        Box::new(|| unfold::kernel(gpu).map(drop)),
        Box::new(|| reduce::kernel(gpu).map(drop)),
    ];
    jobs.extend(others);
    if sizes.shuffled() {
        jobs.push(Box::new(|| shuffle::kernel(gpu).map(drop)));
    }
    if sizes.normalized {
        jobs.push(Box::new(|| normalize::kernel(gpu, kernel_config.storage).map(drop)));
        jobs.push(Box::new(|| observation_sums::kernel(gpu).map(drop)));
        jobs.push(Box::new(|| running_mean_std::kernel(gpu).map(drop)));
    }
    in_parallel(&jobs)
}
