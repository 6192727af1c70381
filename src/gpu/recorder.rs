//! Work as plain data, and its replay into few passes and few submits.

use std::sync::Arc;

use super::{BindGroup, Gpu, Kernel};
use crate::{Error, Result};

/// One step of a [`Recording`].
#[derive(Clone, Debug)]
pub enum Command {
    /// Run a kernel.
    Dispatch {
        /// The kernel.
        kernel: Kernel,
        /// Its buffers.
        group: BindGroup,
        /// Byte offset into its parameter table, for kernels with [`super::Access::DynamicUniform`].
        offset: Option<u32>,
        /// Workgroups in x, y, z.
        groups: [u32; 3],
    },
    /// Copy bytes between two buffers.
    Copy {
        /// From here.
        source: wgpu::Buffer,
        /// At this byte.
        source_offset: u64,
        /// To here.
        target: wgpu::Buffer,
        /// At this byte.
        target_offset: u64,
        /// So many bytes, a multiple of 4.
        bytes: u64,
    },
    /// Copy a buffer, row after row, over a whole texture of `vec4<f32>`.
    Fill {
        /// From its start.
        source: wgpu::Buffer,
        /// Over all of it; a row has a multiple of 256 bytes.
        target: wgpu::Texture,
    },
    /// Work of the processor between two submissions.
    Host(Arc<dyn HostWork>),
}

/// Work of the processor in the middle of a recording.
pub trait HostWork: Send + Sync + std::fmt::Debug {
    /// Does it. What was played before is part of the next submission, which it may make itself to read results back.
    ///
    /// # Errors
    /// Anything, which ends the replay.
    fn run(&self, recorder: &mut Recorder) -> Result<()>;
}

impl Command {
    /// A dispatch without a parameter table.
    #[must_use]
    pub fn dispatch(kernel: &Kernel, group: &BindGroup, groups: [u32; 3]) -> Self {
        Self::Dispatch { kernel: kernel.clone(), group: group.clone(), offset: None, groups }
    }

    /// A dispatch that reads entry `index` of its parameter table, whose entries are `stride` bytes apart.
    #[must_use]
    pub fn dispatch_at(
        kernel: &Kernel,
        group: &BindGroup,
        index: u32,
        stride: u32,
        groups: [u32; 3],
    ) -> Self {
        Self::Dispatch { kernel: kernel.clone(), group: group.clone(), offset: Some(index * stride), groups }
    }
}

/// Commands in order. Recorded once, replayed every iteration.
pub type Recording = Vec<Command>;

/// What was sent to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernel launches.
    pub dispatches: u64,
    /// Compute passes.
    pub passes: u64,
    /// Queue submissions.
    pub submits: u64,
    /// Copies back to the host.
    pub readbacks: u64,
}

/// Buffers of the host that results are copied to, used in turn.
#[derive(Debug)]
pub struct Readback {
    ring: Vec<wgpu::Buffer>,
    pending: std::collections::VecDeque<(usize, wgpu::SubmissionIndex)>,
    next: usize,
}

impl Readback {
    /// `depth` buffers of `bytes` bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, bytes: u64, depth: usize) -> Result<Self> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let ring = (0..depth.max(1)).map(|_| gpu.buffer("readback", bytes, usage)).collect::<Result<_>>()?;
        Ok(Self { ring, pending: Default::default(), next: 0 })
    }

    /// Results under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether another result can be requested before one is taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.pending.len() < self.ring.len()
    }

    /// The oldest result, waiting for it if need be; `None` if none was requested.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn take<T: bytemuck::Pod>(&mut self, gpu: &Gpu) -> Result<Option<Vec<T>>> {
        pollster::block_on(self.take_async(gpu))
    }

    /// [`Readback::take`] for callers that await the device.
    ///
    /// # Errors
    /// As [`Readback::take`].
    pub async fn take_async<T: bytemuck::Pod>(&mut self, gpu: &Gpu) -> Result<Option<Vec<T>>> {
        let Some((slot, submission)) = self.pending.pop_front() else {
            return Ok(None);
        };
        let bytes = gpu.map_async(&self.ring[slot], submission).await?;
        Ok(Some(bytemuck::pod_collect_to_vec(&bytes[..bytes.len() / size_of::<T>() * size_of::<T>()])))
    }
}

/// Replays recordings onto the device and counts what it sends.
#[derive(Debug)]
pub struct Recorder {
    gpu: Gpu,
    encoder: Option<wgpu::CommandEncoder>,
    counts: Counts,
}

impl Recorder {
    /// A recorder with all counts at zero.
    #[must_use]
    pub fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), encoder: None, counts: Counts::default() }
    }

    /// What was sent so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Appends commands to the submission in preparation. Dispatches in a row share one compute pass; wgpu orders
    /// those that touch the same buffers.
    ///
    /// # Errors
    /// What [`Command::Host`] reports; without it none.
    pub fn encode(&mut self, commands: &[Command]) -> Result<()> {
        let mut rest = commands;
        while let Some(first) = rest.first() {
            if let Command::Host(work) = first {
                work.run(self)?;
                rest = &rest[1..];
                continue;
            }
            let encoder = match &mut self.encoder {
                Some(encoder) => encoder,
                empty => {
                    let label = wgpu::CommandEncoderDescriptor { label: Some("phalanx") };
                    empty.insert(self.gpu.device().create_command_encoder(&label))
                }
            };
            match first {
                Command::Host(_) => {}
                Command::Copy { source, source_offset, target, target_offset, bytes } => {
                    encoder.copy_buffer_to_buffer(source, *source_offset, target, *target_offset, *bytes);
                    rest = &rest[1..];
                }
                Command::Fill { source, target } => {
                    let layout = wgpu::TexelCopyBufferLayout {
                        offset: 0,
                        bytes_per_row: Some(target.width() * 16),
                        rows_per_image: None,
                    };
                    encoder.copy_buffer_to_texture(
                        wgpu::TexelCopyBufferInfo { buffer: source, layout },
                        target.as_image_copy(),
                        target.size(),
                    );
                    rest = &rest[1..];
                }
                Command::Dispatch { .. } => {
                    let count = rest.iter().take_while(|c| matches!(c, Command::Dispatch { .. })).count();
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                    for command in &rest[..count] {
                        encode(&mut pass, command);
                    }
                    self.counts.passes += 1;
                    self.counts.dispatches += count as u64;
                    rest = &rest[count..];
                }
            }
        }
        Ok(())
    }

    /// The device.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Submits what was encoded.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::DeviceLost`], [`Error::OutOfMemory`].
    pub fn submit(&mut self) -> Result<wgpu::SubmissionIndex> {
        let encoder = self.encoder.take();
        self.counts.submits += 1;
        self.gpu.guard("submitting", || self.gpu.queue().submit(encoder.map(wgpu::CommandEncoder::finish)))
    }

    /// Submits what was encoded, followed by a copy of `source` into the ring.
    ///
    /// # Errors
    /// [`Error::Shape`] if the ring is full or too small, and as [`Recorder::submit`].
    pub fn submit_with_readback(&mut self, source: &wgpu::Buffer, readback: &mut Readback) -> Result<()> {
        if !readback.has_room() {
            return Err(Error::shape(
                "readbacks under way",
                format!("below {}", readback.ring.len()),
                readback.pending(),
            ));
        }
        let slot = readback.next;
        let bytes = source.size().min(readback.ring[slot].size());
        self.encode(&[Command::Copy {
            source: source.clone(),
            source_offset: 0,
            target: readback.ring[slot].clone(),
            target_offset: 0,
            bytes,
        }])?;
        let submission = self.submit()?;
        self.counts.readbacks += 1;
        readback.pending.push_back((slot, submission));
        readback.next = (slot + 1) % readback.ring.len();
        Ok(())
    }

    /// Encodes and submits in one go.
    ///
    /// # Errors
    /// As [`Recorder::submit`].
    pub fn run(&mut self, commands: &[Command]) -> Result<wgpu::SubmissionIndex> {
        self.encode(commands)?;
        self.submit()
    }
}

pub(super) fn encode(pass: &mut wgpu::ComputePass<'_>, command: &Command) {
    let Command::Dispatch { kernel, group, offset, groups } = command else {
        return;
    };
    pass.set_pipeline(&kernel.pipeline);
    match offset {
        Some(offset) => pass.set_bind_group(0, &*group.0, &[*offset]),
        None => pass.set_bind_group(0, &*group.0, &[]),
    }
    pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
}
