//! GPU time by timestamps beside wall time.

use std::time::Duration;

use super::recorder::encode;
use super::time::Instant;
use super::wait::block_on;
use super::{Command, Gpu};
use crate::{Error, Result};

/// Duration of a recording.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between the first and the last dispatch on the device; `None` without `TIMESTAMP_QUERY`.
    pub gpu: Option<Duration>,
    /// From encoding until the host sees that the device is done.
    pub wall: Duration,
}

/// Measures how long dispatches take.
#[derive(Debug)]
pub struct Profiler {
    gpu: Gpu,
    queries: Option<Queries>,
}

#[derive(Debug)]
struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
}

impl Profiler {
    /// A profiler for one device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu) -> Result<Self> {
        let queries = if gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            let set = gpu.guard("creating timestamps", || {
                gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("profiler"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2,
                })
            })?;
            let resolve = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let map = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            Some(Queries {
                set,
                resolved: gpu.buffer("timestamps", 16, resolve)?,
                staging: gpu.buffer("timestamps", 16, map)?,
            })
        } else {
            None
        };
        Ok(Self { gpu: gpu.clone(), queries })
    }

    /// Runs dispatches in one compute pass, waits for them and returns their duration.
    ///
    /// # Errors
    /// [`Error::Shape`] if a command is no dispatch, and as [`super::Recorder::submit`].
    pub fn time(&self, commands: &[Command]) -> Result<Timing> {
        block_on(self.time_async(commands))
    }

    /// [`Profiler::time`] for callers that await the device.
    ///
    /// # Errors
    /// As [`Profiler::time`].
    pub async fn time_async(&self, commands: &[Command]) -> Result<Timing> {
        if commands.iter().any(|command| !matches!(command, Command::Dispatch { .. })) {
            return Err(Error::shape("commands to time", "dispatches", "a copy"));
        }
        let start = Instant::now();
        let submitted = self.gpu.guard_async("timing", || {
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            let writes = self.queries.as_ref().map(|queries| wgpu::ComputePassTimestampWrites {
                query_set: &queries.set,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("profiled"),
                timestamp_writes: writes,
            });
            commands.iter().for_each(|command| encode(&mut pass, command));
            drop(pass);
            if let Some(queries) = &self.queries {
                encoder.resolve_query_set(&queries.set, 0..2, &queries.resolved, 0);
                encoder.copy_buffer_to_buffer(&queries.resolved, 0, &queries.staging, 0, 16);
            }
            self.gpu.queue().submit([encoder.finish()])
        });
        let submission = submitted.await?;
        let gpu = match &self.queries {
            None => {
                self.gpu.wait_async().await?;
                None
            }
            Some(queries) => {
                let bytes = self.gpu.map_async(&queries.staging, submission).await?;
                let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
                let &[start, end] = ticks.as_slice() else {
                    return Err(Error::shape("timestamps read back", 2, ticks.len()));
                };
                let span = end.saturating_sub(start);
                let nanoseconds = span as f64 * f64::from(self.gpu.queue().get_timestamp_period());
                Some(Duration::from_nanos(nanoseconds as u64))
            }
        };
        Ok(Timing { gpu, wall: start.elapsed() })
    }
}
