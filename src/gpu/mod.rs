//! The device and everything between it and a kernel: sizes, buffers, pipelines, recordings.

mod adapter;
mod arena;
mod budget;
mod device;
mod kernel;
mod kernel_cache;
mod profiler;
mod recorder;
mod shader;
mod signal;
mod transfer;
mod variant;

pub use adapter::GpuOptions;
pub use arena::{Arena, Plan, TABLE_ENTRY};
pub use budget::Budget;
pub use device::Gpu;
pub use kernel::{Access, BindGroup, Kernel, Resource};
pub(crate) use kernel_cache::{Job, in_parallel};
pub use profiler::{Profiler, Timing};
pub use recorder::{Command, Counts, HostWork, Readback, Recorder, Recording};
pub use shader::{Library, Shader, compose, compose_with};
pub use variant::{Class, Constant, GROUPS_IN_A_ROW, Variant, in_rows};

/// Usage of buffers that kernels work on and that are read, filled or saved as well.
pub const STATE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// Rounds `value` up to a multiple of `step` (`step > 0`).
#[must_use]
pub fn round_up(value: u32, step: u32) -> u32 {
    value.div_ceil(step) * step
}
