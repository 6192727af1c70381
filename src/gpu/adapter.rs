//! Choosing an adapter, and the limits that the kernels need.

use super::{Class, headroom};
use crate::{Error, Result};

/// Options for opening a device.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Part of an adapter's name (`"llvmpipe"`, `"RTX"`) or a backend (`"vulkan"`, `"metal"`, `"dx12"`), in any case. `None` reads
    /// the environment variable `PHALANX_ADAPTER`. If that is unset, the first adapter in the order discrete, integrated, virtual,
    /// software is chosen.
    pub adapter: Option<String>,
    /// Compile all kernels with bounds checks, which makes them slower. For tests and for finding defects.
    pub checked: bool,
    /// Use the kernels of GPUs or of software rasterisers, whatever the adapter is. `None` reads the environment variable
    /// `PHALANX_CLASS` (`hardware` or `software`). If that is unset, the type of the adapter decides.
    pub class: Option<Class>,
    /// Enable cooperative matrices where the adapter has them. Off by default, because wgpu marks them experimental: a defect in
    /// it or in the driver may be undefined behaviour.
    pub experimental: bool,
    /// Folder for compiled pipelines, which later processes load. Needs [`wgpu::Features::PIPELINE_CACHE`]; ignored without it. The
    /// folder must be this crate's own. `None` keeps nothing on disk.
    pub cache_dir: Option<std::path::PathBuf>,
    /// GPU memory in MiB that a plan may use, at least 1. `None` reads the environment variable `PHALANX_MEMORY_BUDGET_MB`. If that
    /// is unset, the driver is asked: see [`Budget::of`](super::Budget::of).
    pub memory_budget_mb: Option<u64>,
}

/// Optional features that make kernels faster.
pub(super) const WANTED: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::PIPELINE_CACHE);

/// The wgpu instance that enumerates adapters.
pub(super) fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN
        | wgpu::Backends::METAL
        | wgpu::Backends::DX12
        | wgpu::Backends::BROWSER_WEBGPU;
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    // Above this percentage of the driver's budget an allocation fails with an error instead of losing the device.
    descriptor.memory_budget_thresholds.for_resource_creation = Some(95);
    wgpu::Instance::new(descriptor)
}

/// The adapter that `options` select.
///
/// # Errors
/// [`Error::NoAdapter`] when none answers or none matches; [`Error::ProcessLimit`] when a limit on this process's memory would end it
/// while it loads the drivers.
pub(super) async fn choose(options: &GpuOptions) -> Result<wgpu::Adapter> {
    let wanted = options.adapter.clone().or_else(|| std::env::var("PHALANX_ADAPTER").ok());
    let wanted = wanted.filter(|name| !name.trim().is_empty());
    headroom::for_drivers()?;
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

/// The adapter that `device` was created on, if something is asked of it: cooperative matrices, and memory with DirectX. A device
/// does not lead to its adapter, so this looks for it among all adapters.
pub(super) async fn of_device(device: &wgpu::Device) -> Option<wgpu::Adapter> {
    let own = device.adapter_info();
    let matrices = device.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
    if !matrices && own.backend != wgpu::Backend::Dx12 {
        return None;
    }
    let same = |info: &wgpu::AdapterInfo| {
        (info.backend, info.vendor, info.device, &info.name, &info.driver_info)
            == (own.backend, own.vendor, own.device, &own.name, &own.driver_info)
    };
    let adapters = instance().enumerate_adapters(wgpu::Backends::all()).await;
    adapters.into_iter().find(|adapter| same(&adapter.get_info()))
}

/// The memory that plans may use in MiB: from `options`, else from the environment; `None` if neither says.
///
/// # Errors
/// [`Error::Config`] if it is not a positive integer.
pub(super) fn memory_budget_mb(options: &GpuOptions) -> Result<Option<u64>> {
    const VARIABLE: &str = "PHALANX_MEMORY_BUDGET_MB";
    let (key, text) = match options.memory_budget_mb {
        Some(budget) => ("memory_budget_mb", budget.to_string()),
        None => (VARIABLE, std::env::var(VARIABLE).unwrap_or_default()),
    };
    mebibytes(key, &text)
}

fn mebibytes(key: &str, text: &str) -> Result<Option<u64>> {
    match text.trim() {
        "" => Ok(None),
        text => match text.parse() {
            Ok(budget) if budget > 0 => Ok(Some(budget)),
            _ => Err(Error::config(key, format!("`{text}` is not a number of MiB, for instance 6000"))),
        },
    }
}

/// The class of kernels: from `options`, else from the environment, else from the adapter.
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

/// Name of a limit, the value that the kernels need, and the value of a device.
pub(crate) type Need = (&'static str, u64, fn(&wgpu::Limits) -> u64);

/// Every limit that kernels of this crate depend on. A test checks that no kernel needs more. Sizes of buffers are not among them:
/// plans ask the device for those.
pub(crate) const NEEDS: [Need; 9] = [
    ("max_storage_buffers_per_shader_stage", 8, |limits| limits.max_storage_buffers_per_shader_stage.into()),
    ("max_uniform_buffers_per_shader_stage", 3, |limits| limits.max_uniform_buffers_per_shader_stage.into()),
    ("max_sampled_textures_per_shader_stage", 2, |limits| {
        limits.max_sampled_textures_per_shader_stage.into()
    }),
    ("max_dynamic_uniform_buffers_per_pipeline_layout", 1, |limits| {
        limits.max_dynamic_uniform_buffers_per_pipeline_layout.into()
    }),
    ("max_uniform_buffer_binding_size", 16_384, |limits| limits.max_uniform_buffer_binding_size),
    ("max_compute_invocations_per_workgroup", 256, |limits| {
        limits.max_compute_invocations_per_workgroup.into()
    }),
    ("max_compute_workgroup_size_x", 256, |limits| limits.max_compute_workgroup_size_x.into()),
    ("max_compute_workgroup_storage_size", 16_384, |limits| limits.max_compute_workgroup_storage_size.into()),
    ("max_compute_workgroups_per_dimension", super::GROUPS_IN_A_ROW as u64, |limits| {
        limits.max_compute_workgroups_per_dimension.into()
    }),
];

/// Refuses devices that offer less than the kernels need.
///
/// # Errors
/// [`Error::Limit`], which names the limit, the need and the device's value.
pub(super) fn check_limits(limits: &wgpu::Limits) -> Result<()> {
    let short = NEEDS.into_iter().find(|(_, need, of)| of(limits) < *need);
    short.map_or(Ok(()), |(limit, need, of)| Err(Error::Limit { limit, need, has: of(limits) }))
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
    fn memory_budgets_are_whole_mebibytes() {
        assert_eq!(mebibytes("key", " ").unwrap(), None);
        assert_eq!(mebibytes("key", "6000\n").unwrap(), Some(6000));
        for text in ["0", "6 GB", "-1", "1.5"] {
            let error = mebibytes("PHALANX_MEMORY_BUDGET_MB", text).unwrap_err().to_string();
            assert!(error.contains("PHALANX_MEMORY_BUDGET_MB") && error.contains(text), "{error}");
        }
        let options = GpuOptions { memory_budget_mb: Some(0), ..GpuOptions::default() };
        assert!(memory_budget_mb(&options).is_err());
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
