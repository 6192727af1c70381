//! Choosing an adapter, and what a device on it has to offer.

use super::Class;
use crate::{Error, Result};

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Part of an adapter's name (`"llvmpipe"`, `"RTX"`) or a backend (`"vulkan"`, `"metal"`, `"dx12"`), in any
    /// case. `None` reads the environment variable `PHALANX_ADAPTER`; when that is unset too, the first adapter
    /// in the order discrete, integrated, virtual, software is taken.
    pub adapter: Option<String>,
    /// Compile kernels with bounds checks. Slower; for tests and for hunting defects.
    pub checked: bool,
    /// Kernels of GPUs or of software rasterisers, whatever the adapter is. `None` reads the environment variable
    /// `PHALANX_CLASS` (`hardware` or `software`); when that is unset too, the adapter decides.
    pub class: Option<Class>,
    /// Enable features that wgpu calls experimental where the adapter has them: cooperative matrices. Off by default,
    /// because a driver's defect in them may be undefined behaviour.
    pub experimental: bool,
    /// Folder in which compiled pipelines are kept between processes, where the driver can
    /// ([`wgpu::Features::PIPELINE_CACHE`]). `None` keeps nothing on disk.
    pub cache_dir: Option<std::path::PathBuf>,
}

/// Optional features that make kernels faster.
pub(super) const WANTED: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::PIPELINE_CACHE);

/// The instance that adapters are asked of.
pub(super) fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN
        | wgpu::Backends::METAL
        | wgpu::Backends::DX12
        | wgpu::Backends::BROWSER_WEBGPU;
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    // Past this share of the driver's own budget an allocation is an error we can report, not a lost device.
    descriptor.memory_budget_thresholds.for_resource_creation = Some(95);
    wgpu::Instance::new(descriptor)
}

/// The adapter that `options` ask for.
///
/// # Errors
/// [`Error::NoAdapter`] when none answers or none matches.
pub(super) async fn choose(options: &GpuOptions) -> Result<wgpu::Adapter> {
    let wanted = options.adapter.clone().or_else(|| std::env::var("PHALANX_ADAPTER").ok());
    let wanted = wanted.filter(|name| !name.trim().is_empty());
    let mut adapters = instance().enumerate_adapters(wgpu::Backends::all()).await;
    adapters.sort_by_key(|adapter| preference(adapter.get_info().device_type));
    let position = match &wanted {
        None => (!adapters.is_empty()).then_some(0),
        Some(name) => adapters.iter().position(|adapter| matches_name(&adapter.get_info(), name)),
    };
    match position {
        Some(position) => Ok(adapters.swap_remove(position)),
        None => Err(Error::NoAdapter {
            wanted: wanted.map_or("answers".into(), |name| format!("matches `{name}`")),
            found: list(&adapters),
            hint:
                "Install a Vulkan driver (Debian and Ubuntu: `apt-get install mesa-vulkan-drivers`), or set \
                   PHALANX_ADAPTER to part of an adapter's name or to a backend (vulkan, metal, dx12)"
                    .into(),
        }),
    }
}

/// Shapes of the cooperative matrices of the adapter that `device` was made on: wgpu tells them of adapters only, so the
/// adapters are searched for the device's own.
pub(super) async fn cooperative_matrices(device: &wgpu::Device) -> Vec<wgpu::CooperativeMatrixProperties> {
    if !device.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return Vec::new();
    }
    let own = device.adapter_info();
    let same = |info: &wgpu::AdapterInfo| {
        (info.backend, info.vendor, info.device, &info.name, &info.driver_info)
            == (own.backend, own.vendor, own.device, &own.name, &own.driver_info)
    };
    let adapters = instance().enumerate_adapters(wgpu::Backends::all()).await;
    let found = adapters.iter().find(|adapter| same(&adapter.get_info()));
    found.map(wgpu::Adapter::cooperative_matrix_properties).unwrap_or_default()
}

/// The class of kernels that `options`, the environment or the adapter ask for, in this order.
///
/// # Errors
/// [`Error::Config`] if `PHALANX_CLASS` is neither `hardware` nor `software`.
pub(super) fn class(options: &GpuOptions, info: &wgpu::AdapterInfo) -> Result<Class> {
    if let Some(class) = options.class {
        return Ok(class);
    }
    match std::env::var("PHALANX_CLASS") {
        Ok(text) if !text.trim().is_empty() => text.parse(),
        _ => Ok(Class::of(info.device_type)),
    }
}

/// Refuses devices with less than the kernels need: WebGPU's own minimum.
///
/// # Errors
/// [`Error::Limit`] that names the limit, the need and what the device has.
pub(super) fn check_limits(limits: &wgpu::Limits) -> Result<()> {
    let needs = [
        ("max_storage_buffers_per_shader_stage", 8, limits.max_storage_buffers_per_shader_stage),
        ("max_uniform_buffers_per_shader_stage", 2, limits.max_uniform_buffers_per_shader_stage),
        (
            "max_dynamic_uniform_buffers_per_pipeline_layout",
            1,
            limits.max_dynamic_uniform_buffers_per_pipeline_layout,
        ),
        (
            "max_uniform_buffer_binding_size",
            16_384,
            limits.max_uniform_buffer_binding_size.min(u64::from(u32::MAX)) as u32,
        ),
        ("max_compute_invocations_per_workgroup", 256, limits.max_compute_invocations_per_workgroup),
        ("max_compute_workgroup_size_x", 256, limits.max_compute_workgroup_size_x),
        ("max_compute_workgroup_storage_size", 16_384, limits.max_compute_workgroup_storage_size),
        ("max_compute_workgroups_per_dimension", 65_535, limits.max_compute_workgroups_per_dimension),
    ];
    match needs.into_iter().find(|(_, need, has)| has < need) {
        None => Ok(()),
        Some((limit, need, has)) => Err(Error::Limit { limit, need: need.into(), has: has.into() }),
    }
}

fn preference(kind: wgpu::DeviceType) -> u32 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

fn matches_name(info: &wgpu::AdapterInfo, wanted: &str) -> bool {
    let wanted = wanted.trim().to_lowercase();
    info.backend.to_str() == wanted || info.name.to_lowercase().contains(&wanted)
}

fn list(adapters: &[wgpu::Adapter]) -> String {
    if adapters.is_empty() {
        return "none".into();
    }
    let names: Vec<_> = adapters
        .iter()
        .map(|adapter| adapter.get_info())
        .map(|info| format!("{} ({})", info.name, info.backend.to_str()))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Gpu;

    #[test]
    fn an_unknown_adapter_is_named_together_with_those_found() {
        let options = GpuOptions { adapter: Some("no such card".into()), ..GpuOptions::default() };
        let text = Gpu::open(&options).unwrap_err().to_string();
        assert!(text.contains("matches `no such card`") && text.contains("PHALANX_ADAPTER"), "{text}");
    }

    #[test]
    fn a_limit_that_is_too_low_is_named_with_need_and_value() {
        check_limits(&wgpu::Limits::defaults()).unwrap();
        let few = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..wgpu::Limits::defaults() };
        let text = check_limits(&few).unwrap_err().to_string();
        for part in ["max_storage_buffers_per_shader_stage", "8", "4"] {
            assert!(text.contains(part), "{text}");
        }
        let small = wgpu::Limits { max_compute_workgroup_storage_size: 8192, ..wgpu::Limits::defaults() };
        assert!(matches!(check_limits(&small), Err(Error::Limit { need: 16_384, has: 8192, .. })));
    }
}
