//! Sums of every feature of observations and states over a rollout, from which [`super::running_mean_std`] updates the running
//! statistics, each part of a column by a workgroup.
//!
//! Shape: f32 `[column][part][4]`: a number near the part's mean, the sums of the distances from it and of their squares, the number
//! of values.

use crate::Result;
use crate::gpu::{Access, Class, GROUPS_IN_A_ROW, Gpu, Kernel, Shader, Variant};

/// The kernel's source.
pub const SHADER: Shader = crate::shaders::shader!("ppo/observation_sums");

/// Most parts of a column: one workgroup joins them.
const PARTS: u64 = 1024;

/// Workgroups that sum a column of at most `rows` values.
#[must_use]
pub fn parts(class: Class, rows: u64) -> u32 {
    // On software rasterisers the barriers of a workgroup cost as much as many rows.
    let each = match class {
        Class::Hardware => 4096,
        Class::Software => 1 << 16,
    };
    rows.div_ceil(each).clamp(1, PARTS) as u32
}

/// f32s of the sums of so many columns, of either class.
#[must_use]
pub fn words(columns: u32, rows: u64) -> u64 {
    4 * u64::from(columns) * u64::from(parts(Class::Hardware, rows))
}

/// The variant for this class of adapters.
#[must_use]
pub fn variant(class: Class) -> Variant {
    Variant::reducing(class).with("GROUPS", GROUPS_IN_A_ROW)
}

/// Compiles the kernel.
///
/// # Errors
/// As [`Kernel::new`].
pub fn kernel(gpu: &Gpu) -> Result<Kernel> {
    use Access::{Read, Uniform, Write};
    Kernel::trusted(gpu, &SHADER, variant(gpu.class()), &[Uniform, Read, Read, Read, Write], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_a_device_and_their_sums_stay_small() {
        // 1024 environments, 128 steps, 4 agents.
        let of = |rows| [Class::Hardware, Class::Software].map(|class| parts(class, rows));
        assert_eq!([of(1 << 19), of(1), of(u64::MAX)], [[128, 8], [1, 1], [1024, 1024]]);
        assert!(4 * words(1, u64::MAX) <= 16 << 10);
    }
}
