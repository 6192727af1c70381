//! Waiting for the device, and what ends a wait: the work is done, the device is lost, or it hangs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::Gpu;
use super::signal::signal;
use crate::Result;

/// Time after which a GPU that has not finished what was submitted counts as hung. Most operating systems reset a GPU after
/// seconds, and an iteration of training takes seconds at most.
const HANG_TIMEOUT: Duration = Duration::from_secs(600);

/// Blocks until `future` is done.
///
/// # Errors
/// The future's own. In a browser, which cannot block, [`crate::Error::Gpu`] if the future has to wait.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    #[cfg(not(target_arch = "wasm32"))]
    return pollster::block_on(future);
    #[cfg(target_arch = "wasm32")]
    match std::pin::pin!(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => Err(crate::Error::Gpu {
            action: "waiting for the device".into(),
            reason: "a browser cannot block: call the function whose name ends in `_async`".into(),
        }),
    }
}

/// The timeout of a new handle. Software rasterisers have none: they may need minutes, and do not hang.
pub(super) fn hang_timeout(kind: wgpu::DeviceType) -> Option<Duration> {
    (kind != wgpu::DeviceType::Cpu).then_some(HANG_TIMEOUT)
}

impl Gpu {
    /// Waits until the device has done everything submitted so far.
    ///
    /// # Errors
    /// [`crate::Error::DeviceLost`], also if the device hangs ([`Gpu::with_hang_timeout`]).
    pub fn wait(&self) -> Result<()> {
        block_on(self.wait_async())
    }

    /// [`Gpu::wait`] for callers that await the device.
    ///
    /// # Errors
    /// As [`Gpu::wait`].
    pub async fn wait_async(&self) -> Result<()> {
        let (sender, done) = signal();
        self.queue().on_submitted_work_done(move || sender.send(()));
        self.wait_for(None)?;
        done.await.ok_or_else(|| self.note_loss("wgpu dropped a callback"))
    }

    /// Waits until the device has done `submission`, or everything. Returns at once in a browser, which calls back when the work
    /// is done.
    pub(super) fn wait_for(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        self.poll(wgpu::PollType::Wait { submission_index: submission, timeout: self.hang_timeout() })
    }

    /// Polls the device, which calls the callbacks of finished work.
    pub(super) fn poll(&self, until: wgpu::PollType) -> Result<()> {
        let polled = lost_instead_of_panic(|| self.device().poll(until));
        self.checked_poll(polled)
    }

    fn checked_poll(&self, polled: Polled) -> Result<()> {
        self.alive()?;
        let reason = match polled {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(wgpu::PollError::Timeout)) => {
                // Dropping the last handle on a queue waits for its work without a limit. This handle is never dropped.
                std::mem::forget(self.queue().clone());
                let seconds = self.hang_timeout().unwrap_or_default().as_secs_f32();
                format!(
                    "it did not finish the submitted work within {seconds} s and counts as hung: raise the limit with \
                     `Gpu::with_hang_timeout` if the work needs longer"
                )
            }
            Ok(Err(error)) => error.to_string(),
            Err(reason) => reason,
        };
        Err(self.note_loss(&reason))
    }
}

/// The result of a poll, or the message of its panic.
type Polled = Result<Result<wgpu::PollStatus, wgpu::PollError>, String>;

/// Calls `poll`, and returns the message of its panic if the driver has lost the device: wgpu panics then. Panics of callbacks
/// pass through.
fn lost_instead_of_panic<T>(poll: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(poll)).map_err(|panic| {
        let message =
            panic.downcast_ref::<String>().and_then(|text| text.strip_prefix("Error in Device::poll: "));
        match message {
            Some(message) => message.trim().to_string(),
            None => resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::gpu::GpuOptions;

    /// The software rasteriser that most tests run on works while it is handed a submission, so that no wait for it times out.
    #[test]
    fn a_device_that_takes_longer_than_the_timeout_is_lost() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let hurried = gpu.with_hang_timeout(Some(Duration::from_millis(1500)));
        hurried.wait().unwrap();
        let error = hurried.checked_poll(Ok(Err(wgpu::PollError::Timeout))).unwrap_err();
        assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
        assert!(error.to_string().contains("within 1.5 s"), "{error}");
        // Every handle knows, without another wait.
        assert!(matches!(gpu.wait(), Err(Error::DeviceLost { .. })));
        assert!(matches!(gpu.upload("data", &[0u32]), Err(Error::DeviceLost { .. })));
    }

    #[test]
    fn software_rasterisers_may_take_any_time() {
        assert_eq!(hang_timeout(wgpu::DeviceType::Cpu), None);
        assert_eq!(hang_timeout(wgpu::DeviceType::IntegratedGpu), Some(HANG_TIMEOUT));
    }

    #[test]
    fn a_device_lost_while_polling_is_no_panic() {
        let panicking = |message: &str| {
            let message = message.to_string();
            catch_unwind(move || lost_instead_of_panic(move || -> () { panic!("{message}") }))
        };
        let lost = panicking("Error in Device::poll: Parent device is lost").unwrap();
        assert_eq!(lost, Err("Parent device is lost".into()));
        let callback = panicking("a callback panicked").unwrap_err();
        assert_eq!(callback.downcast_ref::<String>().unwrap(), "a callback panicked");
    }
}
