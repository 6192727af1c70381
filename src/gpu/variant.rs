//! Variants of a shader: workgroup size, constants and conditions for one adapter.

use std::fmt::Write;

/// The class of adapters that a kernel is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A GPU: wide workgroups.
    Hardware,
    /// A software rasteriser (llvmpipe, WARP): workgroups one SIMD register wide.
    Software,
}

impl Class {
    /// The class of an adapter of the given type.
    #[must_use]
    pub fn of(kind: wgpu::DeviceType) -> Self {
        match kind {
            wgpu::DeviceType::Cpu => Self::Software,
            _ => Self::Hardware,
        }
    }
}

impl std::str::FromStr for Class {
    type Err = crate::Error;

    /// `hardware` or `software`, in any case: the values of the environment variable `PHALANX_CLASS`.
    fn from_str(text: &str) -> crate::Result<Self> {
        match text.trim().to_lowercase().as_str() {
            "hardware" => Ok(Self::Hardware),
            "software" => Ok(Self::Software),
            _ => Err(crate::Error::config(
                "PHALANX_CLASS",
                format!("`{text}` is neither `hardware` nor `software`"),
            )),
        }
    }
}

/// Workgroups per dimension that every device accepts (the default of WebGPU's `maxComputeWorkgroupsPerDimension`).
pub const GROUPS_IN_A_ROW: u32 = 65_535;

/// Splits `groups` workgroups over x and y, for counts that one dimension does not accept.
#[must_use]
pub fn in_rows(groups: u32) -> [u32; 2] {
    [groups.min(GROUPS_IN_A_ROW), groups.div_ceil(GROUPS_IN_A_ROW)]
}

/// Value of a shader constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// WGSL `u32`.
    U32(u32),
}

/// Workgroup size, constants and conditions of one kernel. They alone decide the shader's text and the workgroup count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Invocations of a workgroup, all in x: the shader's constant `WG`.
    pub workgroup: u32,
    /// Further constants of `package::constants`.
    pub constants: Vec<(&'static str, Constant)>,
    /// Conditions of `@if(...)` that are on. All others are off.
    pub flags: Vec<&'static str>,
}

impl Variant {
    /// A variant with a workgroup size only.
    #[must_use]
    pub fn new(workgroup: u32) -> Self {
        Self { workgroup, constants: Vec::new(), flags: Vec::new() }
    }

    /// The workgroup size for kernels with independent invocations: 64 on GPUs, 8 on software rasterisers (the width of an AVX2
    /// register).
    #[must_use]
    pub fn independent(class: Class) -> Self {
        Self::new(match class {
            Class::Hardware => 64,
            Class::Software => 8,
        })
    }

    /// The workgroup size for kernels in which one workgroup reduces a range: 256 on GPUs, 8 on software rasterisers.
    #[must_use]
    pub fn reducing(class: Class) -> Self {
        Self::new(match class {
            Class::Hardware => 256,
            Class::Software => 8,
        })
    }

    /// As [`Variant::independent`], for kernels that may need more workgroups than one dimension accepts. The shader's constant
    /// `ROW` is the number of invocations of one row of workgroups; an invocation's index is `id.y * ROW + id.x`.
    #[must_use]
    pub fn wide(class: Class) -> Self {
        let variant = Self::independent(class);
        let row = GROUPS_IN_A_ROW * variant.workgroup;
        variant.with("ROW", row)
    }

    /// Adds a constant.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: u32) -> Self {
        self.constants.push((name, Constant::U32(value)));
        self
    }

    /// Switches the condition `flag` of `@if(...)` on if `on`.
    #[must_use]
    pub fn when(mut self, flag: &'static str, on: bool) -> Self {
        if on {
            self.flags.push(flag);
        }
        self
    }

    /// Workgroups that cover `invocations` in x.
    #[must_use]
    pub fn groups(&self, invocations: u32) -> u32 {
        invocations.div_ceil(self.workgroup)
    }

    /// Workgroups in x and y that cover `invocations` of a [`Variant::wide`] kernel.
    #[must_use]
    pub fn rows(&self, invocations: u32) -> [u32; 2] {
        in_rows(self.groups(invocations))
    }

    /// Source of the WGSL module `package::constants`.
    #[must_use]
    pub fn constants_module(&self) -> String {
        let mut source = format!("const WG: u32 = {}u;\n", self.workgroup);
        for (name, Constant::U32(value)) in &self.constants {
            // Writing to a String cannot fail.
            let _ = writeln!(source, "const {name}: u32 = {value}u;");
        }
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_cover_any_number_of_invocations() {
        for class in [Class::Hardware, Class::Software] {
            let variant = Variant::wide(class);
            assert_eq!(variant.rows(1), [1, 1]);
            for invocations in [variant.workgroup + 1, 65_535 * variant.workgroup + 1, u32::MAX / 4] {
                let [x, y] = variant.rows(invocations);
                let covered = u64::from(x) * u64::from(y) * u64::from(variant.workgroup);
                assert!(covered >= u64::from(invocations) && x <= 65_535 && y <= 65_535);
                assert!(covered <= u64::from(u32::MAX), "an index of {invocations} would wrap");
            }
        }
    }

    #[test]
    fn a_variant_sets_constants_and_workgroup_counts() {
        let variant = Variant::new(64).with("TILE", 4).when("masked", true).when("wide", false);
        assert_eq!(variant.constants_module(), "const WG: u32 = 64u;\nconst TILE: u32 = 4u;\n");
        assert_eq!(variant.flags, ["masked"]);
        assert_eq!((variant.groups(64), variant.groups(65), variant.groups(0)), (1, 2, 0));
    }
}
