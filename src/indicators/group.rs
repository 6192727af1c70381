//! Groups of indicators that share one kernel, and the kernel's bindings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::compose::{self, FIRST_OUTPUT, PanelConfig, Source};
use super::grid::{self, Grid};
use super::indicator::{Input, Spec};
use super::obv_sums;
use super::series::Store;
use crate::gpu::{Access, BindGroup, Class, Command, Gpu, Kernel};
use crate::{Error, Result};

/// Most registers that the windows of one kernel occupy; with more, drivers spill them to memory.
const REGISTERS: u32 = 192;

/// Assignment of parameter sets to rows of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// One parameter set for all rows.
    Shared,
    /// One row for every pair of a parameter set and a series.
    Combinations,
    /// One parameter set per series.
    EachSeries,
}

/// Mirrors `Walk` in the shader.
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

/// The indicators of one kernel.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub specs: Vec<Spec>,
    pub rows: Rows,
    /// Parameter table: one entry of `entry` words per parameter set. Empty for [`Rows::Shared`].
    pub table: Vec<u32>,
    pub entry: u32,
    /// For each of `specs`, the index of its entry in the builder.
    pub members: Vec<usize>,
}

/// A compiled kernel of a group, with its internal buffers.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub kernel: Kernel,
    pub source: Source,
    own: Vec<(u32, wgpu::Buffer)>,
    pub bytes: u64,
}

impl Group {
    /// A group of one indicator whose parameters differ between rows.
    ///
    /// # Errors
    /// [`Error::Shape`] if `specs` is empty or mixes indicators.
    pub fn of_table(specs: &[Spec], rows: Rows, member: usize) -> Result<Self> {
        let Some(first) = specs.first() else {
            return Err(Error::shape("parameter sets of an indicator", "at least one", 0));
        };
        let mut longest = first.clone();
        for spec in specs {
            if spec.shader != first.shader {
                return Err(Error::shape(
                    "parameter sets of an indicator",
                    first.shader.name,
                    spec.shader.name,
                ));
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

    /// Whether the kernel can take `spec` as well, for batch or live computation.
    pub fn takes(&self, gpu: &Gpu, spec: &Spec, live: bool, still: bool) -> bool {
        let lasting = |spec: &Spec| spec.memory_over(still).is_none();
        if self.rows != Rows::Shared || self.specs.iter().any(lasting) != lasting(spec) {
            return false;
        }
        // On GPUs a sum over a long series is a scan, with kernels of its own.
        let scanned = !live && gpu.class() == Class::Hardware;
        if scanned && (spec.is_sum() || self.specs.iter().any(Spec::is_sum)) {
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
        // Long series are processed in several dispatches, with two buffers for counters and state between them, if the
        // warm-up of a chunk would be too long or if loops over rings could exceed the limit of software adapters.
        let parts = rings || all().any(|spec| spec.memory_over(still).is_none_or(|bars| bars > 4096));
        storage += if live || parts { 2 } else { 0 };
        let windows = all().flat_map(|spec| &spec.windows);
        let registers: u32 =
            windows.filter(|window| compose::in_registers(window)).map(compose::registers).sum();
        storage <= gpu.device().limits().max_storage_buffers_per_shader_stage as usize
            && registers <= REGISTERS
            && grid::possible(gpu.class(), compose::loops(all(), false))
    }

    /// The largest memory of the indicators in bars; `None` if one of them has unlimited memory.
    pub fn memory(&self, still: bool) -> Option<u32> {
        self.specs.iter().try_fold(0, |longest, spec| spec.memory_over(still).map(|bars| bars.max(longest)))
    }

    /// Number of output rows for `series` series.
    ///
    /// # Errors
    /// [`Error::Shape`] for [`Rows::EachSeries`] if the number of parameter sets is not `series`.
    pub fn rows(&self, series: u32) -> Result<u32> {
        let entries = self.table.len() as u32 / self.entry.max(1);
        match self.rows {
            Rows::Shared => Ok(series),
            Rows::Combinations => Ok(series.saturating_mul(entries)),
            Rows::EachSeries if entries == series => Ok(series),
            Rows::EachSeries => {
                Err(Error::shape("parameter sets", format!("{series}, one for each series"), entries))
            }
        }
    }

    /// Composes the kernel without compiling it.
    ///
    /// # Errors
    /// [`Error::Shader`].
    pub fn compose(&self, config: PanelConfig) -> Result<Source> {
        let parameter_table = self.rows != Rows::Shared;
        compose::compose(&self.specs, PanelConfig { parameter_table, ..config })
    }

    /// Compiles the kernel and allocates its table, state and rings for `lanes` invocations.
    ///
    /// # Errors
    /// [`Error::Shader`], [`Error::Gpu`], [`Error::OutOfMemory`]; [`Error::Shape`] if a buffer exceeds the largest binding.
    pub fn compile(
        &self,
        gpu: &Gpu,
        config: PanelConfig,
        lanes: u32,
        compiled: &Kernels,
    ) -> Result<Compiled> {
        let source = self.compose(config)?;
        let input = if config.textures { Access::Texture } else { Access::Read };
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
        if config.keep {
            kept.extend([(4, "counters", 5), (5, "state", source.state)]);
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

/// Compiled kernels by their source, because drivers take seconds to compile large ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernels(Arc<Mutex<HashMap<String, Kernel>>>);

impl Kernels {
    fn of(&self, gpu: &Gpu, source: &Source, access: &[(u32, Access)]) -> Result<Kernel> {
        // The map is consistent even if another thread panicked while holding the lock.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = known.get(&source.text) {
            return Ok(kernel.clone());
        }
        let (text, variant) = (source.text.clone(), source.variant.clone());
        let name = compose::SHADER.name;
        let kernel = Kernel::from_source(gpu, name, text.clone(), variant, access, 0, gpu.checked())?;
        known.insert(text, kernel.clone());
        Ok(kernel)
    }
}

impl Compiled {
    /// Binds candles and outputs to the kernel. The caller guarantees that each output has the given number of bytes.
    ///
    /// # Errors
    /// [`Error::Data`] if an indicator needs volume and there is none; [`Error::Gpu`].
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
            let volumes = volumes.ok_or_else(no_volume)?;
            resources.push((2, volumes.resource()));
        }
        resources.extend(self.own.iter().map(|(binding, buffer)| (*binding, buffer.as_entire_binding())));
        // Bind exactly the bytes of the outputs, because the caller's buffers may be larger.
        let outputs = outputs.iter().map(|(buffer, bytes)| {
            let size = std::num::NonZeroU64::new(*bytes);
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size })
        });
        resources.extend((FIRST_OUTPUT..).zip(outputs));
        self.kernel.bind_at(gpu, resources)
    }

    /// The dispatches that process all bars as divided by `grid`.
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
        let mut commands = Vec::new();
        if grid.seeded {
            let parameters = obv_sums::Parameters {
                rows: walk.rows,
                series: walk.series,
                stride: walk.stride,
                chunks: grid.chunks,
                length: grid.length,
                ..obv_sums::Parameters::default()
            };
            let volumes = volumes.ok_or_else(no_volume)?;
            let kept = |what: &'static str, binding| {
                let own = self.own.iter().find(|(own, _)| *own == binding);
                own.map(|(_, buffer)| buffer).ok_or_else(|| Error::shape(what, "a buffer", "none"))
            };
            let read = [in_a_buffer("candles", candles)?, in_a_buffer("volumes", volumes)?];
            let written = [kept("counters of a panel", 4)?, kept("states of a panel", 5)?];
            commands.extend(obv_sums::commands(gpu, &parameters, read, written)?);
        }
        let parts = (0..grid.parts)
            .map(|part| {
                let begin = part * grid.length;
                let walk = Walk {
                    begin,
                    chunks: grid.chunks,
                    // A part ends where the next one begins, so that no bar is processed twice.
                    length: grid.length,
                    halo: if grid.parts > 1 { 0 } else { grid.halo },
                    resume: u32::from(part > 0 || grid.seeded),
                    width: candles.width(),
                    four: 4,
                    ..walk
                };
                let uniform = gpu.uniform("walk", &walk)?;
                let group = self.bind(gpu, &uniform, candles, volumes, outputs)?;
                Ok(Command::dispatch(&self.kernel, &group, [x, y, 1]))
            })
            .collect::<Result<Vec<_>>>()?;
        commands.extend(parts);
        Ok(commands)
    }
}

/// The buffer of a store, as series have on GPUs.
fn in_a_buffer<'a>(what: &str, store: &'a Store) -> Result<&'a wgpu::Buffer> {
    store.buffer().ok_or_else(|| Error::shape(what, "a buffer", "a texture"))
}

fn no_volume() -> Error {
    Error::Data(
        "an indicator needs volume, but the series has none; upload it with `Series::with_volume`".into(),
    )
}

/// The work division of a group over a panel. `still`: some series has long runs of equal closes.
///
/// # Errors
/// [`Error::Config`] if a window is too long for the loops of a software adapter.
pub(super) fn grid(gpu: &Gpu, group: &Group, rows: u32, fours: u32, still: bool) -> Result<Grid> {
    possible(gpu, group)?;
    if group.specs.iter().all(Spec::is_sum)
        && let Some(grid) = Grid::of_sums(gpu.class(), rows, fours)
    {
        return Ok(grid);
    }
    let table = group.rows != Rows::Shared;
    let words = compose::words_of_rings(&group.specs, table).max(1);
    let lanes = gpu.device().limits().max_storage_buffer_binding_size / (u64::from(words) * 4);
    let lanes = u32::try_from(lanes).unwrap_or(u32::MAX);
    let loops = compose::loops(&group.specs, table);
    Ok(Grid::new(gpu.class(), rows, fours, group.memory(still), loops, lanes))
}

/// Checks that the windows fit into the loop limit of the adapter.
///
/// # Errors
/// [`Error::Config`].
pub(super) fn possible(gpu: &Gpu, group: &Group) -> Result<()> {
    if grid::possible(gpu.class(), compose::loops(&group.specs, group.rows != Rows::Shared)) {
        return Ok(());
    }
    let name = group.specs.first().map_or("", |spec| spec.shader.name);
    let reason = "the windows are too long for llvmpipe, which stops the loops of an invocation after 65,535 iterations; \
                  use shorter periods or a GPU";
    Err(Error::config(name, reason))
}
