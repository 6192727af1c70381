//! How much of the card a plan may use.

use super::{Gpu, Plan};

const MIB: u64 = 1 << 20;

/// Bytes a plan may use in all, and in one binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of all buffers together.
    pub total: u64,
    /// Bytes of the largest buffer.
    pub binding: u64,
    /// Whether the adapter stops loops after 65,535 iterations, as Mesa's llvmpipe does.
    pub short_loops: bool,
}

impl Budget {
    /// The budget for this device. No portable query for free memory exists, so without `mebibytes` it is what the
    /// smallest card of its kind can spare: 3 GiB of a 4 GiB discrete card, 2 GiB where memory is shared with the
    /// system, 1 GiB for a software device.
    #[must_use]
    pub fn of(gpu: &Gpu, mebibytes: Option<u64>) -> Self {
        let default = match gpu.info().device_type {
            wgpu::DeviceType::Cpu => 1024,
            wgpu::DeviceType::IntegratedGpu => 2048,
            _ => 3072,
        };
        let limits = gpu.device().limits();
        Self {
            total: mebibytes.unwrap_or(default).saturating_mul(MIB),
            short_loops: gpu.stops_long_loops(),
            // Kernels count in 32 bits.
            binding: limits
                .max_storage_buffer_binding_size
                .min(limits.max_buffer_size)
                .min(u64::from(u32::MAX)),
        }
    }

    /// Whether a plan stays within it.
    #[must_use]
    pub fn holds(&self, plan: &Plan) -> bool {
        plan.bytes() <= self.total && plan.largest() <= self.binding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
