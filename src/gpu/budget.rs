//! The GPU memory that a plan may use.

use super::{Gpu, Plan};

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
    /// The budget of a device: `mebibytes`, or a default. WebGPU has no query for free memory, so the default is what the smallest
    /// common device of its kind can spare: 3 GiB of a discrete card of 4 GiB, 2 GiB on an integrated GPU, 1 GiB on a software
    /// rasteriser.
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
            // Kernels index with 32 bits.
            binding: limits
                .max_storage_buffer_binding_size
                .min(limits.max_buffer_size)
                .min(u64::from(u32::MAX)),
        }
    }

    /// Whether a plan fits: all buffers together, and the largest one alone.
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
