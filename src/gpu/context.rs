//! Opening a device, or taking the caller's own, and turning wgpu's errors into ours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::variant::Class;
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
}

/// A device with its queue. Cheap to clone; all clones are the same device.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    cooperative_matrices: Vec<wgpu::CooperativeMatrixProperties>,
    checked: bool,
    lost: Arc<Mutex<Option<String>>>,
    buffers_created: AtomicU64,
}

/// Features that make kernels faster where the adapter has them. None is required.
fn wanted_features() -> wgpu::Features {
    wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
}

impl Gpu {
    /// Opens the adapter that `options` asks for, with its own limits and all optional features it has.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when none answers or none matches, [`Error::NoDevice`] when the driver refuses.
    pub fn open(options: &GpuOptions) -> Result<Self> {
        let wanted = options.adapter.clone().or_else(|| std::env::var("PHALANX_ADAPTER").ok());
        let wanted = wanted.filter(|name| !name.trim().is_empty());
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
        descriptor.flags = wgpu::InstanceFlags::empty().with_env();
        // Past this share of the driver's own budget an allocation is an error we can report, not a lost device.
        descriptor.memory_budget_thresholds.for_resource_creation = Some(95);
        let instance = wgpu::Instance::new(descriptor);
        let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
        adapters.sort_by_key(|adapter| preference(adapter.get_info().device_type));
        let position = match &wanted {
            None => (!adapters.is_empty()).then_some(0),
            Some(name) => adapters.iter().position(|adapter| matches_name(&adapter.get_info(), name)),
        };
        let Some(position) = position else {
            return Err(Error::NoAdapter {
                wanted: wanted.map_or("answers".into(), |name| format!("matches `{name}`")),
                found: list(&adapters),
                hint: "Install a Vulkan driver (Debian and Ubuntu: `apt-get install mesa-vulkan-drivers`), or set \
                       PHALANX_ADAPTER to part of an adapter's name or to a backend (vulkan, metal, dx12)"
                    .into(),
            });
        };
        Self::from_adapter(&adapters.swap_remove(position), options.checked)
    }

    fn from_adapter(adapter: &wgpu::Adapter, checked: bool) -> Result<Self> {
        let info = adapter.get_info();
        let features = adapter.features() & wanted_features();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("phalanx"),
            required_features: features,
            required_limits: adapter.limits(),
            // SAFETY: the only experimental feature asked for is the cooperative matrix; kernels use it only in
            // the shapes that the adapter lists.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| Error::NoDevice { adapter: info.name.clone(), reason: error.to_string() })?;
        let gpu = Self::wrap(device, queue, info, checked, adapter.cooperative_matrix_properties());
        let lost = gpu.0.lost.clone();
        gpu.0.device.set_device_lost_callback(move |reason, message| {
            if let Ok(mut slot) = lost.lock() {
                slot.get_or_insert(format!("{reason:?}: {message}").trim_end_matches([':', ' ']).to_string());
            }
        });
        gpu.0.device.on_uncaptured_error(Arc::new(|error| tracing::error!(%error, "uncaptured GPU error")));
        Ok(gpu)
    }

    /// Works on the caller's own device and queue, beside the caller's other GPU work. Nothing is installed on the
    /// device: no callback, no error handler. Features and limits are what the caller requested.
    #[must_use]
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let info = device.adapter_info();
        Self::wrap(device, queue, info, false, Vec::new())
    }

    fn wrap(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: wgpu::AdapterInfo,
        checked: bool,
        cooperative_matrices: Vec<wgpu::CooperativeMatrixProperties>,
    ) -> Self {
        let lost = Arc::new(Mutex::new(None));
        Self(Arc::new(Inner {
            device,
            queue,
            info,
            cooperative_matrices,
            checked,
            lost,
            buffers_created: AtomicU64::new(0),
        }))
    }

    /// The wgpu device.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    /// The wgpu queue.
    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// Name, driver and kind of the adapter.
    #[must_use]
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.0.info
    }

    /// Whether kernels are compiled with bounds checks.
    #[must_use]
    pub fn checked(&self) -> bool {
        self.0.checked
    }

    /// Shapes of the cooperative matrices that the adapter lists; none for a device of the caller's.
    #[must_use]
    pub fn cooperative_matrices(&self) -> &[wgpu::CooperativeMatrixProperties] {
        &self.0.cooperative_matrices
    }

    /// Whether this is a processor that plays a GPU, which wants other kernel variants.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.0.info.device_type {
            wgpu::DeviceType::Cpu => Class::Software,
            _ => Class::Hardware,
        }
    }

    /// Buffers that this crate created on the device so far. Constant while training, after the first iteration.
    #[must_use]
    pub fn buffers_created(&self) -> u64 {
        self.0.buffers_created.load(Ordering::Relaxed)
    }

    /// Runs `work` and returns the first error that the device reported meanwhile.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`] or [`Error::Gpu`].
    pub fn guard<T>(&self, action: &str, work: impl FnOnce() -> T) -> Result<T> {
        let internal = self.0.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = self.0.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.0.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = work();
        let errors = [validation, memory, internal].map(|scope| pollster::block_on(scope.pop()));
        let error = errors.into_iter().flatten().next();
        if error.is_some() {
            // A lost device is announced only while polling, and everything on it then fails in its own way.
            let _ = self.0.device.poll(wgpu::PollType::Poll);
        }
        self.alive()?;
        match error {
            None => Ok(value),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::OutOfMemory { action: action.into() }),
            Some(error) => Err(Error::Gpu { action: action.into(), reason: error.to_string() }),
        }
    }

    /// # Errors
    /// [`Error::DeviceLost`] if the driver said so since the device was opened.
    pub fn alive(&self) -> Result<()> {
        match self.0.lost.lock() {
            Ok(reason) => match reason.as_ref() {
                Some(reason) => Err(Error::DeviceLost { reason: reason.clone() }),
                None => Ok(()),
            },
            Err(_) => Err(Error::DeviceLost { reason: "its callback panicked".into() }),
        }
    }

    /// Creates a buffer of `bytes` bytes (rounded up to 16).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the device has no room, [`Error::Gpu`] above the device's largest buffer.
    pub fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let size = bytes.max(16).next_multiple_of(16);
        self.0.buffers_created.fetch_add(1, Ordering::Relaxed);
        self.guard(&format!("allocating {size} bytes for `{label}`"), || {
            self.0.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage,
                mapped_at_creation: false,
            })
        })
    }

    /// Creates a texture that kernels read without a sampler.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the device has no room, [`Error::Gpu`] above the device's largest texture.
    pub fn texture(
        &self,
        label: &str,
        size: wgpu::Extent3d,
        format: wgpu::TextureFormat,
    ) -> Result<wgpu::Texture> {
        self.guard(&format!("allocating `{label}`"), || {
            self.0.device.create_texture(&wgpu::TextureDescriptor {
                label: Some(label),
                size,
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format,
                usage: wgpu::TextureUsages::TEXTURE_BINDING
                    | wgpu::TextureUsages::COPY_DST
                    | wgpu::TextureUsages::COPY_SRC,
                view_formats: &[],
            })
        })
    }

    /// Creates a storage buffer that holds `data`.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub fn upload<T: bytemuck::NoUninit>(&self, label: &str, data: &[T]) -> Result<wgpu::Buffer> {
        self.filled(label, bytemuck::cast_slice(data), super::STATE)
    }

    /// Creates a uniform buffer that holds `value`.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub fn uniform<T: bytemuck::NoUninit>(&self, label: &str, value: &T) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        self.filled(label, bytemuck::bytes_of(value), usage)
    }

    /// Creates one uniform buffer with every value at a multiple of [`Gpu::uniform_stride`], to be bound with a
    /// dynamic offset.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub fn uniform_table<T: bytemuck::NoUninit>(&self, label: &str, values: &[T]) -> Result<wgpu::Buffer> {
        let stride = self.uniform_stride::<T>() as usize;
        let mut bytes = vec![0u8; stride * values.len()];
        for (slot, value) in bytes.chunks_exact_mut(stride).zip(values) {
            slot[..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(value));
        }
        self.filled(label, &bytes, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)
    }

    /// Distance in bytes between two values of a [`Gpu::uniform_table`].
    #[must_use]
    pub fn uniform_stride<T>(&self) -> u32 {
        super::round_up(size_of::<T>() as u32, self.0.device.limits().min_uniform_buffer_offset_alignment)
    }

    fn filled(&self, label: &str, bytes: &[u8], usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let buffer = self.buffer(label, bytes.len() as u64, usage)?;
        self.write(&buffer, 0, bytes)?;
        Ok(buffer)
    }

    /// Copies host bytes into a buffer, padded with zeros to a multiple of 4. For set-up, not for the training loop.
    ///
    /// # Errors
    /// [`Error::Gpu`] if they do not fit, [`Error::DeviceLost`].
    pub fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        let whole = bytes.len() - bytes.len() % 4;
        self.guard("uploading", || {
            self.0.queue.write_buffer(buffer, offset, &bytes[..whole]);
            if whole < bytes.len() {
                let mut tail = [0u8; 4];
                tail[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                self.0.queue.write_buffer(buffer, offset + whole as u64, &tail);
            }
        })
    }

    /// Reads a whole buffer back and waits for it. For tests, checkpoints and results, not for the training loop.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`].
    pub fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer) -> Result<Vec<T>> {
        let bytes = self.read_range(buffer, 0, buffer.size())?;
        Ok(bytemuck::pod_collect_to_vec(&bytes[..bytes.len() / size_of::<T>() * size_of::<T>()]))
    }

    /// A part of a buffer, from byte `offset` on; both numbers multiples of 4.
    ///
    /// # Errors
    /// As [`Gpu::read`], and [`Error::Gpu`] for what is not in the buffer.
    pub fn read_range(&self, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let staging =
            self.buffer("read", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        let index = self.guard("reading a buffer", || {
            let mut encoder = self.0.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes);
            self.0.queue.submit([encoder.finish()])
        })?;
        self.map(&staging, index)
    }

    /// Waits for `submission`, then maps `staging` and returns its bytes.
    pub(super) fn map(&self, staging: &wgpu::Buffer, submission: wgpu::SubmissionIndex) -> Result<Vec<u8>> {
        let (sender, mapped) = std::sync::mpsc::channel();
        self.guard("mapping a buffer", || {
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                // Nobody listens any more if the wait failed.
                let _ = sender.send(result);
            });
        })?;
        let waiting = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
        if let Err(error) = self.0.device.poll(waiting) {
            self.alive()?;
            return Err(Error::DeviceLost { reason: error.to_string() });
        }
        self.alive()?;
        // Another thread that polls the device at the same time may have taken the callback along, and not called it yet.
        let result = mapped.recv_timeout(Duration::from_secs(60));
        if !matches!(result, Ok(Ok(()))) {
            self.alive()?;
            return Err(Error::DeviceLost { reason: format!("a buffer could not be mapped: {result:?}") });
        }
        let bytes = match staging.get_mapped_range(..) {
            Ok(view) => view.to_vec(),
            Err(error) => {
                return Err(Error::Gpu { action: "mapping a buffer".into(), reason: error.to_string() });
            }
        };
        staging.unmap();
        Ok(bytes)
    }

    /// Waits until the device has done everything submitted so far.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn wait(&self) -> Result<()> {
        let polled = self.0.device.poll(wgpu::PollType::wait_indefinitely());
        self.alive()?;
        polled.map(|_| ()).map_err(|error| Error::DeviceLost { reason: error.to_string() })
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("adapter", &self.0.info.name)
            .field("backend", &self.0.info.backend)
            .finish()
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
    use crate::gpu::Recorder;

    #[test]
    fn an_unknown_adapter_is_named_together_with_those_found() {
        let options = GpuOptions { adapter: Some("no such card".into()), checked: false };
        let text = Gpu::open(&options).unwrap_err().to_string();
        assert!(text.contains("matches `no such card`") && text.contains("PHALANX_ADAPTER"), "{text}");
    }

    #[test]
    fn bytes_survive_upload_and_read() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let data: Vec<u32> = (0..1001).map(|i| i * 7919).collect();
        let back: Vec<u32> = gpu.read(&gpu.upload("data", &data).unwrap()).unwrap();
        assert_eq!(&back[..1001], &data[..]);
    }

    /// Each thread's poll may call the others' callbacks.
    #[test]
    fn threads_may_read_side_by_side() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let gpu = &gpu;
                scope.spawn(move || {
                    let buffer = gpu.upload("data", &[thread; 64]).unwrap();
                    for _ in 0..200 {
                        assert_eq!(gpu.read::<u32>(&buffer).unwrap()[63], thread);
                    }
                });
            }
        });
    }

    #[test]
    fn works_on_the_callers_device() {
        let own = Gpu::open(&GpuOptions::default()).unwrap();
        let gpu = Gpu::from_device(own.device().clone(), own.queue().clone());
        assert_eq!(gpu.info().name, own.info().name);
        let back: Vec<f32> = gpu.read(&gpu.upload("data", &[1.5f32, -2.0]).unwrap()).unwrap();
        assert_eq!(&back[..2], &[1.5, -2.0]);
    }

    #[test]
    fn a_lost_device_is_an_error_and_not_a_panic() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let buffer = gpu.upload("data", &[1f32]).unwrap();
        gpu.device().destroy();
        let error = gpu.read::<f32>(&buffer).unwrap_err();
        assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
        assert!(matches!(Recorder::new(&gpu).submit(), Err(Error::DeviceLost { .. })));
    }

    #[test]
    fn a_buffer_beyond_the_device_is_an_error() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let size = gpu.device().limits().max_buffer_size.saturating_add(16);
        let error = gpu.buffer("huge", size, wgpu::BufferUsages::STORAGE).unwrap_err();
        assert!(matches!(error, Error::Gpu { .. } | Error::OutOfMemory { .. }), "{error}");
        assert!(error.to_string().contains("huge"));
    }
}
