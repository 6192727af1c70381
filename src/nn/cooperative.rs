//! The cooperative matrices that the kernels use. Plain data: `nn/selection.rs` asks an adapter for them.

use serde::{Deserialize, Serialize};

/// Square cooperative matrices: f16 factors, accumulated in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cooperative {
    /// Rows and columns of a matrix: 8 or 16.
    pub size: u32,
    /// Most invocations of a subgroup: 8, 16, 32 or 64. Kernels stay correct when the subgroups are smaller.
    pub subgroup: u32,
}

impl Cooperative {
    /// Workgroup size of the weight gradient's kernel: a subgroup for every two by two matrices of a tile of 64 by 64.
    pub(super) fn weight_workgroup(self) -> u32 {
        let across = 64 / (2 * self.size);
        across * across * self.subgroup
    }
}
