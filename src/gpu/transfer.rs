//! Creating, filling and reading buffers and textures.

use super::device::Gpu;
use super::signal::signal;
use super::wait::block_on;
use crate::{Error, Result};

impl Gpu {
    /// Creates a buffer of `bytes` bytes (rounded up to 16).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Gpu`] if the device's largest buffer is smaller.
    pub fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let action = format!("allocating {} bytes for `{label}`", padded(bytes));
        self.guard(&action, || self.unguarded_buffer(label, bytes, usage))
    }

    /// As [`Gpu::buffer`], for callers with a guard of their own.
    pub(super) fn unguarded_buffer(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> wgpu::Buffer {
        self.count_buffer();
        self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: padded(bytes),
            usage,
            mapped_at_creation: false,
        })
    }

    /// Creates a two-dimensional texture that kernels load without a sampler.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Gpu`] if the device's largest texture is smaller.
    pub fn texture(
        &self,
        label: &str,
        size: wgpu::Extent3d,
        format: wgpu::TextureFormat,
    ) -> Result<wgpu::Texture> {
        self.guard(&format!("allocating `{label}`"), || {
            self.device().create_texture(&wgpu::TextureDescriptor {
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
        self.uniform_bytes(label, bytemuck::bytes_of(value))
    }

    /// As [`Gpu::uniform`], from bytes.
    pub(crate) fn uniform_bytes(&self, label: &str, bytes: &[u8]) -> Result<wgpu::Buffer> {
        self.filled(label, bytes, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)
    }

    /// Creates a uniform buffer with every value at a multiple of [`Gpu::uniform_stride`], to be bound with a dynamic offset.
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
        super::round_up(size_of::<T>() as u32, self.device().limits().min_uniform_buffer_offset_alignment)
    }

    fn filled(&self, label: &str, bytes: &[u8], usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let size = padded(bytes.len() as u64);
        self.guard(&format!("allocating and filling {size} bytes for `{label}`"), || {
            let buffer = self.unguarded_buffer(label, size, usage);
            self.unguarded_write(&buffer, 0, bytes);
            buffer
        })
    }

    /// Copies bytes from the host into a buffer, padded with zeros to a multiple of 4. Costs a round trip: for set-up, not for the
    /// training loop.
    ///
    /// # Errors
    /// [`Error::Gpu`] if they do not fit, [`Error::DeviceLost`].
    pub fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.guard("uploading", || self.unguarded_write(buffer, offset, bytes))
    }

    fn unguarded_write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        let whole = bytes.len() - bytes.len() % 4;
        self.queue().write_buffer(buffer, offset, &bytes[..whole]);
        if whole < bytes.len() {
            let mut tail = [0u8; 4];
            tail[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue().write_buffer(buffer, offset + whole as u64, &tail);
        }
    }

    /// Reads a whole buffer back. Waits for the device: for checkpoints and results, not for the training loop.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], also if the device hangs ([`Gpu::with_hang_timeout`]); [`Error::OutOfMemory`].
    pub fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer) -> Result<Vec<T>> {
        block_on(self.read_async(buffer))
    }

    /// [`Gpu::read`] for callers that await the device.
    ///
    /// # Errors
    /// As [`Gpu::read`].
    pub async fn read_async<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer) -> Result<Vec<T>> {
        let bytes = self.read_range_async(buffer, 0, buffer.size()).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes[..bytes.len() / size_of::<T>() * size_of::<T>()]))
    }

    /// Reads `bytes` bytes of a buffer from byte `offset` on. Both are multiples of 4.
    ///
    /// # Errors
    /// As [`Gpu::read`], and [`Error::Gpu`] if the range lies outside the buffer.
    pub fn read_range(&self, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        block_on(self.read_range_async(buffer, offset, bytes))
    }

    /// [`Gpu::read_range`] for callers that await the device.
    ///
    /// # Errors
    /// As [`Gpu::read_range`].
    pub async fn read_range_async(&self, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let copied = self.guard_async("reading a buffer", || {
            let staging = self.unguarded_buffer("read", bytes, usage);
            let mut encoder = self.device().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes);
            let submission = self.queue().submit([encoder.finish()]);
            (staging, submission)
        });
        let (staging, submission) = copied.await?;
        let mut read = self.map_async(&staging, submission).await?;
        read.truncate(bytes as usize);
        Ok(read)
    }

    /// Waits for `submission`, then maps `staging` and returns its bytes.
    pub(super) async fn map_async(
        &self,
        staging: &wgpu::Buffer,
        submission: wgpu::SubmissionIndex,
    ) -> Result<Vec<u8>> {
        let (sender, mapped) = signal();
        self.guard_async("mapping a buffer", || {
            staging.map_async(wgpu::MapMode::Read, .., move |result| sender.send(result));
        })
        .await?;
        self.wait_for(Some(submission))?;
        // `wait_for` has called the callback, or another thread that polls the device is about to.
        let unmapped = match mapped.await {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some("its callback was dropped".into()),
        };
        if let Some(reason) = unmapped {
            self.alive()?;
            return Err(Error::DeviceLost { reason: format!("a buffer could not be mapped: {reason}") });
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
}

fn padded(bytes: u64) -> u64 {
    bytes.max(16).next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::GpuOptions;

    #[test]
    fn bytes_survive_upload_and_read() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let data: Vec<u32> = (0..1001).map(|i| i * 7919).collect();
        let back: Vec<u32> = gpu.read(&gpu.upload("data", &data).unwrap()).unwrap();
        assert_eq!(&back[..1001], &data[..]);
        let part = gpu.read_range(&gpu.upload("data", &data).unwrap(), 40, 12).unwrap();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&part), &data[10..13]);
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
    fn a_buffer_beyond_the_device_is_an_error() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let size = gpu.device().limits().max_buffer_size.saturating_add(16);
        let error = gpu.buffer("huge", size, wgpu::BufferUsages::STORAGE).unwrap_err();
        assert!(matches!(error, Error::Gpu { .. } | Error::OutOfMemory { .. }), "{error}");
        assert!(error.to_string().contains("huge"));
    }
}
