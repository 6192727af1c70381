//! Running mean and standard deviation of observations, column by column: the statistics of a rollout are joined to those of all
//! rollouts before (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
//!
//! Agents that share networks share statistics. Rows of inactive agents do not count, nor do values that are not finite. Shapes:
//! observations as in [`super::normalize`], slots 0 to T - 1; statistics `[column][4]`, a column for every agent and feature, then one
//! for every number of the global state: mean, the rounding error of that mean, sum of the squared deviations, count.

use super::observation_sums;
use crate::Result;
use crate::gpu::{Access, Class, Command, GROUPS_IN_A_ROW, Gpu, Kernel, Shader, Variant, in_rows};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/running_mean_std");

/// Counterpart of `RunningMeanStd` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct RunningMeanStd {
    /// T.
    pub steps: u32,
    /// Agents.
    pub agents: u32,
    /// Features of an agent.
    pub obs_dim: u32,
    /// Numbers of the global state.
    pub state_dim: u32,
    /// Environments / 4.
    pub quads: u32,
    /// First quad of the states.
    pub first_state: u32,
    /// First quad of the masks in `dones_and_masks`.
    pub masks: u32,
    /// 1: separate statistics for every agent.
    pub separate: u32,
    /// Always 0. A value that compilers do not know keeps them from simplifying compensated sums.
    pub zero: u32,
    /// Workgroups that sum a column ([`observation_sums::parts`]).
    pub parts: u32,
    /// Fills up to 16 bytes.
    pub pad: [u32; 2],
}

impl RunningMeanStd {
    fn columns(&self) -> u32 {
        let agents = if self.separate == 1 { self.agents } else { 1 };
        agents * self.obs_dim + self.state_dim
    }

    /// Workgroups of both dispatches: one per part of a column, one per column. A column is a feature, or a feature of an agent if
    /// agents are separate, or a number of a state.
    fn grids(&self) -> [[u32; 3]; 2] {
        [self.columns() * self.parts, self.columns()].map(|groups| {
            let [x, y] = in_rows(groups);
            [x, y, 1]
        })
    }
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Write], 0)
}

/// The variant for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::reducing(class).with("GROUPS", GROUPS_IN_A_ROW)
}

/// f32s of the statistics of `columns` columns.
#[must_use]
pub fn words(columns: u32) -> u64 {
    4 * u64::from(columns)
}

/// Most iterations of the loops of one invocation, for adapters that limit them, for `rows` rows of all agents.
#[must_use]
pub fn loop_iterations(class: Class, rows: u64, agents: u64) -> u64 {
    let lanes = u64::from(variant(class).workgroup);
    let (tree, parts) = (u64::from(lanes.ilog2()) + 1, u64::from(observation_sums::parts(class, rows)));
    // Two passes over the quads of a part, two quads in an iteration, and a tree after each.
    let sum = 2 * (rows.div_ceil(parts).div_ceil(8 * lanes) + tree);
    // Two passes over the parts; then a write per agent.
    sum.max(2 * (parts.div_ceil(lanes) + tree) + agents)
}

/// The dispatches that update the statistics, on raw observations, `dones_and_masks`, statistics and sums.
///
/// # Errors
/// As [`Kernel::new`] and [`Kernel::bind`].
pub fn commands(
    gpu: &Gpu,
    parameters: &RunningMeanStd,
    [raw, dones_and_masks, moments, sums]: [&wgpu::Buffer; 4],
) -> Result<[Command; 2]> {
    let uniform = gpu.uniform("running mean std", parameters)?;
    let (sum, join) = (observation_sums::kernel(gpu)?, kernel(gpu)?);
    let [parts, columns] = parameters.grids();
    let summed = sum.bind(gpu, &[&uniform, raw, dones_and_masks, moments, sums])?;
    let joined = join.bind(gpu, &[&uniform, sums, moments])?;
    Ok([Command::dispatch(&sum, &summed, parts), Command::dispatch(&join, &joined, columns)])
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::normalize;
    use super::super::testing::{gpu, run_at};
    use super::*;
    use crate::gpu::{Recorder, STATE};
    use crate::nn::Storage;
    use crate::testing::both_classes;

    /// Agents, features, numbers of a state, environments, steps.
    const SIZES: [[usize; 5]; 3] = [[1, 1, 0, 4, 1], [3, 5, 2, 12, 7], [2, 18, 3, 36, 11]];

    struct Case {
        sizes: [usize; 5],
        separate: bool,
        raw: Vec<f32>,
        dones_and_masks: Vec<u32>,
    }

    impl Case {
        /// Columns of unrelated units, one of which never changes; some agents are not active.
        fn new(sizes: [usize; 5], separate: bool, rollout: usize) -> Self {
            let [agents, features, numbers, envs, steps] = sizes;
            let slots = steps + 2;
            let value = |column: usize, i: usize| {
                let unit = [1.0, 1e-7, 1e6, 250.0, 1e-3][column % 5];
                let centre = [0.0, 3e-7, 4e6, -250.0, 40.0][column % 5];
                let x = (((i + rollout * 7) * (37 + 2 * column)) % 101) as f64 / 50.0 - 1.0 + rollout as f64;
                if column % 6 == 5 { 12345.678 } else { (centre + unit * x) as f32 }
            };
            let mut raw = Vec::new();
            for slot in 0..slots {
                for agent in 0..agents {
                    for feature in 0..features {
                        raw.extend((0..envs).map(|env| value(feature, (slot * agents + agent) * envs + env)));
                    }
                }
            }
            for slot in 0..slots {
                for number in 0..numbers {
                    raw.extend((0..envs).map(|env| value(number + 1, slot * envs + env)));
                }
            }
            // Values that are not finite, in active rows.
            raw[1] = f32::NAN;
            raw[(steps - 1) * agents * features * envs + 2] = f32::INFINITY;
            let rests = |row: usize| agents > 1 && (row * 5 + row / 7).is_multiple_of(4);
            let masks = (0..slots * agents * envs).map(|row| if rests(row) { 0 } else { 3 });
            let dones_and_masks = std::iter::repeat_n(9, steps * envs).chain(masks).collect();
            Self { sizes, separate, raw, dones_and_masks }
        }

        fn first_state(&self) -> usize {
            let [agents, features, _, envs, steps] = self.sizes;
            (steps + 2) * agents * features * envs
        }

        fn columns(&self) -> usize {
            self.sizes[0] * self.sizes[1] + self.sizes[2]
        }

        /// Index of the value of a column, slot and environment.
        fn at(&self, column: usize, slot: usize, env: usize) -> usize {
            let [agents, features, numbers, envs, _] = self.sizes;
            match column.checked_sub(agents * features) {
                None => (slot * agents * features + column) * envs + env,
                Some(number) => self.first_state() + (slot * numbers + number) * envs + env,
            }
        }

        /// The values of a column that count.
        fn seen(&self, column: usize) -> Vec<f64> {
            let [agents, features, _, envs, steps] = self.sizes;
            let observed = agents * features;
            let own = |agent: usize| column < observed && (!self.separate || column / features == agent);
            let mut all = Vec::new();
            for slot in 0..steps {
                for env in 0..envs {
                    if column >= observed {
                        all.push(self.raw[self.at(column, slot, env)]);
                    }
                    for agent in (0..agents).filter(|agent| own(*agent)) {
                        if self.dones_and_masks[steps * envs + (slot * agents + agent) * envs + env] != 0 {
                            all.push(self.raw[self.at(agent * features + column % features, slot, env)]);
                        }
                    }
                }
            }
            all.into_iter().filter(|x| x.is_finite()).map(f64::from).collect()
        }

        fn run(&self, gpu: &Gpu, moments: &wgpu::Buffer, parts: u32) {
            let [agents, obs_dim, state_dim, envs, steps] = self.sizes.map(|size| size as u32);
            let parameters = RunningMeanStd {
                steps,
                agents,
                obs_dim,
                state_dim,
                quads: envs / 4,
                first_state: self.first_state() as u32 / 4,
                masks: steps * envs / 4,
                separate: u32::from(self.separate),
                parts,
                ..RunningMeanStd::default()
            };
            let raw = gpu.upload("raw", &self.raw).unwrap();
            let dones_and_masks = gpu.upload("dones_and_masks", &self.dones_and_masks).unwrap();
            // NaN: the second dispatch must not read what the first did not write.
            let sums = vec![f32::NAN; (4 * parameters.columns() * parts) as usize];
            let sums = gpu.upload("sums", &sums).unwrap();
            let bound = [&raw, &dones_and_masks, moments, &sums];
            Recorder::new(gpu).run(&commands(gpu, &parameters, bound).unwrap()).unwrap();
        }

        /// All slots except the first, normalised.
        fn normalized(&self, gpu: &Gpu, moments: &wgpu::Buffer, storage: Storage) -> Vec<f32> {
            let [agents, obs_dim, state_dim, envs, steps] = self.sizes.map(|size| size as u32);
            let parameters = normalize::Normalize {
                first_slot: 1,
                slots: steps + 1,
                quads: envs / 4,
                observed: agents * obs_dim,
                state_dim,
                first_state: self.first_state() as u32 / 4,
                limit: normalize::LIMIT,
                pad: 0,
            };
            let raw = gpu.upload("raw", &self.raw).unwrap();
            let bytes = self.raw.len() as u64 * storage.precision().bytes();
            let stored = gpu.buffer("observations", bytes, STATE).unwrap();
            let kernel = normalize::kernel(gpu, storage).unwrap();
            let table = gpu.uniform_table("normalize", &[parameters]).unwrap();
            let group = normalize::bind(gpu, &kernel, [&table, &raw, moments, &stored]).unwrap();
            run_at(gpu, &kernel, &group, normalize::groups(&kernel.variant, &parameters));
            match storage {
                Storage::F32 => gpu.read(&stored).unwrap(),
                _ => gpu.read::<f16>(&stored).unwrap().into_iter().map(f16::to_f32).collect(),
            }
        }
    }

    #[test]
    fn moments_are_those_of_everything_seen_whatever_its_units() {
        // With 50 parts some have no rows.
        for (gpu, parts) in both_classes().iter().flat_map(|gpu| [1, 3, 50].map(|parts| (gpu, parts))) {
            moments_are_those_of_everything_seen(gpu, parts);
        }
    }

    fn moments_are_those_of_everything_seen(gpu: &Gpu, parts: u32) {
        for sizes in SIZES {
            for separate in [false, true] {
                let rollouts = [0, 1, 2].map(|rollout| Case::new(sizes, separate, rollout));
                let columns = rollouts[0].columns();
                let [moments, again] =
                    ["moments", "again"].map(|name| gpu.upload(name, &vec![0f32; columns * 4]).unwrap());
                let mut seen = vec![Vec::new(); columns];
                for case in &rollouts {
                    case.run(gpu, &moments, parts);
                    case.run(gpu, &again, parts);
                    let got: Vec<f32> = gpu.read(&moments).unwrap();
                    assert_eq!(bytemuck::cast_slice::<_, u8>(&got), gpu.read::<u8>(&again).unwrap());
                    for (column, seen) in seen.iter_mut().enumerate() {
                        seen.extend(case.seen(column));
                        let count = seen.len() as f64;
                        let mean = seen.iter().sum::<f64>() / count;
                        let deviation = (seen.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
                        let got: Vec<f64> = (0..4).map(|i| f64::from(got[column * 4 + i])).collect();
                        let name = format!("column {column} of {sizes:?}, separate: {separate}");
                        assert_eq!(got[3], count, "{name}");
                        let found = [got[0] + got[1], (got[2] / count).sqrt()];
                        let blur = 1e-5 * deviation + 1e-9 * mean.abs();
                        let near = (found[0] - mean).abs() < blur && (found[1] - deviation).abs() < blur;
                        assert!(near, "{name}: {found:?}, not {mean} and {deviation}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_seen_is_normalised_in_every_storage() {
        let gpu = gpu();
        let native = gpu.device().features().contains(wgpu::Features::SHADER_F16);
        for (storage, tolerance) in [(Storage::F32, 1e-5), (Storage::F16, 2e-3), (Storage::Packed, 2e-3)] {
            if storage == Storage::F16 && !native {
                println!("skipped, the adapter cannot: {storage:?}");
                continue;
            }
            for sizes in SIZES {
                let case = Case::new(sizes, true, 0);
                let columns = case.columns();
                // Statistics of earlier rollouts, so that some numbers exceed the limit; and those of a column that never changed.
                let moment = |column: usize| -> [f64; 2] {
                    [[100.0, 0.25], [2.5e-7, 5e-7], [4e6, 666_667.0], [7.0, 1e-9]][column % 4]
                };
                let stored = |column| {
                    let [mean, deviation] = moment(column);
                    let high = mean as f32;
                    [high, (mean - f64::from(high)) as f32, (3.0 * deviation * deviation) as f32, 3.0]
                };
                let moments: Vec<[f32; 4]> = (0..columns).map(stored).collect();
                let got = case.normalized(&gpu, &gpu.upload("moments", &moments).unwrap(), storage);
                let limit = f64::from(normalize::LIMIT);
                for slot in 0..sizes[4] + 2 {
                    for env in 0..sizes[3] {
                        for column in 0..columns {
                            let [mean, deviation] = moment(column);
                            let at = case.at(column, slot, env);
                            let raw = f64::from(case.raw[at]);
                            let scale = if deviation > 1e-6 * mean { 1.0 / deviation } else { 0.0 };
                            let x = if raw.is_finite() { (raw - mean) * scale } else { f64::NAN };
                            let expected = if slot == 0 { 0.0 } else { x.clamp(-limit, limit) };
                            let error = (f64::from(got[at]) - expected).abs();
                            let same = expected.is_nan() && got[at].is_nan();
                            assert!(
                                same || error <= tolerance * expected.abs().max(1.0),
                                "{at}: {raw}, {}",
                                got[at]
                            );
                        }
                    }
                }
            }
        }
    }

    /// Numbers whose square overflows, and rollouts without active agents, leave the statistics unchanged.
    #[test]
    fn moments_survive_what_cannot_be_summed() {
        let gpu = gpu();
        let mut case = Case::new([2, 3, 0, 4, 5], false, 0);
        let moments = gpu.upload("moments", &[0f32; 24]).unwrap();
        case.run(&gpu, &moments, 3);
        let before: Vec<f32> = gpu.read(&moments).unwrap();
        assert!(before.iter().all(|x| x.is_finite()) && before[3] > 0.0, "{before:?}");
        case.raw.fill(3e38);
        case.run(&gpu, &moments, 3);
        assert_eq!(gpu.read::<f32>(&moments).unwrap(), before);
        case.raw.fill(1.0);
        case.dones_and_masks.fill(0);
        case.run(&gpu, &moments, 3);
        assert_eq!(gpu.read::<f32>(&moments).unwrap(), before);
    }

    /// A constant column has deviation 0, even if the first agent is not active and sums would round.
    #[test]
    fn a_constant_stays_one_however_often_it_is_seen() {
        let gpu = gpu();
        let mut case = Case::new([1, 1, 0, 512, 40], false, 0);
        let moments = gpu.upload("moments", &[0f32; 4]).unwrap();
        case.raw.fill(12345.678);
        let first_mask = case.dones_and_masks.len() - 42 * 512;
        case.dones_and_masks[first_mask] = 0;
        for rollout in 1..4 {
            case.run(&gpu, &moments, 3);
            let [mean, rest, squares, count] = gpu.read::<f32>(&moments).unwrap()[..] else { unreachable!() };
            assert_eq!(count, (40 * 512 - 1) as f32 * rollout as f32);
            assert!((mean + rest - 12345.678).abs() < 2e-3, "{mean}, {rest}");
            assert!((squares / count).sqrt() < 1e-7 * 12345.678, "{squares}");
        }
    }

    /// After many rollouts a step of the mean is below the resolution of f32, and still counts.
    #[test]
    fn the_mean_follows_steps_that_an_f32_of_it_cannot_take() {
        let gpu = gpu();
        let mut case = Case::new([1, 1, 0, 4, 1], false, 0);
        // A mean of 40,000 after a million values: one step is 1e-4 of a deviation of 10, while f32s there are 0.004 apart.
        let moments = gpu.upload("moments", &[[40_000.0f32, 0.0, 1e8, 1e6]]).unwrap();
        case.raw.fill(40_200.0);
        for _ in 0..50 {
            case.run(&gpu, &moments, 3);
        }
        let got: Vec<f32> = gpu.read(&moments).unwrap();
        let expected = 200.0 * 200.0 / (1e6 + 200.0);
        let mean = f64::from(got[0]) - 40_000.0 + f64::from(got[1]);
        assert!((mean / expected - 1.0).abs() < 1e-3, "{got:?}, {mean} for {expected}");
    }

    #[test]
    fn more_columns_than_a_row_of_workgroups_are_reached() {
        let parameters = RunningMeanStd {
            agents: 4,
            obs_dim: 16_384,
            state_dim: 65_536,
            separate: 1,
            ..RunningMeanStd::default()
        };
        for (parts, parameters) in [1, 7].map(|parts| (parts, RunningMeanStd { parts, ..parameters })) {
            let [[x, y, _], [columns, rows, _]] = parameters.grids();
            assert!(x <= 65_535 && y <= 65_535 && x * y >= 131_072 * parts);
            assert!(columns <= 65_535 && columns * rows >= 131_072);
        }
    }
}
