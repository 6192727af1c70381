//! Sums over the rows of every minibatch of every group of agents that share networks, from which [`super::advantage_stats`] computes
//! statistics: of the advantages of active agents, of returns and of their squares, each part of the rows by a workgroup.
//!
//! Shape: f32 `[minibatch][group][part][8]`. Squares are of the distances from a number near the part's mean, so that advantages far
//! from 0 keep the digits of their deviation.

use crate::Result;
use crate::gpu::{Access, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/advantage_sums");

/// Rows for which another workgroup is worth its start. On software rasterisers its barriers cost as much as many rows.
const fn rows_of_one(class: Class) -> u64 {
    match class {
        Class::Hardware => 2048,
        Class::Software => 1 << 15,
    }
}

/// Most parts of all minibatches and groups, as long as these are fewer: one workgroup joins them.
const PARTS: u64 = 1024;

/// Workgroups that sum the rows of a minibatch of a group, for `rows` rows of the whole rollout. `groups` are the sets of rows that
/// share networks: 1, or one per agent.
#[must_use]
pub fn parts(class: Class, rows: u64, groups: u32, minibatches: u32) -> u32 {
    let sets = u64::from(groups.max(1)) * u64::from(minibatches.max(1));
    rows.div_ceil(sets * rows_of_one(class)).clamp(1, (PARTS / sets).max(1)) as u32
}

/// f32s of the sums, of either class.
#[must_use]
pub fn words(rows: u64, groups: u32, minibatches: u32) -> u64 {
    8 * u64::from(groups)
        * u64::from(minibatches)
        * u64::from(parts(Class::Hardware, rows, groups, minibatches))
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::trusted(gpu, &SHADER, Variant::reducing(gpu.class()), &[Uniform, Read, Read, Write], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_a_device_and_their_sums_stay_small() {
        // 1024 environments, 128 steps, 4 agents.
        assert_eq!(parts(Class::Hardware, 1 << 19, 1, 1), 256);
        assert_eq!(parts(Class::Hardware, 1 << 19, 4, 1), 64);
        assert_eq!(parts(Class::Hardware, 1 << 19, 4, 8), 8);
        assert_eq!(parts(Class::Hardware, 1, 1, 1), 1);
        assert_eq!(parts(Class::Software, 1 << 19, 1, 1), 16);
        for (groups, minibatches) in [(1, 1), (1, 3), (4, 8), (64, 16), (1, 1000)] {
            for rows in [1, 2049, 1 << 19, u64::from(u32::MAX)] {
                let words = words(rows, groups, minibatches);
                assert!(4 * words <= 32 << 10, "{rows} rows, {groups} x {minibatches}: {words}");
                let software = u64::from(parts(Class::Software, rows, groups, minibatches));
                assert!(8 * software * u64::from(groups * minibatches) <= words);
            }
        }
    }
}
