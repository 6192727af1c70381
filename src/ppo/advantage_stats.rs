//! Statistics of a rollout and of each of its minibatches; in a shuffled epoch, of the minibatches alone: mean and population
//! standard deviation of the advantages of active agents, mean and mean square of all returns, and the reciprocal of the number of
//! active rows. They are computed for each group of agents that share networks: for all agents, or for each. An agent is active unless
//! its action mask is 0.
//!
//! Advantages enter the loss as (A - mean) / (deviation + 1e-5). Sums of parts of the rows ([`advantage_sums`]) are joined by a second
//! dispatch, in a fixed order.

use super::advantage_sums;
use crate::Result;
use crate::gpu::{Access, Class, Command, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/advantage_stats");

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::trusted(gpu, &SHADER, Variant::reducing(gpu.class()), &[Uniform, Read, Write], 0)
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
    /// First u32 of the order in `dones_and_masks` ([`super::shuffle`]); 0: minibatches are consecutive steps.
    pub order: u32,
    /// Workgroups for the rows of a minibatch of a group ([`advantage_sums::parts`]).
    pub parts: u32,
    /// Fills up to 16 bytes.
    pub pad: [u32; 2],
}

impl AdvantageStats {
    /// Sets of rows that share networks.
    fn groups(&self) -> u32 {
        if self.separate == 1 { self.agents } else { 1 }
    }

    /// Workgroups of both dispatches. The second has one for every group, and in a shuffled epoch for every minibatch.
    fn grids(&self) -> [[u32; 3]; 2] {
        let joined = if self.order > 0 { self.minibatches } else { 1 };
        [[self.parts, self.minibatches, self.groups()], [joined, self.groups(), 1]]
    }
}

/// Most iterations of the loops of one invocation, for adapters that limit them.
#[must_use]
pub fn loop_iterations(class: Class, rows: u64, groups: u64, agents: u64, minibatches: u64) -> u64 {
    let lanes = u64::from(Variant::reducing(class).workgroup);
    let tree = u64::from(lanes.ilog2()) + 1;
    let sets = groups * minibatches;
    let parts = u64::from(advantage_sums::parts(class, rows, groups as u32, minibatches as u32));
    // Sums, then squared distances, eight rows in an iteration; a tree over all invocations follows each.
    let sum = 2 * (rows.div_ceil(sets * parts).div_ceil(8 * lanes) + tree);
    // For every minibatch two passes over its parts, and the share of a row for every agent; then the active rows of all parts.
    let join =
        minibatches * (2 * (parts.div_ceil(lanes) + tree) + agents) + (sets * parts).div_ceil(lanes) + tree;
    sum.max(join)
}

/// The dispatches that write the statistics, on targets, scalars, `dones_and_masks` and sums.
///
/// # Errors
/// As [`Kernel::new`] and [`Kernel::bind`].
pub fn commands(
    gpu: &Gpu,
    parameters: &AdvantageStats,
    [targets, scalars, dones_and_masks, sums]: [&wgpu::Buffer; 4],
) -> Result<[Command; 2]> {
    let uniform = gpu.uniform("advantage stats", parameters)?;
    let (sum, join) = (advantage_sums::kernel(gpu)?, kernel(gpu)?);
    let [parts, joined] = parameters.grids();
    let summed = sum.bind(gpu, &[&uniform, targets, dones_and_masks, sums])?;
    let written = join.bind(gpu, &[&uniform, sums, scalars])?;
    Ok([Command::dispatch(&sum, &summed, parts), Command::dispatch(&join, &written, joined)])
}

#[cfg(test)]
mod tests {
    use super::super::testing::close;
    use super::super::{scalars, shuffle};
    use super::*;
    use crate::gpu::Recorder;
    use crate::testing::both_classes;

    /// Computes the statistics, with so many parts; twice, which has to give the same bits.
    fn stats(gpu: &Gpu, parameters: AdvantageStats, data: [&[f32]; 2], words: &[u32]) -> Vec<f32> {
        let [targets, before] = data;
        let sets = parameters.groups() * parameters.minibatches * parameters.parts;
        // NaN: the second dispatch must not read what the first did not write.
        let run = || {
            let sums = gpu.upload("sums", &vec![f32::NAN; sets as usize * 8]).unwrap();
            let scalars = gpu.upload("scalars", before).unwrap();
            let bound = [
                &gpu.upload("targets", targets).unwrap(),
                &scalars,
                &gpu.upload("words", words).unwrap(),
                &sums,
            ];
            Recorder::new(gpu).run(&commands(gpu, &parameters, bound).unwrap()).unwrap();
            gpu.read::<f32>(&scalars).unwrap()
        };
        let got = run();
        assert_eq!(bytemuck::cast_slice::<_, u8>(&got), bytemuck::cast_slice::<_, u8>(&run()));
        got
    }

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
        for (gpu, (steps, agents, envs, centre, rest)) in
            both_classes().iter().flat_map(|gpu| CASES.map(|case| (gpu, case)))
        {
            let size = steps * agents * envs;
            let active = |i: usize| !rest || !(i * 7 + i / 13).is_multiple_of(5);
            // NaN in rows of inactive agents, which must not count.
            let advantage =
                |i: usize| if active(i) { centre + ((i * 37) % 101) as f64 / 50.0 - 1.0 } else { f64::NAN };
            let a: Vec<f32> = (0..size).map(|i| advantage(i) as f32).collect();
            let r: Vec<f32> = (0..size).map(|i| ((i * 53) % 97) as f32 / 40.0 - 0.5).collect();
            let masks: Vec<u32> = (0..size).map(|i| if active(i) { 2 } else { 0 }).collect();
            let targets = [vec![0.0; size], a.clone(), r.clone()].concat();
            let dones_and_masks = [vec![9; 3], masks].concat();
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
            // The last number: parts, of which some have no rows.
            for (separate, minibatches, chunk, over, parts) in [
                (0, 1, 1, 0, 1),
                (0, 1, 1, 0, 5),
                (1, 1, 2, 2, 3),
                (0, steps.min(3), 1, 1, 300),
                (1, steps.min(4), 1, 0, 2),
                (1, steps.min(2), 1, 1, 17),
                (0, steps.div_ceil(2).min(3), 2, 1, 4),
            ] {
                let groups = if separate == 1 { agents } else { 1 };
                let [size, agents_, envs_, minibatches_, groups_] =
                    [size, agents, envs, minibatches, groups].map(|n| n as u32);
                let length = scalars::words(groups_, agents_, minibatches_);
                let parameters = AdvantageStats {
                    size,
                    agents: agents_,
                    envs: envs_,
                    masks: 3,
                    separate,
                    minibatches: minibatches_,
                    chunk: chunk as u32,
                    over,
                    parts,
                    ..AdvantageStats::default()
                };
                let before = vec![0f32; length as usize];
                let got = stats(gpu, parameters, [&targets, &before], &dones_and_masks);
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

    /// Seven steps of twelve environments and three agents, in sequences of one step and of three, the last of which lists two
    /// steps after the end.
    #[test]
    fn shuffled_minibatches_have_the_statistics_of_their_rows() {
        let (steps, agents, envs) = (7, 3, 12);
        let size = steps * agents * envs;
        let advantages: Vec<f32> = (0..size).map(|i| ((i * 37) % 101) as f32 / 50.0).collect();
        let returns: Vec<f32> = (0..size).map(|i| ((i * 53) % 97) as f32 / 40.0).collect();
        let masks: Vec<u32> =
            (0..size).map(|i: usize| u32::from(!(i * 7 + i / 13).is_multiple_of(5))).collect();
        let targets = [vec![0.0; size], advantages.clone(), returns.clone()].concat();
        let cases = [(1, 3, 0, 1, 1), (1, 4, 1, 0, 3), (3, 2, 1, 1, 7), (3, 3, 0, 2, 20)];
        for (gpu, (chunk, minibatches, separate, over, parts)) in
            both_classes().iter().flat_map(|gpu| cases.map(|case| (gpu, case)))
        {
            let chunks = steps.div_ceil(chunk);
            let shuffle = shuffle::Shuffle {
                quads: envs as u32 / 4,
                chunk: chunk as u32,
                chunks: chunks as u32,
                ..shuffle::Shuffle::default()
            };
            let order = shuffle::tests::order(&shuffle, 5);
            let words = [&[9; 2][..], &masks, &order].concat();
            let groups_ = if separate == 1 { agents as u32 } else { 1 };
            let length = scalars::words(groups_, agents as u32, minibatches) as usize;
            let mut before = vec![-1f32; length];
            for group in 0..groups_ {
                before[scalars::of_group(group, scalars::ADVANTAGE_MEAN)] = 0.5 + group as f32;
            }
            let parameters = AdvantageStats {
                size: size as u32,
                agents: agents as u32,
                envs: envs as u32,
                masks: 2,
                separate,
                minibatches,
                chunk: chunk as u32,
                over,
                order: (2 + size) as u32,
                parts,
                ..AdvantageStats::default()
            };
            let got = stats(gpu, parameters, [&targets, &before], &words);
            let rollout = ..groups_ as usize * scalars::GROUP;
            assert_eq!(got[rollout], before[rollout], "those of the rollout stay");
            for m in 0..minibatches as usize {
                let start = |m: usize| m * chunks / minibatches as usize * chunk;
                // Whether the minibatch has a row.
                let has = |row: usize| {
                    let (step, quad) = (row / envs / agents, row % envs / 4);
                    let place =
                        (0..chunks * chunk).find(|place| order[place * envs / 4 + quad] == step as u32);
                    (start(m)..start(m + 1)).contains(&place.unwrap())
                };
                let rows: Vec<usize> = (0..size).filter(|row| has(*row)).collect();
                let mean = |of: &dyn Fn(usize) -> f64, rows: &[usize]| {
                    rows.iter().map(|row| of(*row)).sum::<f64>() / rows.len() as f64
                };
                for agent in 0..agents {
                    let own = |row: &&usize| separate == 0 || **row / envs % agents == agent;
                    let own: Vec<usize> = rows.iter().filter(own).copied().collect();
                    let active: Vec<usize> = own.iter().copied().filter(|row| masks[*row] != 0).collect();
                    let average = mean(&|row| f64::from(advantages[row]), &active);
                    let square = mean(&|row| (f64::from(advantages[row]) - average).powi(2), &active);
                    let group = if separate == 1 { agent } else { 0 };
                    let [centre, scale] = match over {
                        1 => [average, 1.0 / (square.sqrt() + 1e-5)],
                        _ => [0.5 + group as f64, -1.0],
                    };
                    let first = mean(&|row| f64::from(returns[row]), &own);
                    let second = mean(&|row| f64::from(returns[row]).powi(2), &own);
                    let at = scalars::minibatch(groups_, agents as u32, minibatches, m as u32) as usize;
                    let at = at + 4 * group;
                    close("a minibatch's statistics", &got[at..], &[centre, scale, first, second], 1e-5);
                    let at = scalars::share(groups_, agents as u32, m as u32, agent as u32) as usize;
                    close("agent's share", &got[at..], &[1.0 / active.len() as f64], 1e-6);
                }
            }
        }
    }
}
