//! Devices, buffers, kernels and recorded work, on `wgpu`.
//!
//! Functions that wait for the device come in two forms: `name_async` awaits it, `name` blocks until it is done. Browsers cannot
//! block: there, use the async forms. Functions that only create something have one form; a browser reports their errors from
//! the next call that awaits the device.

mod adapter;
mod arena;
mod budget;
mod device;
mod device_memory;
mod guard;
mod headroom;
mod kernel;
mod kernel_cache;
mod profiler;
mod recorder;
mod shader;
mod signal;
pub(crate) mod time;
mod transfer;
mod variant;
mod wait;

pub use adapter::GpuOptions;
#[cfg(test)]
pub(crate) use adapter::NEEDS;
pub use arena::{Arena, Plan, TABLE_ENTRY};
pub use budget::Budget;
pub use device::Gpu;
pub use device_memory::{DeviceMemory, MemorySource};
pub use kernel::{Access, BindGroup, Kernel, Resource};
pub(crate) use kernel_cache::{Job, in_parallel};
pub use profiler::{Profiler, Timing};
pub use recorder::{Command, Counts, HostWork, Readback, Recorder, Recording};
pub use shader::{Library, Shader, compose};
pub(crate) use shader::{compose_all, compose_with};
pub use variant::{Class, Constant, Variant};
pub(crate) use variant::{GROUPS_IN_A_ROW, in_rows};
pub(crate) use wait::block_on;

/// Usage of storage buffers that can also be the source and the target of copies.
pub const STATE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// Rounds `value` up to a multiple of `step` (`step > 0`).
#[must_use]
pub(crate) fn round_up(value: u32, step: u32) -> u32 {
    value.div_ceil(step) * step
}
