//! Indicators that share one kernel, and its bindings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::compose::{self, FIRST_OUTPUT, Form, Source};
use super::grid::{self, Grid};
use super::indicator::{Input, Spec};
use super::series::Store;
use crate::gpu::{Access, BindGroup, Class, Command, Gpu, Kernel};
use crate::{Error, Result};

/// Values that one kernel keeps in registers for its windows; more of them spill.
const REGISTERS: u32 = 192;

/// Whose parameters a row of outputs has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// All rows the same.
    Shared,
    /// One entry for each combination of parameters; every series comes with every combination.
    Combinations,
    /// One entry for each series.
    EachSeries,
}

/// Counterpart of `Walk` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Walk {
    pub rows: u32,
    pub series: u32,
    pub stride: u32,
    pub bars: u32,
    pub begin: u32,
    pub chunks: u32,
    pub length: u32,
    pub halo: u32,
    pub by_series: u32,
    pub entry: u32,
    pub resume: u32,
    pub width: u32,
    pub zero: u32,
    pub four: u32,
    pub pad: [u32; 2],
}

/// Indicators of one kernel.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub specs: Vec<Spec>,
    pub rows: Rows,
    /// Entries of the parameter table, each as long as `entry`.
    pub table: Vec<u32>,
    pub entry: u32,
    /// Which entries of the builder these are.
    pub members: Vec<usize>,
}

/// A kernel compiled for a group, with the buffers that are its own.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub kernel: Kernel,
    pub source: Source,
    own: Vec<(u32, wgpu::Buffer)>,
    pub bytes: u64,
}

impl Group {
    /// A group of one indicator with parameters that differ from row to row.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no entry, or they are of different indicators.
    pub fn of_table(specs: &[Spec], rows: Rows, member: usize) -> Result<Self> {
        let Some(first) = specs.first() else {
            return Err(Error::shape("parameters to choose from", "at least one set of them", 0));
        };
        let mut longest = first.clone();
        for spec in specs {
            if spec.shader != first.shader {
                return Err(Error::shape("parameters", first.shader.name, spec.shader.name));
            }
            for (window, other) in longest.windows.iter_mut().zip(&spec.windows) {
                window.length = window.length.max(other.length);
            }
            longest.memory = longest.memory.zip(spec.memory).map(|(a, b)| a.max(b));
        }
        let table: Vec<u32> = specs.iter().flat_map(compose::entry).collect();
        let entry = (table.len() / specs.len()) as u32;
        Ok(Self { specs: vec![longest], rows, table, entry, members: vec![member] })
    }

    /// Whether `spec` can come into the same kernel, in the batch or in the live form.
    pub fn takes(&self, gpu: &Gpu, spec: &Spec, live: bool, still: bool) -> bool {
        let lasting = |spec: &Spec| spec.memory_over(still).is_none();
        if self.rows != Rows::Shared || self.specs.iter().any(lasting) != lasting(spec) {
            return false;
        }
        let all = || self.specs.iter().chain([spec]);
        let outputs: usize = all().map(|spec| spec.outputs.len()).sum();
        let mut storage = outputs;
        if live || gpu.class() == Class::Hardware {
            storage += 1 + usize::from(all().any(|spec| spec.input == Input::Trades));
        }
        let rings = all().flat_map(|spec| &spec.windows).any(|window| !compose::in_registers(window));
        storage += usize::from(rings);
        // Long series are walked in parts, with counters and state kept between them, where a chunk would have to start
        // too far ahead or software adapters limit the loops over the rings.
        let parts = rings || all().any(|spec| spec.memory_over(still).is_none_or(|bars| bars > 4096));
        storage += if live || parts { 2 } else { 0 };
        let windows = all().flat_map(|spec| &spec.windows);
        let registers: u32 =
            windows.filter(|window| compose::in_registers(window)).map(|window| window.length).sum();
        storage <= gpu.device().limits().max_storage_buffers_per_shader_stage as usize
            && registers <= REGISTERS
            && grid::possible(gpu.class(), compose::loops(all(), false))
    }

    /// Bars after which the indicators have forgotten their start.
    pub fn memory(&self, still: bool) -> Option<u32> {
        self.specs.iter().try_fold(0, |longest, spec| spec.memory_over(still).map(|bars| bars.max(longest)))
    }

    /// Rows of outputs for so many series.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one entry for each series.
    pub fn rows(&self, series: u32) -> Result<u32> {
        let entries = self.table.len() as u32 / self.entry.max(1);
        match self.rows {
            Rows::Shared => Ok(series),
            Rows::Combinations => Ok(series.saturating_mul(entries)),
            Rows::EachSeries if entries == series => Ok(series),
            Rows::EachSeries => {
                Err(Error::shape("parameters for each series", format!("{series}, one for each"), entries))
            }
        }
    }

    /// Composes the kernel only.
    ///
    /// # Errors
    /// [`Error::Shader`].
    pub fn compose(&self, form: Form) -> Result<Source> {
        compose::compose(&self.specs, Form { table: self.rows != Rows::Shared, ..form })
    }

    /// Compiles the kernel and allocates its table, state and rings for so many lanes.
    ///
    /// # Errors
    /// [`Error::Shader`], [`Error::Gpu`], [`Error::OutOfMemory`], [`Error::Shape`] if they exceed a binding.
    pub fn compile(&self, gpu: &Gpu, form: Form, lanes: u32, compiled: &Kernels) -> Result<Compiled> {
        let source = self.compose(form)?;
        let input = if form.textures { Access::Texture } else { Access::Read };
        let mut access = vec![(0, Access::Uniform), (1, input)];
        if source.volume {
            access.push((2, input));
        }
        let mut own = Vec::new();
        if self.rows != Rows::Shared {
            access.push((3, Access::Read));
            own.push((3, gpu.upload("indicator parameters", &self.table)?));
        }
        let most = gpu.device().limits().max_storage_buffer_binding_size;
        let mut kept = vec![(6, "rings", source.rings)];
        if form.keep {
            kept.extend([(4, "counters", 3), (5, "state", source.state)]);
        }
        for (binding, name, words) in kept.into_iter().filter(|(_, _, words)| *words > 0) {
            let bytes = u64::from(words) * u64::from(lanes) * 4;
            if bytes > most {
                let expected = format!("at most {most} bytes, this device's largest binding");
                return Err(Error::shape(format!("{name} of the indicators' windows"), expected, bytes));
            }
            access.push((binding, Access::Write));
            own.push((binding, gpu.buffer(name, bytes.max(16), crate::gpu::STATE)?));
        }
        access.extend((0..source.outputs).map(|output| (FIRST_OUTPUT + output, Access::Write)));
        let bytes = own.iter().map(|(_, buffer)| buffer.size()).sum();
        let kernel = compiled.of(gpu, &source, &access)?;
        Ok(Compiled { kernel, source, own, bytes })
    }
}

/// Kernels by their source: drivers take seconds for large ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernels(Arc<Mutex<HashMap<String, Kernel>>>);

impl Kernels {
    fn of(&self, gpu: &Gpu, source: &Source, access: &[(u32, Access)]) -> Result<Kernel> {
        // A panic of another thread leaves whole kernels behind.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = known.get(&source.text) {
            return Ok(kernel.clone());
        }
        let (text, variant) = (source.text.clone(), source.variant.clone());
        let kernel = Kernel::from_source(gpu, compose::SHADER.name, text.clone(), variant, access)?;
        known.insert(text, kernel.clone());
        Ok(kernel)
    }
}

impl Compiled {
    /// Binds candles and outputs to the kernel.
    ///
    /// # Errors
    /// [`Error::Data`] if the volume is needed and missing; [`Error::Gpu`].
    pub fn bind(
        &self,
        gpu: &Gpu,
        walk: &wgpu::Buffer,
        candles: &Store,
        volumes: Option<&Store>,
        outputs: &[(&wgpu::Buffer, u64)],
    ) -> Result<BindGroup> {
        let mut resources = vec![(0, walk.as_entire_binding()), (1, candles.resource())];
        if self.source.volume {
            let volumes = volumes.ok_or_else(|| {
                Error::Data("an indicator needs the volume; the candles were uploaded without it".into())
            })?;
            resources.push((2, volumes.resource()));
        }
        resources.extend(self.own.iter().map(|(binding, buffer)| (*binding, buffer.as_entire_binding())));
        // No more than the outputs need, however large the caller's buffers are.
        let outputs = outputs.iter().map(|(buffer, bytes)| {
            let size = std::num::NonZeroU64::new(*bytes);
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size })
        });
        resources.extend((FIRST_OUTPUT..).zip(outputs));
        self.kernel.bind_at(gpu, resources)
    }

    /// Commands that walk over `bars` bars as `grid` shares them out.
    ///
    /// # Errors
    /// As [`Compiled::bind`].
    pub fn record(
        &self,
        gpu: &Gpu,
        grid: &Grid,
        walk: Walk,
        candles: &Store,
        volumes: Option<&Store>,
        outputs: &[(&wgpu::Buffer, u64)],
    ) -> Result<Vec<Command>> {
        let [x, y] = self.kernel.variant.rows(walk.rows * grid.chunks);
        (0..grid.parts)
            .map(|part| {
                let begin = part * grid.length;
                let walk = Walk {
                    begin,
                    chunks: grid.chunks,
                    // A part ends where the next one begins, so that no bar is walked over twice.
                    length: grid.length,
                    halo: if grid.parts > 1 { 0 } else { grid.halo },
                    resume: u32::from(part > 0),
                    width: candles.width(),
                    four: 4,
                    ..walk
                };
                let uniform = gpu.uniform("walk", &walk)?;
                let group = self.bind(gpu, &uniform, candles, volumes, outputs)?;
                Ok(Command::dispatch(&self.kernel, &group, [x, y, 1]))
            })
            .collect()
    }
}

/// The grid of a group over a panel. `still` says that the series do not move for long stretches.
///
/// # Errors
/// [`Error::Config`] if a window is too long for the loops of a software adapter.
pub(super) fn grid(gpu: &Gpu, group: &Group, rows: u32, fours: u32, still: bool) -> Result<Grid> {
    possible(gpu, group)?;
    let table = group.rows != Rows::Shared;
    let words = compose::words_of_rings(&group.specs, table).max(1);
    let lanes = gpu.device().limits().max_storage_buffer_binding_size / (u64::from(words) * 4);
    let lanes = u32::try_from(lanes).unwrap_or(u32::MAX);
    let loops = compose::loops(&group.specs, table);
    Ok(Grid::new(gpu.class(), rows, fours, group.memory(still), loops, lanes))
}

/// Refuses windows that are too long for the loops of a software adapter.
///
/// # Errors
/// [`Error::Config`].
pub(super) fn possible(gpu: &Gpu, group: &Group) -> Result<()> {
    if grid::possible(gpu.class(), compose::loops(&group.specs, group.rows != Rows::Shared)) {
        return Ok(());
    }
    let name = group.specs.first().map_or("", |spec| spec.shader.name);
    Err(Error::config(name, "its windows are too long for the loops of this software adapter; halve them"))
}
