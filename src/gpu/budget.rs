//! The GPU memory that a plan may use.

use super::device_memory::{DeviceMemory, MemorySource};
use super::{Gpu, Plan, headroom};
use crate::{Error, Result};

const MIB: u64 = 1 << 20;

/// Limits of a plan on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of all buffers together.
    pub total: u64,
    /// Bytes of the largest buffer.
    pub binding: u64,
    /// Whether the adapter may stop loops after 65,535 iterations, as Mesa's llvmpipe does: see [`Gpu::stops_long_loops`].
    pub short_loops: bool,
}

impl Budget {
    /// The budget of a device: `mebibytes`; else that of the handle ([`Gpu::with_memory_budget_mb`],
    /// [`GpuOptions::memory_budget_mb`](super::GpuOptions::memory_budget_mb)) or the environment variable `PHALANX_MEMORY_BUDGET_MB`; else a share of what the driver says this process may use
    /// ([`Gpu::memory`]), less what it uses already:
    ///
    /// | adapter | share |
    /// |---|---|
    /// | with a budget of the driver (Vulkan, DXGI) or a working set (Metal) | 90 % |
    /// | an integrated GPU with Vulkan, whose budget is the system's free memory | 75 % |
    /// | only the size of the heap is known | 75 % |
    /// | a software rasteriser, which shares its memory with this process | 50 % |
    ///
    /// The rest is for pipelines, transfers and other programs. On a software rasteriser a limit on the memory of this process (Linux:
    /// `ulimit -v`, `ulimit -d`) counts, too: half of what it leaves beside the compiling of kernels. Where nothing can be asked, the budget is what the smallest
    /// common device of its kind can spare: 3 GiB of a discrete card of 4 GiB, 2 GiB on an integrated GPU, 1 GiB on a software
    /// rasteriser.
    #[must_use]
    pub fn of(gpu: &Gpu, mebibytes: Option<u64>) -> Self {
        let limits = gpu.device().limits();
        let given = mebibytes.or(gpu.memory_budget_mb());
        Self {
            total: match given {
                Some(mebibytes) => mebibytes.saturating_mul(MIB),
                None => asked(gpu),
            },
            short_loops: gpu.stops_long_loops(),
            // Kernels index with 32 bits.
            binding: limits
                .max_storage_buffer_binding_size
                .min(limits.max_buffer_size)
                .min(u64::from(u32::MAX)),
        }
    }

    /// The budget without `reserved` bytes.
    #[must_use]
    pub(crate) fn less(self, reserved: u64) -> Self {
        Self { total: self.total.saturating_sub(reserved), ..self }
    }

    /// The result of planning with what `reserved` bytes for evaluations leave of the budget.
    ///
    /// # Errors
    /// Those of `plan`; one about the budget names the reserved bytes and the whole budget.
    pub(crate) fn beside<T>(self, reserved: u64, plan: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        plan(&self.less(reserved)).map_err(|error| match error {
            Error::Budget { what, needed, advice, .. } if reserved > 0 => Error::Budget {
                what: format!("{what}, with {:.2} MiB for evaluations,", reserved as f64 / MIB as f64),
                needed: needed + reserved.div_ceil(MIB),
                budget: self.total / MIB,
                advice: format!("{advice}, or do without evaluations"),
            },
            other => other,
        })
    }

    /// Checks that the device can bind every buffer of a plan for `what`.
    ///
    /// # Errors
    /// [`Error::Buffer`] with `advice`.
    pub(crate) fn binds(&self, plan: &Plan, what: &str, advice: &str) -> Result<()> {
        if plan.largest() <= self.binding {
            return Ok(());
        }
        Err(Error::Buffer {
            what: format!("the largest buffer of {what}"),
            needed: plan.largest().div_ceil(MIB),
            limit: self.binding / MIB,
            advice: advice.into(),
        })
    }

    /// Whether a plan fits: all buffers together, and the largest one alone.
    #[must_use]
    pub fn holds(&self, plan: &Plan) -> bool {
        plan.bytes() <= self.total && plan.largest() <= self.binding
    }
}

/// Bytes that a plan may use by what the driver says.
fn asked(gpu: &Gpu) -> u64 {
    let kind = gpu.info().device_type;
    let usable = usable(&gpu.memory(), kind);
    let left = if kind == wgpu::DeviceType::Cpu { headroom::for_buffers() } else { None };
    left.map_or(usable, |left| usable.min(left))
}

/// The memory that is assumed where nothing can be asked.
pub(super) fn assumed(kind: wgpu::DeviceType) -> DeviceMemory {
    let available = match kind {
        wgpu::DeviceType::Cpu => 1024 * MIB,
        wgpu::DeviceType::IntegratedGpu => 2048 * MIB,
        _ => 3072 * MIB,
    };
    DeviceMemory { source: MemorySource::Assumed, available, used: 0 }
}

/// Bytes that a plan may use, as in the table of [`Budget::of`].
fn usable(memory: &DeviceMemory, kind: wgpu::DeviceType) -> u64 {
    let percent = match (memory.source, kind) {
        (MemorySource::Assumed, _) => 100,
        (_, wgpu::DeviceType::Cpu) => 50,
        (MemorySource::VulkanHeap, _) | (MemorySource::VulkanBudget, wgpu::DeviceType::IntegratedGpu) => 75,
        _ => 90,
    };
    (memory.available / 100 * percent).saturating_sub(memory.used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::GpuOptions;

    const GIB: u64 = 1 << 30;

    #[test]
    fn both_limits_count() {
        let budget = Budget { total: 4096, binding: 1024, short_loops: false };
        let mut plan = Plan::new();
        plan.words("a", 256);
        assert!(budget.holds(&plan));
        plan.words("b", 257);
        assert!(!budget.holds(&plan), "one buffer is larger than a binding");
        let mut many = Plan::new();
        for _ in 0..5 {
            many.words("x", 256);
        }
        assert!(!budget.holds(&many), "together they are too large");
    }

    #[test]
    fn plans_get_a_share_of_what_is_left() {
        use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu};
        let mib = |source, gibibytes: u64, used: u64, kind| {
            usable(&DeviceMemory { source, available: gibibytes * GIB, used: used * MIB }, kind).div_ceil(MIB)
        };
        // Cards of 4, 8, 16 and 24 GB, of which the plan's process uses 100 MiB.
        for (gibibytes, expected) in [(4, 3587), (8, 7273), (16, 14_646), (24, 22_019)] {
            assert_eq!(mib(MemorySource::VulkanBudget, gibibytes, 100, DiscreteGpu), expected);
            assert_eq!(mib(MemorySource::Dxgi, gibibytes, 100, DiscreteGpu), expected);
        }
        assert_eq!(mib(MemorySource::VulkanHeap, 8, 0, DiscreteGpu), 6144);
        assert_eq!(mib(MemorySource::VulkanBudget, 8, 0, IntegratedGpu), 6144);
        assert_eq!(mib(MemorySource::Metal, 8, 0, IntegratedGpu), 7373);
        assert_eq!(mib(MemorySource::VulkanBudget, 8, 0, Cpu), 4096);
        assert_eq!(mib(MemorySource::VulkanBudget, 1, 2048, DiscreteGpu), 0, "more is used than there is");
        for (kind, expected) in [(DiscreteGpu, 3072), (IntegratedGpu, 2048), (Cpu, 1024)] {
            assert_eq!(usable(&assumed(kind), kind).div_ceil(MIB), expected);
        }
    }

    #[test]
    fn a_given_budget_goes_before_the_drivers() {
        let gpu = crate::testing::gpu();
        let asked = Budget::of(&gpu, None).total;
        assert_eq!(asked / MIB, usable(&gpu.memory(), gpu.info().device_type) / MIB, "what the driver says");
        assert_eq!(Budget::of(&gpu, Some(70)).total, 70 * MIB);
        let options = GpuOptions { memory_budget_mb: Some(90), ..GpuOptions::default() };
        let given = Gpu::open(&options).unwrap();
        assert_eq!(Budget::of(&given, None).total, 90 * MIB);
        assert_eq!(Budget::of(&given, Some(70)).total, 70 * MIB, "the setting of a run goes first");
        let share = given.with_memory_budget_mb(45);
        assert_eq!(
            Budget::of(&share.clone(), None).total,
            45 * MIB,
            "a handle's own goes before the options"
        );
        assert_eq!(Budget::of(&share, Some(70)).total, 70 * MIB);
        assert_eq!(Budget::of(&given, None).total, 90 * MIB, "other handles keep theirs");
    }
}
