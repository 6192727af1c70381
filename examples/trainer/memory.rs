//! Memory that this process holds, on the device and on the host.

use phalanx::gpu::{Gpu, MemorySource};

/// Bytes; `None` where the system or the driver does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Device memory that wgpu's allocator has taken from the driver for buffers and textures. Where wgpu has no allocator of its own
    /// (Metal), what the driver says this process uses.
    pub gpu: Option<u64>,
    /// Resident set size of the process.
    pub host: Option<u64>,
}

impl Memory {
    pub fn now(gpu: &Gpu) -> Self {
        let report = gpu.device().generate_allocator_report();
        let reserved = report.map(|report| report.total_reserved_bytes).or_else(|| {
            let memory = gpu.memory();
            (memory.source != MemorySource::Assumed && memory.used > 0).then_some(memory.used)
        });
        let host = memory_stats::memory_stats().map(|stats| stats.physical_mem as u64);
        Self { gpu: reserved, host }
    }
}

/// Most bytes that this process ever had in memory; `None` where the system does not say.
pub fn peak_of_process() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// Bytes of all buffers and textures on the device, where the backend reports them.
pub fn allocated(gpu: &Gpu) -> Option<u64> {
    gpu.device().generate_allocator_report().map(|report| report.total_allocated_bytes)
}
