//! Settings of the device: precision and memory.

use crate::Result;
use crate::nn::Precision;
use crate::ranges::check as range;

/// Precision and memory on the device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceConfig {
    /// Storage precision.
    pub precision: Precision,
    /// Limit on GPU memory in MiB; by default a share of what the driver says is free ([`crate::gpu::Budget::of`]).
    pub memory_budget_mb: Option<u64>,
    /// Whether the number of environments may be lowered to what fits into memory. Another number of environments is another
    /// experiment, so by default too many are an error, which names the largest number that fits.
    pub shrink_envs: bool,
    /// Micro-batches per minibatch, whose gradients are accumulated; raised if memory is short. Small networks on GPUs keep their
    /// activations in workgroup memory: their minibatches are one micro-batch, unless it would take a slow GPU seconds, and only the
    /// evaluations of HAPPO are divided by this number.
    pub accumulation: u32,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self { precision: Precision::F32, memory_budget_mb: None, shrink_envs: false, accumulation: 4 }
    }
}

impl DeviceConfig {
    pub(super) fn validate(&self) -> Result<()> {
        range("accumulation", self.accumulation, 1.0, 65_536.0)?;
        match self.memory_budget_mb {
            Some(budget) => range("memory_budget_mb", budget as f64, 1.0, 1e7),
            None => Ok(()),
        }
    }
}
