//! Sums of the metrics of an iteration, from which [`super::write_metrics`] writes the record: of losses, rewards, advantages, returns
//! and counters of episodes, each part of them by a workgroup. Also clears the counters.
//!
//! Shape: f32 `[part][20]`. How advantages and returns spread is summed about a number near the part's mean.

use crate::Result;
use crate::gpu::{Access, Class, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/metrics_sums");

/// f32s of the sums of a part.
pub const PART: u64 = 20;

/// Most parts: one workgroup joins them.
const PARTS: u64 = 256;

/// Workgroups that sum so many pairs of statistics and rows.
#[must_use]
pub fn parts(class: Class, statistics: u64, rewards: u64) -> u32 {
    // On software rasterisers the barriers of a workgroup cost as much as many rows.
    let rows = match class {
        Class::Hardware => 2048,
        Class::Software => 1 << 15,
    };
    statistics.div_ceil(rows / 2).max(rewards.div_ceil(rows)).clamp(1, PARTS) as u32
}

/// f32s of the sums, of either class.
#[must_use]
pub fn words(statistics: u64, rewards: u64) -> u64 {
    PART * u64::from(parts(Class::Hardware, statistics, rewards))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_a_device_and_their_sums_stay_small() {
        // 1024 environments, 128 steps, 4 agents; blocks of 64 rows, ten epochs.
        assert_eq!(parts(Class::Hardware, 10 << 13, 1 << 19), 256);
        assert_eq!(parts(Class::Software, 10 << 13, 1 << 19), 16);
        assert_eq!(parts(Class::Hardware, 1, 1), 1);
        assert!(4 * words(u64::from(u32::MAX), u64::from(u32::MAX)) <= 20 << 10);
    }
}
