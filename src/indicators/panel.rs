//! A selection of indicators, its computation over a panel of series, and the resulting values.

use super::compose::PanelConfig;
use super::group::{Group, Kernels, Rows, Walk, grid};
use super::indicator::{Indicator, Spec, Unit};
use super::obv_sums;
use super::{Atr, Bbands, Live, Macd, Mom, Rsi, Series, Stochf, Values};
use crate::gpu::{Class, Command, Gpu, Recorder};
use crate::{Error, Result};

/// Padding after an output in bytes. Rows of all outputs are written at the same time; without padding, consecutive
/// allocations would map to the same cache sets.
const STAGGER: u64 = 5 * 64;

/// A selection of indicators that are computed together, reading each candle once.
///
/// ```no_run
/// use phalanx::gpu::{Gpu, GpuOptions, Recorder};
/// use phalanx::indicators::{Indicators, Macd, Rsi, Series, Sma};
///
/// # fn main() -> phalanx::Result<()> {
/// # let (high, low, close) = (ndarray::array![[2.0]], ndarray::array![[1.0]], ndarray::array![[1.5]]);
/// let gpu = Gpu::open(&GpuOptions::default())?;
/// let series = Series::upload(&gpu, high.view(), low.view(), close.view())?;
/// let panel = Indicators::new(&gpu)
///     .with(Rsi::default())
///     .with(Macd { fast: 8, ..Macd::default() })
///     .with(Sma { period: 10 })
///     .named("fast")
///     .grid((2..=64).map(|period| Rsi { period }))
///     .named("rsi_by_period")
///     .panel(&series)?;
/// Recorder::new(&gpu).run(&panel.commands())?;
/// let values = panel.read(&gpu)?;
/// println!("{:?}", values.get("rsi"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Indicators {
    gpu: Gpu,
    entries: Vec<Entry>,
    half: bool,
    failed: Option<(String, String)>,
    kernels: Kernels,
}

#[derive(Clone, Debug)]
struct Entry {
    specs: Vec<Spec>,
    rows: Rows,
    name: Option<String>,
}

impl Entry {
    /// Names of the outputs. A name given to the indicator replaces that of a single output and prefixes several.
    fn names(&self) -> Vec<String> {
        let outputs = self.specs.first().map_or(&[][..], |spec| spec.outputs);
        let name = |own: &str| match &self.name {
            None => own.into(),
            Some(name) if outputs.len() == 1 => name.clone(),
            Some(name) => format!("{name}_{own}"),
        };
        outputs.iter().map(|output| name(output.name)).collect()
    }
}

impl Indicators {
    /// An empty selection.
    pub fn new(gpu: &Gpu) -> Self {
        Self { gpu: gpu.clone(), entries: Vec::new(), half: false, failed: None, kernels: Kernels::default() }
    }

    /// RSI, MACD, Bollinger bands, ATR, momentum and stochastic with default parameters: the indicators of the built-in
    /// trading features.
    pub fn classic(gpu: &Gpu) -> Self {
        Self::new(gpu)
            .with(Rsi::default())
            .with(Macd::default())
            .with(Bbands::default())
            .with(Atr::default())
            .with(Mom::default())
            .with(Stochf::default())
    }

    /// Adds an indicator. Its outputs have their default names, for instance `macd_signal`.
    pub fn with(self, indicator: impl Indicator) -> Self {
        self.push([indicator], Rows::Shared)
    }

    /// Adds an indicator with several parameter sets, each of which is computed for every series.
    pub fn grid<I: Indicator>(self, combinations: impl IntoIterator<Item = I>) -> Self {
        self.push(combinations, Rows::Combinations)
    }

    /// Adds an indicator with one parameter set per series.
    pub fn each_series<I: Indicator>(self, parameters: impl IntoIterator<Item = I>) -> Self {
        self.push(parameters, Rows::EachSeries)
    }

    /// Renames the outputs of the indicator added last: to `name`, or to `name_output` if it has several outputs.
    pub fn named(mut self, name: &str) -> Self {
        if let Some(entry) = self.entries.last_mut() {
            entry.name = Some(name.into());
        }
        self
    }

    /// Stores the outputs of panels in f16, which halves memory and keeps three significant digits. Values beyond ±65504 are
    /// not representable. [`Live`] always uses f32.
    pub fn half(mut self) -> Self {
        self.half = true;
        self
    }

    fn push<I: Indicator>(mut self, indicators: impl IntoIterator<Item = I>, rows: Rows) -> Self {
        match indicators.into_iter().map(|indicator| indicator.spec()).collect::<Result<Vec<_>>>() {
            Ok(specs) if specs.is_empty() => {
                let reason = "an indicator was added without parameter sets; pass at least one";
                self.failed = self.failed.or(Some(("indicators".into(), reason.into())));
            }
            Ok(specs) => self.entries.push(Entry { specs, rows, name: None }),
            // Reported when the panel is created, so that calls can be chained.
            Err(Error::Config { key, reason }) => self.failed = self.failed.or(Some((key, reason))),
            Err(error) => self.failed = self.failed.or(Some(("indicators".into(), error.to_string()))),
        }
        self
    }

    fn check(&self) -> Result<Vec<String>> {
        if let Some((key, reason)) = &self.failed {
            return Err(Error::config(key, reason));
        }
        let names: Vec<String> = self.entries.iter().flat_map(Entry::names).collect();
        if names.is_empty() {
            return Err(Error::shape("indicators", "at least one", 0));
        }
        if let Some((_, name)) = names.iter().enumerate().find(|(n, name)| names[..*n].contains(name)) {
            return Err(Error::config(name, "two outputs have this name; rename one of them with `named`"));
        }
        Ok(names)
    }

    fn groups(&self, live: bool, still: bool) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        for (member, entry) in self.entries.iter().enumerate() {
            if entry.rows != Rows::Shared {
                groups.push(Group::of_table(&entry.specs, entry.rows, member)?);
                continue;
            }
            for spec in &entry.specs {
                match groups.iter_mut().find(|group| group.takes(&self.gpu, spec, live, still)) {
                    Some(group) => {
                        group.specs.push(spec.clone());
                        group.members.push(member);
                    }
                    None => groups.push(Group {
                        specs: vec![spec.clone()],
                        rows: Rows::Shared,
                        table: Vec::new(),
                        entry: 0,
                        members: vec![member],
                    }),
                }
            }
        }
        Ok(groups)
    }

    /// 0-based index of the first bar at which every output has a value.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::Shape`] as [`Indicators::panel`].
    pub fn warm_up(&self) -> Result<u32> {
        self.check()?;
        Ok(self.entries.iter().flat_map(|entry| &entry.specs).map(|spec| spec.complete).max().unwrap_or(0))
    }

    /// Compiles the kernels, allocates outputs for `series` and prepares the commands that compute them.
    ///
    /// # Errors
    /// [`Error::Config`] for a parameter out of range or two outputs with the same name; [`Error::Data`] if an indicator
    /// needs volume and there is none; [`Error::Shape`] if the selection is empty or an output exceeds the device's largest
    /// binding; [`Error::OutOfMemory`], [`Error::Shader`], [`Error::Gpu`], [`Error::DeviceLost`].
    pub fn panel(&self, series: &Series) -> Result<Panel> {
        self.panel_into(series, &[])
    }

    /// Computes the outputs of `series` and reads them back: [`Indicators::panel`], running its commands, and
    /// [`Panel::read`] in one call.
    ///
    /// # Errors
    /// As [`Indicators::panel`].
    pub fn compute(&self, series: &Series) -> Result<Values> {
        let panel = self.panel(series)?;
        Recorder::new(&self.gpu).run(&panel.commands())?;
        panel.read(&self.gpu)
    }

    /// As [`Indicators::panel`], but writes some outputs to buffers of the caller.
    ///
    /// Such a buffer needs usage `STORAGE`, and `COPY_SRC` for [`Panel::read`]. It holds `[combination][series][stride]`
    /// values of 4 bytes (2 with [`Indicators::half`]) with the stride of [`Series::stride`]; a larger buffer is allowed. With a buffer
    /// for one of Donchian's outputs, those in the same kernel are relative to the close alone: far from it, as after a bad tick, they
    /// are precise to 6e-8 of the distance.
    ///
    /// # Errors
    /// As [`Indicators::panel`]; [`Error::Shape`] if a buffer is too small, is given twice or names no output.
    pub fn panel_into(&self, series: &Series, given: &[(&str, &wgpu::Buffer)]) -> Result<Panel> {
        let gpu = &self.gpu;
        let names = self.check()?;
        if let Some((name, _)) = given.iter().find(|(name, _)| !names.iter().any(|own| own == name)) {
            return Err(Error::shape("buffer for an output", names.join(", "), name));
        }
        for (n, (name, buffer)) in given.iter().enumerate() {
            if given[..n].iter().any(|(other, same)| other == name || same == buffer) {
                return Err(Error::shape(
                    format!("buffer for `{name}`"),
                    "one buffer per output",
                    "a name or buffer that is given twice",
                ));
            }
        }
        let textures = gpu.class() == Class::Software;
        let fours = series.stride() / 4;
        let mut panel = Panel {
            outputs: names
                .iter()
                .map(|name| Column {
                    name: name.clone(),
                    unit: Unit::Plain,
                    combinations: 1,
                    buffer: None,
                    prices: false,
                })
                .collect(),
            commands: Vec::new(),
            series: series.clone(),
            half: self.half,
            bytes: 0,
        };
        for group in self.groups(false, series.is_still())? {
            let rows = group.rows(series.series())?;
            let grid = grid(gpu, &group, rows, fours, series.is_still())?;
            let members = || group.specs.iter().zip(&group.members);
            let named = |member: &usize| self.entries.get(*member).map(Entry::names).unwrap_or_default();
            // Buffers of the caller and f16 outputs have no room for them, or no use.
            let theirs = |name: &String| given.iter().any(|(given, _)| given == name);
            let prices = !self.half
                && !members().any(|(spec, member)| {
                    let outputs = spec.outputs.iter().zip(named(member));
                    outputs.into_iter().any(|(output, name)| spec.is_price_extreme(output) && theirs(&name))
                });
            let config = PanelConfig {
                class: gpu.class(),
                textures,
                live: false,
                keep: grid.parts > 1 || grid.seeded,
                parameter_table: false,
                f16_outputs: self.half,
                wide_stores: gpu.device().features().contains(wgpu::Features::SHADER_INT64) && textures,
                prices,
            };
            let lanes = rows.saturating_mul(grid.chunks);
            let compiled = group.compile(gpu, config, lanes, &self.kernels)?;
            panel.bytes += compiled.bytes + if grid.seeded { obv_sums::bytes(lanes) } else { 0 };
            let mut buffers = Vec::new();
            for (spec, member) in members() {
                for (output, name) in spec.outputs.iter().zip(named(member)) {
                    let given = given.iter().find(|(given, _)| *given == name).map(|(_, buffer)| *buffer);
                    let prices = prices && spec.is_price_extreme(output);
                    let needed = u64::from(rows) * u64::from(series.stride()) * if self.half { 2 } else { 4 };
                    let needed = if prices { 2 * needed } else { needed };
                    let buffer = self.output(&name, needed, given)?;
                    panel.bytes += if given.is_none() { buffer.size() } else { 0 };
                    if let Some(column) = panel.outputs.iter_mut().find(|column| column.name == name) {
                        column.unit = output.unit;
                        column.combinations = (rows / series.series()) as usize;
                        column.buffer = Some(buffer.clone());
                        column.prices = prices;
                    }
                    buffers.push((buffer, needed));
                }
            }
            let walk = Walk {
                rows,
                series: series.series(),
                stride: fours,
                bars: series.bars(),
                by_series: u32::from(group.rows == Rows::EachSeries),
                entry: group.entry,
                ..Walk::default()
            };
            let outputs: Vec<_> = buffers.iter().map(|(buffer, bytes)| (buffer, *bytes)).collect();
            let volumes = series.volumes.as_ref();
            panel.commands.extend(compiled.record(gpu, &grid, walk, &series.candles, volumes, &outputs)?);
        }
        Ok(panel)
    }

    fn output(&self, name: &str, needed: u64, given: Option<&wgpu::Buffer>) -> Result<wgpu::Buffer> {
        let limits = self.gpu.device().limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size.saturating_sub(STAGGER));
        if needed > most {
            let expected = format!("at most {most} bytes, this device's largest binding");
            return Err(Error::shape(format!("output `{name}`"), expected, needed));
        }
        match given {
            Some(buffer) if buffer.size() < needed => Err(Error::shape(
                format!("buffer for `{name}`"),
                format!("at least {needed} bytes"),
                buffer.size(),
            )),
            Some(buffer) => Ok(buffer.clone()),
            None => {
                let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
                self.gpu.buffer(name, needed + STAGGER, usage)
            }
        }
    }

    /// Prepares incremental computation for `series` series: see [`Live`].
    ///
    /// # Errors
    /// As [`Indicators::panel`].
    pub fn live(&self, series: u32) -> Result<Live> {
        let names = self.check()?;
        let mut columns = Vec::new();
        for group in self.groups(true, false)? {
            for (spec, member) in group.specs.iter().zip(&group.members) {
                let names = self.entries.get(*member).map(Entry::names).unwrap_or_default();
                columns.extend(names.into_iter().zip(spec.outputs).map(|(name, output)| (name, output.unit)));
            }
        }
        Live::new(&self.gpu, self.groups(true, false)?, columns, names, series, &self.kernels)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub name: String,
    pub unit: Unit,
    pub combinations: usize,
    pub buffer: Option<wgpu::Buffer>,
    /// Whether the buffer holds the values as prices too, behind those relative to the close.
    pub prices: bool,
}

/// The outputs of a selection for one [`Series`], and the commands that compute them.
#[derive(Clone, Debug)]
pub struct Panel {
    pub(super) outputs: Vec<Column>,
    commands: Vec<Command>,
    pub(super) series: Series,
    pub(super) half: bool,
    bytes: u64,
}

impl Panel {
    /// The commands that compute the outputs. Running them again gives the same bytes.
    ///
    /// All indicators share one dispatch if the device can bind enough buffers, but [`super::Obv`] has one of its own on GPUs, or three for
    /// a few long series. [`Indicators::classic`] needs one dispatch, or two under WebGPU's minimum limits.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        self.commands.clone()
    }

    /// Number of bytes allocated for outputs and internal buffers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Names of the outputs, in the order of addition.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|column| column.name.as_str())
    }

    /// The device buffer of an output, for binding to other kernels; `None` for an unknown name.
    ///
    /// It holds `[combination][series][stride]` in f32 (f16 with [`Indicators::half`]) with the stride of
    /// [`Series::stride`], NaN before the first valid bar, and may be longer. An output of [`Unit::Price`] is stored minus
    /// the close of its bar.
    #[must_use]
    pub fn buffer(&self, name: &str) -> Option<&wgpu::Buffer> {
        self.outputs.iter().find(|column| column.name == name)?.buffer.as_ref()
    }

    /// Reads the outputs back. Call it after submitting the commands; it waits for them.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`], [`Error::Gpu`].
    pub fn read(&self, gpu: &Gpu) -> Result<Values> {
        let mut columns = Vec::with_capacity(self.outputs.len());
        for column in &self.outputs {
            let Some(buffer) = &column.buffer else { continue };
            let values: Vec<f64> = if self.half {
                gpu.read::<half::f16>(buffer)?.into_iter().map(f64::from).collect()
            } else {
                gpu.read::<f32>(buffer)?.into_iter().map(f64::from).collect()
            };
            let values = Values::place(column, &self.series, values)?;
            columns.push((column.name.clone(), column.unit, values));
        }
        Ok(Values { columns })
    }
}
