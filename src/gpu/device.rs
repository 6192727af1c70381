//! A device, opened here or given by the caller. Turns wgpu's errors into [`Error`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guard::Unsettled;
use super::kernel_cache::KernelCache;
use super::wait::{block_on, hang_timeout};
use super::{Class, DeviceMemory, GpuOptions, adapter, budget, headroom};
use crate::{Error, Result};

/// A handle on a device, its queue and its compiled kernels. Clones are cheap and share the device.
///
/// Functions that wait for the device come in two forms: `name_async` awaits it, `name` blocks until it is done.
#[derive(Clone)]
pub struct Gpu {
    shared: Arc<Shared>,
    class: Class,
    checked: bool,
    hang_timeout: Option<Duration>,
    memory_budget_mb: Option<u64>,
    buffers_created: Arc<AtomicU64>,
}

struct Shared {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    /// For DirectX, where a device cannot be asked for its memory.
    #[cfg(all(feature = "dx12", windows))]
    adapter: Option<wgpu::Adapter>,
    cooperative_matrices: Vec<wgpu::CooperativeMatrixProperties>,
    lost: Arc<Mutex<Option<String>>>,
    /// Errors of guards that could not wait for the device.
    unsettled: Unsettled,
    kernels: KernelCache,
}

impl Gpu {
    /// Opens the adapter that `options` select, with all of its limits and the optional features that the kernels use.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when none answers or none matches, [`Error::NoDevice`] when the driver refuses,
    /// [`Error::Limit`] when the adapter is too small for the kernels, [`Error::ProcessLimit`] when a limit on this process's memory
    /// (Linux: `ulimit -v`, `ulimit -d`) would crash the driver, [`Error::Config`] for an unknown `PHALANX_CLASS` and a memory budget
    /// that is not a positive number.
    pub fn open(options: &GpuOptions) -> Result<Self> {
        block_on(Self::open_async(options))
    }

    /// [`Gpu::open`] for callers that await the device.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub async fn open_async(options: &GpuOptions) -> Result<Self> {
        let adapter = adapter::choose(options).await?;
        let info = adapter.get_info();
        let class = adapter::class(options, &info)?;
        adapter::check_limits(&adapter.limits())?;
        if info.device_type == wgpu::DeviceType::Cpu {
            headroom::for_software(&info.name)?;
        }
        let mut wanted = adapter::WANTED;
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if options.experimental {
            wanted |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            // SAFETY: the caller accepts the risk of a defective driver. The only experimental feature requested is
            // cooperative matrices, which kernels use only in shapes that the adapter lists.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("phalanx"),
            required_features: adapter.features() & wanted,
            required_limits: adapter.limits(),
            experimental_features,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| Error::NoDevice { adapter: info.name.clone(), reason: error.to_string() })?;
        let gpu = Self::wrap(device, queue, info, Some(adapter), class, options)?;
        let lost = gpu.shared.lost.clone();
        gpu.device().set_device_lost_callback(move |reason, message| {
            if let Ok(mut slot) = lost.lock() {
                slot.get_or_insert(format!("{reason:?}: {message}").trim_end_matches([':', ' ']).to_string());
            }
        });
        gpu.device().on_uncaptured_error(Arc::new(|error| tracing::error!(%error, "uncaptured GPU error")));
        Ok(gpu)
    }

    /// Whether the adapter that `options` select lists cooperative matrices, which [`GpuOptions::experimental`] enables. Opens
    /// no device.
    ///
    /// # Errors
    /// [`Error::NoAdapter`].
    pub fn lists_cooperative_matrices(options: &GpuOptions) -> Result<bool> {
        block_on(Self::lists_cooperative_matrices_async(options))
    }

    /// [`Gpu::lists_cooperative_matrices`] for callers that await the device.
    ///
    /// # Errors
    /// As [`Gpu::lists_cooperative_matrices`].
    pub async fn lists_cooperative_matrices_async(options: &GpuOptions) -> Result<bool> {
        let adapter = adapter::choose(options).await?;
        Ok(!adapter.cooperative_matrix_properties().is_empty())
    }

    /// Uses the caller's own device and queue, beside the caller's other GPU work. Installs nothing on the device: no callback
    /// and no error handler. Uses the features and limits that the caller requested, cooperative matrices included.
    ///
    /// # Errors
    /// [`Error::Limit`] if the device was requested with lower limits than the kernels need, [`Error::Config`] for an unknown
    /// `PHALANX_CLASS` or `PHALANX_MEMORY_BUDGET_MB`.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        block_on(Self::from_device_async(device, queue))
    }

    /// [`Gpu::from_device`] for callers that await the device.
    ///
    /// # Errors
    /// As [`Gpu::from_device`].
    pub async fn from_device_async(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let info = device.adapter_info();
        let options = GpuOptions::default();
        let class = adapter::class(&options, &info)?;
        adapter::check_limits(&device.limits())?;
        let adapter = adapter::of_device(&device).await;
        Self::wrap(device, queue, info, adapter, class, &options)
    }

    fn wrap(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: wgpu::AdapterInfo,
        adapter: Option<wgpu::Adapter>,
        class: Class,
        options: &GpuOptions,
    ) -> Result<Self> {
        let matrices = device.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
        let listed = adapter.as_ref().filter(|_| matrices).map(wgpu::Adapter::cooperative_matrix_properties);
        let kernels = KernelCache::new(&device, &info, options.cache_dir.as_deref());
        let lost = Arc::new(Mutex::new(None));
        let hang_timeout = hang_timeout(info.device_type);
        let shared = Shared {
            device,
            queue,
            info,
            #[cfg(all(feature = "dx12", windows))]
            adapter,
            cooperative_matrices: listed.unwrap_or_default(),
            lost,
            unsettled: Unsettled::default(),
            kernels,
        };
        Ok(Self {
            shared: Arc::new(shared),
            class,
            checked: options.checked,
            hang_timeout,
            memory_budget_mb: adapter::memory_budget_mb(options)?,
            buffers_created: Arc::default(),
        })
    }

    /// Another handle on the same device: kernels are those of `class`, the kernel cache is shared, buffers are counted anew.
    #[must_use]
    pub fn with_class(&self, class: Class) -> Self {
        Self { class, buffers_created: Arc::default(), ..self.clone() }
    }

    /// Another handle on the same device, whose kernels are compiled with bounds checks or without.
    #[must_use]
    pub fn with_checks(&self, checked: bool) -> Self {
        Self { checked, ..self.clone() }
    }

    /// Another handle on the same device. If submitted work is not done `timeout` after a call begins to wait for it, the device
    /// counts as hung: the call, and every later one on any handle, returns [`Error::DeviceLost`]. `None` waits without limit.
    /// New handles have ten minutes on GPUs and no limit on software rasterisers. Browsers have limits of their own.
    #[must_use]
    pub fn with_hang_timeout(&self, timeout: Option<Duration>) -> Self {
        Self { hang_timeout: timeout, ..self.clone() }
    }

    /// Another handle on the same device, whose plans may use `mebibytes` of memory, as if it had been opened with this
    /// [`GpuOptions::memory_budget_mb`]. Several trainings at the same time take a handle with a share each: asked one by one, the driver would
    /// promise all of them the same free memory.
    #[must_use]
    pub fn with_memory_budget_mb(&self, mebibytes: u64) -> Self {
        Self { memory_budget_mb: Some(mebibytes), ..self.clone() }
    }

    /// The wgpu device.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// The wgpu queue.
    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Name, driver and kind of the adapter.
    #[must_use]
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.shared.info
    }

    /// The memory of the adapter, asked of the driver now, or assumed where nothing can be asked.
    #[must_use]
    pub fn memory(&self) -> DeviceMemory {
        DeviceMemory::ask(self).unwrap_or_else(|| budget::assumed(self.info().device_type))
    }

    /// Whether kernels are compiled with bounds checks.
    #[must_use]
    pub fn checked(&self) -> bool {
        self.checked
    }

    /// The shapes of cooperative matrices that kernels may use. Empty unless the device was opened with
    /// [`GpuOptions::experimental`] or the caller requested it with them.
    #[must_use]
    pub fn cooperative_matrices(&self) -> &[wgpu::CooperativeMatrixProperties] {
        &self.shared.cooperative_matrices
    }

    /// The class of adapters that the kernels are written for.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether the adapter may stop loops after 65,535 iterations, as Mesa's llvmpipe does. Follows the adapter, not the class
    /// of the kernels.
    #[must_use]
    pub fn stops_long_loops(&self) -> bool {
        self.shared.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Buffers created so far through this handle and its clones. The count stays constant while a trainer trains.
    #[must_use]
    pub fn buffers_created(&self) -> u64 {
        self.buffers_created.load(Ordering::Relaxed)
    }

    /// Kernels that this crate compiled on the device so far. Each distinct kernel is compiled once.
    #[must_use]
    pub fn kernels_compiled(&self) -> u64 {
        self.shared.kernels.compiled()
    }

    /// Requests for kernels that were answered with a kernel compiled earlier.
    #[must_use]
    pub fn kernels_reused(&self) -> u64 {
        self.shared.kernels.reused()
    }

    /// Writes the pipelines compiled so far to [`GpuOptions::cache_dir`], if there is one and the driver can.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save_kernels(&self) -> Result<()> {
        self.shared.kernels.save()
    }

    /// The memory that plans of this handle may use, in MiB, if the caller or the environment said so.
    pub(super) fn memory_budget_mb(&self) -> Option<u64> {
        self.memory_budget_mb
    }

    /// The adapter, where something can be asked of it.
    #[cfg(all(feature = "dx12", windows))]
    pub(super) fn adapter(&self) -> Option<&wgpu::Adapter> {
        self.shared.adapter.as_ref()
    }

    pub(super) fn hang_timeout(&self) -> Option<Duration> {
        self.hang_timeout
    }

    pub(super) fn kernels(&self) -> &KernelCache {
        &self.shared.kernels
    }

    pub(super) fn unsettled(&self) -> &Unsettled {
        &self.shared.unsettled
    }

    pub(super) fn count_buffer(&self) {
        self.buffers_created.fetch_add(1, Ordering::Relaxed);
    }

    /// Checks that the device was not found lost so far.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn alive(&self) -> Result<()> {
        match self.shared.lost.lock() {
            Ok(reason) => match reason.as_ref() {
                Some(reason) => Err(Error::DeviceLost { reason: reason.clone() }),
                None => Ok(()),
            },
            Err(_) => Err(Error::DeviceLost { reason: "its callback panicked".into() }),
        }
    }

    /// Records the loss of a device given by the caller, which has no callback of ours.
    pub(super) fn note_loss(&self, reason: &str) -> Error {
        if let Ok(mut slot) = self.shared.lost.lock() {
            slot.get_or_insert(reason.to_string());
        }
        Error::DeviceLost { reason: reason.into() }
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("adapter", &self.shared.info.name)
            .field("backend", &self.shared.info.backend)
            .field("class", &self.class)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Access, Kernel, Recorder, Shader, Variant};

    #[test]
    fn works_on_the_callers_device() {
        let own = Gpu::open(&GpuOptions::default()).unwrap();
        let gpu = Gpu::from_device(own.device().clone(), own.queue().clone()).unwrap();
        assert_eq!(gpu.info().name, own.info().name);
        let back: Vec<f32> = gpu.read(&gpu.upload("data", &[1.5f32, -2.0]).unwrap()).unwrap();
        assert_eq!(&back[..2], &[1.5, -2.0]);
    }

    #[test]
    fn a_lost_device_is_an_error_wherever_it_shows() {
        const COPY: &str = "@group(0) @binding(0) var<storage, read_write> b: array<u32>;\n@compute @workgroup_size(1) fn main() { b[0] = 1u; }";
        let opened = Gpu::open(&GpuOptions::default()).unwrap();
        let second = Gpu::open(&GpuOptions::default()).unwrap();
        let given = Gpu::from_device(second.device().clone(), second.queue().clone()).unwrap();
        for (gpu, own) in [(opened, true), (given, false)] {
            let buffer = gpu.upload("data", &[1f32]).unwrap();
            gpu.device().destroy();
            let lost = |what: &str, error: Option<Error>| {
                assert!(matches!(error, Some(Error::DeviceLost { .. })), "{what}: {error:?}");
            };
            lost("read", gpu.read::<f32>(&buffer).err());
            // wgpu says nothing of a submission to a lost device; reading its result does.
            if own {
                lost("submit", Recorder::new(&gpu).submit().err());
            }
            lost("buffer", gpu.upload("data", &[1f32]).err());
            let shader = Shader::new("test/lost", COPY);
            lost("kernel", Kernel::new(&gpu, &shader, Variant::new(1), &[Access::Write], 0).err());
        }
    }

    #[test]
    fn the_class_is_the_callers_choice() {
        let gpu = Gpu::open(&GpuOptions { class: Some(Class::Hardware), ..GpuOptions::default() }).unwrap();
        assert_eq!(gpu.class(), Class::Hardware);
        let other = gpu.with_class(Class::Software);
        assert_eq!((other.class(), gpu.class()), (Class::Software, Class::Hardware));
        assert_eq!(gpu.stops_long_loops(), other.stops_long_loops());
        assert_eq!("software".parse::<Class>().unwrap(), Class::Software);
        assert_eq!(" Hardware ".parse::<Class>().unwrap(), Class::Hardware);
        let error = "tpu".parse::<Class>().unwrap_err().to_string();
        assert!(error.contains("PHALANX_CLASS") && error.contains("tpu"), "{error}");
    }

    #[test]
    fn experimental_features_are_off_unless_asked_for() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        assert!(!gpu.device().features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX));
        assert!(gpu.cooperative_matrices().is_empty());
    }
}
