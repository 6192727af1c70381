//! The memory of an adapter, asked of its driver through the graphics interface below wgpu.
//!
//! All unsafe code of this question is in this file. Every function borrows a handle from wgpu for the duration of one query,
//! changes nothing and destroys nothing.

use super::Gpu;

/// Source of a figure of an adapter's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemorySource {
    /// Vulkan's `VK_EXT_memory_budget`: what this process may use now, beside all others.
    VulkanBudget,
    /// The size of Vulkan's device-local heap, of which other processes may use a part.
    VulkanHeap,
    /// DXGI's `QueryVideoMemoryInfo`: the budget that Windows gives this process.
    Dxgi,
    /// Metal's `recommendedMaxWorkingSetSize`.
    Metal,
    /// Nothing can be asked (browsers, other backends): the smallest common device of this kind is assumed.
    Assumed,
}

impl std::fmt::Display for MemorySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::VulkanBudget => "VK_EXT_memory_budget",
            Self::VulkanHeap => "Vulkan heap size",
            Self::Dxgi => "DXGI",
            Self::Metal => "Metal working set",
            Self::Assumed => "assumed",
        })
    }
}

/// The memory of an adapter at one moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Source of the figures.
    pub source: MemorySource,
    /// Bytes that this process may use in all: the driver's budget, or the size of the heap.
    pub available: u64,
    /// The part of it that this process uses already; 0 if the driver does not say.
    pub used: u64,
}

impl DeviceMemory {
    /// Asks the driver; `None` if the backend has no such question.
    pub(super) fn ask(gpu: &Gpu) -> Option<Self> {
        match gpu.info().backend {
            #[cfg(all(
                feature = "vulkan",
                any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")
            ))]
            wgpu::Backend::Vulkan => vulkan(gpu.device()),
            #[cfg(all(feature = "dx12", windows))]
            wgpu::Backend::Dx12 => dxgi(gpu.adapter()?),
            #[cfg(all(feature = "metal", target_vendor = "apple"))]
            wgpu::Backend::Metal => metal(gpu.device()),
            _ => None,
        }
    }
}

/// The largest device-local heap. Cards have a second, small one that the CPU can write too.
#[cfg(all(
    feature = "vulkan",
    any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")
))]
fn vulkan(device: &wgpu::Device) -> Option<DeviceMemory> {
    use ash::vk;
    // SAFETY: the handles are used for queries while the guard lives, and none is destroyed.
    let device = unsafe { device.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (shared, physical) = (device.shared_instance(), device.raw_physical_device());
    let instance = shared.raw_instance();
    // SAFETY: `physical` belongs to `instance`, and both live as long as `device`.
    let version = unsafe { instance.get_physical_device_properties(physical) }.api_version;
    // The query with a chained structure is part of Vulkan 1.1, which instance and adapter both have to support.
    let has_budget = version.min(shared.instance_api_version()) >= vk::API_VERSION_1_1
        && device.enabled_device_extensions().contains(&ash::ext::memory_budget::NAME);
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let heaps = if has_budget {
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: as above; the device was created with the extension of the chained structure.
        unsafe { instance.get_physical_device_memory_properties2(physical, &mut properties) };
        properties.memory_properties
    } else {
        // SAFETY: as above.
        unsafe { instance.get_physical_device_memory_properties(physical) }
    };
    let (largest, heap) = heaps
        .memory_heaps_as_slice()
        .iter()
        .enumerate()
        .filter(|(_, heap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL))
        .max_by_key(|(_, heap)| heap.size)?;
    Some(match budget.heap_budget[largest] {
        // Drivers that list the extension without filling it in.
        0 => DeviceMemory { source: MemorySource::VulkanHeap, available: heap.size, used: 0 },
        available => DeviceMemory {
            source: MemorySource::VulkanBudget,
            available: available.min(heap.size),
            used: budget.heap_usage[largest],
        },
    })
}

/// The local segment group: the card's own memory, or the part of the system's that an integrated GPU may use.
#[cfg(all(feature = "dx12", windows))]
fn dxgi(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    // SAFETY: the handle is used for a query while the guard lives, and is not destroyed.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    // `DXGI_MEMORY_SEGMENT_GROUP_LOCAL` is 0, the default.
    let info = adapter.raw_adapter().query_video_memory_info(Default::default()).ok()?;
    Some(DeviceMemory { source: MemorySource::Dxgi, available: info.Budget, used: info.CurrentUsage })
}

/// The working set that Metal recommends.
#[cfg(all(feature = "metal", target_vendor = "apple"))]
fn metal(device: &wgpu::Device) -> Option<DeviceMemory> {
    use objc2_metal::MTLDevice as _;
    // SAFETY: the handle is used for queries while the guard lives, and is not destroyed.
    let device = unsafe { device.as_hal::<wgpu::hal::api::Metal>() }?;
    let device = device.raw_device();
    let (available, used) = (device.recommendedMaxWorkingSetSize(), device.currentAllocatedSize());
    Some(DeviceMemory { source: MemorySource::Metal, available, used: used as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::STATE;

    /// Every Vulkan driver lists heaps, Mesa's llvmpipe included, whose heap is the system's memory.
    #[test]
    fn the_driver_says_how_much_memory_there_is_and_how_much_is_used() {
        let gpu = crate::testing::gpu();
        let Some(before) = DeviceMemory::ask(&gpu) else {
            assert_ne!(gpu.info().backend, wgpu::Backend::Vulkan);
            return crate::testing::skip("the backend cannot be asked for its memory");
        };
        assert!(before.available > 64 << 20, "{before:?}");
        assert!(before.used <= before.available, "{before:?}");
        if before.source == MemorySource::VulkanBudget
            && gpu.info().device_type == wgpu::DeviceType::DiscreteGpu
        {
            let held = gpu.buffer("held", 64 << 20, STATE).unwrap();
            let after = DeviceMemory::ask(&gpu).unwrap();
            assert!(after.used >= before.used + held.size(), "{before:?}, then {after:?}");
        }
    }
}
