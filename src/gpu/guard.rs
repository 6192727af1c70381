//! Guarded calls: the errors that wgpu reports meanwhile become [`Error`]s.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use super::Gpu;
use crate::{Error, Result};

/// The first error of some work, once the device has reported it.
type ScopedError = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;

/// Errors of guarded calls that could not wait for the device, each with its action.
#[derive(Default)]
pub(super) struct Unsettled(Mutex<Vec<(String, ScopedError)>>);

impl Gpu {
    /// Runs `work` and returns the first error that the device reported meanwhile. In a browser, which cannot block, the error
    /// is returned by the next call that awaits the device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`] or [`Error::Gpu`].
    pub fn guard<T>(&self, action: &str, work: impl FnOnce() -> T) -> Result<T> {
        #[cfg(not(target_arch = "wasm32"))]
        return super::wait::block_on(self.guard_async(action, work));
        #[cfg(target_arch = "wasm32")]
        self.guard_later(action, work)
    }

    /// [`Gpu::guard`] for callers that await the device.
    ///
    /// # Errors
    /// As [`Gpu::guard`].
    pub async fn guard_async<T>(&self, action: &str, work: impl FnOnce() -> T) -> Result<T> {
        self.settle().await?;
        let (value, error) = self.in_scopes(work);
        let error = error.await;
        self.report(action, error).await?;
        Ok(value)
    }

    /// Runs `work` and leaves its errors to the next [`Gpu::guard_async`].
    #[cfg(any(test, target_arch = "wasm32"))]
    fn guard_later<T>(&self, action: &str, work: impl FnOnce() -> T) -> Result<T> {
        self.alive()?;
        let (value, error) = self.in_scopes(work);
        let mut unsettled = self.unsettled().0.lock().unwrap_or_else(PoisonError::into_inner);
        unsettled.push((action.to_string(), error));
        Ok(value)
    }

    /// Reports the first error of all [`Gpu::guard_later`] so far.
    async fn settle(&self) -> Result<()> {
        let unsettled = {
            let mut unsettled = self.unsettled().0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *unsettled)
        };
        let mut first = Ok(());
        for (action, error) in unsettled {
            let error = error.await;
            let reported = self.report(&action, error).await;
            first = first.and(reported);
        }
        first
    }

    /// Runs `work` in error scopes, and returns its value and the first error, which may be awaited later.
    fn in_scopes<T>(&self, work: impl FnOnce() -> T) -> (T, ScopedError) {
        let device = self.device();
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = work();
        // Scopes belong to the thread and form a stack: all are popped here, before any is awaited.
        let (validation, memory, internal) = (validation.pop(), memory.pop(), internal.pop());
        let error = async move {
            // Full memory first: using a buffer that could not be allocated is an error of validation too.
            let (validation, memory, internal) = (validation.await, memory.await, internal.await);
            let errors = [memory, validation, internal];
            errors.into_iter().flatten().next()
        };
        (value, Box::pin(error))
    }

    async fn report(&self, action: &str, error: Option<wgpu::Error>) -> Result<()> {
        if error.is_some() {
            // wgpu announces the loss of a device only while polling; the result of this poll says nothing more.
            let _ = self.poll(wgpu::PollType::Poll);
        }
        self.alive()?;
        match error {
            None => Ok(()),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::OutOfMemory { action: action.into() }),
            Some(_) if self.is_gone().await => {
                Err(self.note_loss("it was destroyed, or its driver was reset"))
            }
            Some(error) => Err(Error::Gpu { action: action.into(), reason: error.to_string() }),
        }
    }

    /// Whether not even a small buffer can be mapped. A device given by the caller has no callback of ours that would announce
    /// its loss, and wgpu does not report the loss to error scopes.
    async fn is_gone(&self) -> bool {
        let internal = self.device().push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = self.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let probe = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("probe"),
            size: 16,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        probe.map_async(wgpu::MapMode::Read, .., |_| {});
        let (validation, memory, internal) = (validation.pop(), memory.pop(), internal.pop());
        let invalid = validation.await.is_some();
        // A device whose memory is full is still there.
        let full = memory.await.is_some() | internal.await.is_some();
        probe.destroy();
        invalid && !full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::GpuOptions;

    #[test]
    fn an_error_that_could_not_be_awaited_is_reported_by_the_next_call_that_awaits() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let size = gpu.device().limits().max_buffer_size.saturating_add(16);
        let usage = wgpu::BufferUsages::STORAGE;
        gpu.guard_later("allocating too much", || gpu.unguarded_buffer("huge", size, usage)).unwrap();
        gpu.guard_later("allocating little", || gpu.unguarded_buffer("small", 16, usage)).unwrap();
        let error = gpu.upload("data", &[1f32]).unwrap_err().to_string();
        assert!(error.contains("allocating too much"), "{error}");
        gpu.upload("data", &[1f32]).unwrap();
    }
}
