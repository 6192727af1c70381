//! Recorded work as plain data, and its encoding into few compute passes and few submissions.

use std::sync::Arc;

use super::wait::block_on;
use super::{BindGroup, Gpu, Kernel};
use crate::{Error, Result};

/// One step of a [`Recording`].
#[derive(Clone, Debug)]
pub enum Command {
    /// Run a kernel.
    Dispatch {
        /// The kernel.
        kernel: Kernel,
        /// Its resources.
        group: BindGroup,
        /// Byte offset into its parameter table, for kernels with [`super::Access::DynamicUniform`].
        offset: Option<u32>,
        /// Workgroups in x, y, z.
        groups: [u32; 3],
    },
    /// Copy bytes between two buffers.
    Copy {
        /// Source buffer.
        source: wgpu::Buffer,
        /// First byte in the source.
        source_offset: u64,
        /// Target buffer.
        target: wgpu::Buffer,
        /// First byte in the target.
        target_offset: u64,
        /// Number of bytes, a multiple of 4.
        bytes: u64,
    },
    /// Copy a buffer, row by row, into a whole texture of `vec4<f32>`.
    Fill {
        /// Source buffer, from its first byte.
        source: wgpu::Buffer,
        /// Target texture. A row has a multiple of 256 bytes.
        target: wgpu::Texture,
    },
    /// Work on the host, between two submissions.
    Host(Arc<dyn HostWork>),
}

/// Work on the host in the middle of a recording, for instance a step of simulators on the CPU.
pub trait HostWork: Send + Sync + std::fmt::Debug {
    /// Does the work. Commands encoded before it are not submitted yet: it may submit them itself, for instance to read results
    /// back.
    ///
    /// # Errors
    /// Any error. It ends the encoding.
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

/// Commands in order, recorded once and encoded every iteration.
pub type Recording = Vec<Command>;

/// Counts of the work sent to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernel launches.
    pub dispatches: u64,
    /// Compute passes.
    pub passes: u64,
    /// Queue submissions.
    pub submits: u64,
    /// Results copied back to the host.
    pub readbacks: u64,
}

/// A ring of mappable buffers that results are copied to.
#[derive(Debug)]
pub struct Readback {
    ring: Vec<wgpu::Buffer>,
    pending: std::collections::VecDeque<(usize, wgpu::SubmissionIndex)>,
    next: usize,
}

impl Readback {
    /// A ring of `depth` buffers of `bytes` bytes each.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, bytes: u64, depth: usize) -> Result<Self> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let ring = (0..depth.max(1)).map(|_| gpu.buffer("readback", bytes, usage)).collect::<Result<_>>()?;
        Ok(Self { ring, pending: Default::default(), next: 0 })
    }

    /// Results requested and not yet taken.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether another result can be requested before the oldest one is taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.pending.len() < self.ring.len()
    }

    /// Waits for the oldest result and returns it, or `None` if none was requested.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], also if the device hangs ([`Gpu::with_hang_timeout`]).
    pub fn take<T: bytemuck::Pod>(&mut self, gpu: &Gpu) -> Result<Option<Vec<T>>> {
        block_on(self.take_async(gpu))
    }

    /// [`Readback::take`] for callers that await the device. Poll the future to completion: dropping it loses the result.
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

/// Encodes recordings, submits them and counts the work.
#[derive(Debug)]
pub struct Recorder {
    gpu: Gpu,
    encoder: Option<wgpu::CommandEncoder>,
    counts: Counts,
}

impl Recorder {
    /// A recorder with counts of zero.
    #[must_use]
    pub fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), encoder: None, counts: Counts::default() }
    }

    /// Counts of the work encoded and submitted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Appends commands to the next submission. Consecutive dispatches share one compute pass, in which wgpu inserts the barriers
    /// between those that use the same buffers.
    ///
    /// # Errors
    /// The error of a [`Command::Host`]. Other commands report their errors when they are submitted.
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

    /// Submits the encoded commands.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::DeviceLost`], [`Error::OutOfMemory`].
    pub fn submit(&mut self) -> Result<wgpu::SubmissionIndex> {
        let encoder = self.encoder.take();
        self.counts.submits += 1;
        self.gpu.guard("submitting", || self.gpu.queue().submit(encoder.map(wgpu::CommandEncoder::finish)))
    }

    /// Submits the encoded commands, followed by a copy of `source` into the ring.
    ///
    /// # Errors
    /// [`Error::Shape`] if the ring is full or too small, and as [`Recorder::submit`].
    pub fn submit_with_readback(&mut self, source: &wgpu::Buffer, readback: &mut Readback) -> Result<()> {
        if !readback.has_room() {
            return Err(Error::shape(
                "readbacks not yet taken",
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

    /// Encodes and submits commands.
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
        Some(offset) => pass.set_bind_group(0, &*group.group, &[*offset]),
        None => pass.set_bind_group(0, &*group.group, &[]),
    }
    pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
}
