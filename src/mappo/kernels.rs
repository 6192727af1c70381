//! Parallel compilation of the kernels of a training run, before they are bound.

use super::config::Algorithm;
use super::rollout;
use super::setup::Setup;
use crate::Result;
use crate::env::Environment;
use crate::gpu::{Job, in_parallel};
use crate::nn::forward::Phase;
use crate::nn::{backward, fold, forward, reduce, weight_gradient};
use crate::ppo::{
    adamw, advantage_stats, advantage_sums, end_step, epoch, gae, gradient, loss, metrics_sums, normalize,
    observation_sums, running_mean_std, sample, shuffle, write_metrics,
};

/// Compiles every kernel of the rollout and of the update into the device's cache, where [`super::Trainer`] then finds
/// them. The environment compiles the kernels of which it alone consists.
///
/// # Errors
/// [`crate::Error::Shader`] for a kernel that does not compile.
pub fn compile(setup: Setup<'_>, environment: &dyn Environment) -> Result<()> {
    let Setup { gpu, config, sizes, layout, kernel_config, .. } = setup;
    let shape = &layout.shape;
    let played = rollout::functions(setup, environment)?;
    let happo = config.ppo.algorithm == Algorithm::Happo;
    // Ordered by compile time, so that the slowest kernels start first.
    let mut jobs: Vec<Job<'_>> = Vec::new();
    if let Some(played) = &played {
        jobs.push(Box::new(|| played.rollout_kernel(gpu, kernel_config, layout, sizes.kind).map(drop)));
    }
    if kernel_config.blocks.is_some() {
        jobs.push(Box::new(|| gradient::kernel(gpu, kernel_config, shape, sizes.kind, happo).map(drop)));
    } else {
        for phase in backward::phases(shape, kernel_config) {
            jobs.push(Box::new(move || backward::kernel(gpu, shape, kernel_config, phase).map(drop)));
        }
        jobs.push(Box::new(|| weight_gradient::kernel(gpu, kernel_config).map(drop)));
    }
    for phase in Phase::of(shape, kernel_config).chain([Phase::Whole]) {
        jobs.push(Box::new(move || forward::kernel(gpu, shape, kernel_config, phase).map(drop)));
    }
    if kernel_config.blocks.is_none() || happo {
        jobs.push(Box::new(|| loss::kernel(gpu, kernel_config, sizes.kind, happo).map(drop)));
    }
    if played.is_none() {
        jobs.push(Box::new(|| sample::kernel(gpu, sizes.kind).map(drop)));
    }
    let others: [Job<'_>; 10] = [
        Box::new(|| advantage_sums::kernel(gpu).map(drop)),
        Box::new(|| advantage_stats::kernel(gpu).map(drop)),
        Box::new(|| epoch::kernel(gpu).map(drop)),
        Box::new(|| metrics_sums::kernel(gpu).map(drop)),
        Box::new(|| write_metrics::kernel(gpu).map(drop)),
        Box::new(|| end_step::kernel(gpu, kernel_config).map(drop)),
        Box::new(|| adamw::kernel(gpu).map(drop)),
        Box::new(|| gae::kernel(gpu).map(drop)),
        Box::new(|| fold::kernel(gpu, kernel_config).map(drop)),
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
