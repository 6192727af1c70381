//! Memory of this process and of the device.

use phalanx::gpu::Gpu;

/// Bytes of this process in memory, now and at most; `None` where the system does not say.
pub fn of_process() -> Option<[u64; 2]> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
    };
    Some([field("VmRSS:")?, field("VmHWM:")?])
}

/// Bytes allocated on the device, where the backend reports them.
pub fn of_device(gpu: &Gpu) -> Option<u64> {
    gpu.device().generate_allocator_report().map(|report| report.total_allocated_bytes)
}
