//! Statistics of a rollout and of each of its minibatches: mean and population standard deviation of the advantages of active
//! agents, mean and mean square of all returns, and the reciprocal of the number of active rows. They are computed for each group of
//! agents that share networks: for all agents, or for each. An agent is active unless its action mask is 0.
//!
//! Advantages enter the loss as (A - mean) / (deviation + 1e-5). A second pass computes the deviation about the mean. One workgroup
//! sums in a fixed order.

use crate::Result;
use crate::gpu::{Access, BindGroup, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/advantage_stats");

/// Workgroups: one reduces everything.
pub const GROUPS: [u32; 3] = [1, 1, 1];

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::trusted(gpu, &SHADER, Variant::reducing(gpu.class()), &[Uniform, Read, Write, Read], 0)
}

/// Counterpart of `AdvantageStats` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct AdvantageStats {
    /// f32s of one section of the targets.
    pub size: u32,
    /// Agents.
    pub agents: u32,
    /// Environments.
    pub envs: u32,
    /// First u32 of the masks in `dones_and_masks`.
    pub masks: u32,
    /// 1: separate networks for every agent, which is a group by itself.
    pub separate: u32,
    /// M, minibatches. The rollout has C sequences of `chunk` steps; minibatch m begins with sequence m C / M.
    pub minibatches: u32,
    /// Steps of truncated back-propagation through time; 1 without a GRU.
    pub chunk: u32,
    /// Rows over which advantages are normalised: 0 the rollout, 1 the minibatch, 2 none.
    pub over: u32,
}

/// Most iterations of the loops of one invocation, for adapters that limit them. `groups` are the sets of rows that share
/// networks: 1, or one per agent.
#[must_use]
pub fn loop_iterations(class: Class, rows: u64, groups: u64, minibatches: u64) -> u64 {
    let lanes = u64::from(Variant::reducing(class).workgroup);
    // Sums, then squared deviations, eight rows in an iteration; a reduction over all invocations follows each.
    2 * (rows.div_ceil(8 * lanes) + groups * minibatches * (lanes + 2))
}

/// Binds targets, scalars and `dones_and_masks`.
///
/// # Errors
/// As [`Kernel::bind`].
pub fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    parameters: &AdvantageStats,
    [targets, scalars, dones_and_masks]: [&wgpu::Buffer; 3],
) -> Result<BindGroup> {
    let uniform = gpu.uniform("advantage stats", parameters)?;
    kernel.bind(gpu, &[&uniform, targets, scalars, dones_and_masks])
}

#[cfg(test)]
mod tests {
    use super::super::harness::{close, gpu, run};
    use super::super::scalars;
    use super::*;

    /// Steps, agents, environments, mean of the advantages, whether some agents are not active.
    const CASES: [(usize, usize, usize, f64, bool); 5] = [
        (1, 1, 1, 0.0, false),
        (17, 59, 1, 0.0, false),
        (59, 1, 17, 1000.0, false),
        (13, 7, 11, 0.0, true),
        (3, 2, 4, 0.0, true),
    ];

    #[test]
    fn statistics_agree_with_f64_also_far_from_zero_and_with_inactive_agents() {
        let gpu = gpu();
        let kernel = kernel(&gpu).unwrap();
        for (steps, agents, envs, centre, rest) in CASES {
            let size = steps * agents * envs;
            let active = |i: usize| !rest || !(i * 7 + i / 13).is_multiple_of(5);
            // NaN in rows of inactive agents, which must not count.
            let advantage =
                |i: usize| if active(i) { centre + ((i * 37) % 101) as f64 / 50.0 - 1.0 } else { f64::NAN };
            let a: Vec<f32> = (0..size).map(|i| advantage(i) as f32).collect();
            let r: Vec<f32> = (0..size).map(|i| ((i * 53) % 97) as f32 / 40.0 - 0.5).collect();
            let masks: Vec<u32> = (0..size).map(|i| if active(i) { 2 } else { 0 }).collect();
            let targets = gpu.upload("targets", &[vec![0.0; size], a.clone(), r.clone()].concat()).unwrap();
            let dones_and_masks = gpu.upload("dones_and_masks", &[vec![9; 3], masks].concat()).unwrap();
            let rows: Vec<usize> = (0..size).filter(|i| active(*i)).collect();
            let count = rows.len() as f64;
            let tolerance = if centre == 0.0 { 2e-6 } else { 1e-4 };
            // Statistics of a range of steps, of one agent or of all.
            let moments = |steps: &std::ops::Range<usize>, agent: Option<usize>| -> [f64; 4] {
                let mine = |i: &usize| agent.is_none_or(|agent| i / envs % agents == agent);
                let all = steps.start * agents * envs..steps.end * agents * envs;
                let own = rows.iter().filter(|i| all.contains(i) && mine(i));
                let own: Vec<f64> = own.map(|i| f64::from(a[*i])).collect();
                let count = own.len().max(1) as f64;
                let average = own.iter().sum::<f64>() / count;
                let squares = own.iter().map(|a| (a - average).powi(2)).sum::<f64>();
                let returns: Vec<f64> = all.filter(mine).map(|i| f64::from(r[i])).collect();
                let mean =
                    |f: fn(f64) -> f64| returns.iter().map(|x| f(*x)).sum::<f64>() / returns.len() as f64;
                [average, 1.0 / ((squares / count).sqrt() + 1e-5), mean(|x| x), mean(|x| x * x)]
            };
            for (separate, minibatches, chunk, over) in [
                (0, 1, 1, 0),
                (1, 1, 2, 2),
                (0, steps.min(3), 1, 1),
                (1, steps.min(4), 1, 0),
                (1, steps.min(2), 1, 1),
                (0, steps.div_ceil(2).min(3), 2, 1),
            ] {
                let groups = if separate == 1 { agents } else { 1 };
                let [size, agents_, envs_, minibatches_, groups_] =
                    [size, agents, envs, minibatches, groups].map(|n| n as u32);
                let length = scalars::words(groups_, agents_, minibatches_);
                let scalars = gpu.upload("scalars", &vec![0f32; length as usize]).unwrap();
                let parameters = AdvantageStats {
                    size,
                    agents: agents_,
                    envs: envs_,
                    masks: 3,
                    separate,
                    minibatches: minibatches_,
                    chunk: chunk as u32,
                    over,
                };
                let group = bind(&gpu, &kernel, &parameters, [&targets, &scalars, &dones_and_masks]).unwrap();
                run(&gpu, &kernel, &group, GROUPS);
                let got: Vec<f32> = gpu.read(&scalars).unwrap();
                // Without normalisation advantages keep mean 0 and scale 1; returns are not affected.
                let as_wanted = |[mean, scale, first, second]: [f64; 4]| match over {
                    2 => [0.0, 1.0, first, second],
                    _ => [mean, scale, first, second],
                };
                close("share", &got[scalars::ROW_SHARE..], &[1.0 / count], 1e-6);
                for (group, m) in (0..groups).flat_map(|group| (0..minibatches).map(move |m| (group, m))) {
                    let agent = (separate == 1).then_some(group);
                    let whole = moments(&(0..steps), agent);
                    let at = scalars::of_group(group as u32, scalars::ADVANTAGE_MEAN);
                    close("statistics", &got[at..], &as_wanted(whole), tolerance);
                    let chunks = steps.div_ceil(chunk);
                    let start = |m: usize| (m * chunks / minibatches * chunk).min(steps);
                    let own = start(m)..start(m + 1);
                    let [mean, scale, first, second] = moments(&own, agent);
                    let expected = match over {
                        1 => [mean, scale, first, second],
                        _ => as_wanted([whole[0], whole[1], first, second]),
                    };
                    let at =
                        scalars::minibatch(groups_, agents_, minibatches_, m as u32) as usize + 4 * group;
                    close("a minibatch's statistics", &got[at..], &expected, tolerance.max(1e-5));
                    let inside = |i: &&usize| own.contains(&(*i / envs / agents));
                    for agent in 0..agents {
                        let counts = |i: &&usize| inside(i) && (separate == 0 || *i / envs % agents == agent);
                        let rows = rows.iter().filter(counts).count().max(1);
                        let at = scalars::share(groups_, agents_, m as u32, agent as u32) as usize;
                        close("agent's share", &got[at..], &[1.0 / rows as f64], 1e-6);
                    }
                }
            }
        }
    }
}
