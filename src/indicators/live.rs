//! Indicators computed bar by bar, with their state on the device.

use ndarray::{Array2, Array3, ArrayView2, Axis};

use super::Values;
use super::compose::PanelConfig;
use super::grid;
use super::group::{Group, Kernels, Rows, Walk, possible};
use super::indicator::Unit;
use super::series::{Store, encode, finite};
use super::values::more_precise;
use crate::gpu::{Command, Gpu, Recorder};
use crate::{Error, Result};

/// Most bars that are uploaded at once.
const BATCH: usize = 64;

/// Incremental indicators of many series: values are updated with each new bar. Created by [`super::Indicators::live`].
///
/// The values equal those of a [`super::Panel`] over the same bars, because the same functions run over the same state.
/// They are bit-identical if the panel processes a series in one piece. If it divides the series into chunks, they agree
/// within 1e-6 of the output's magnitude, because a chunk warms up only to f32 precision.
// Not `Clone`, because a clone would share the state on the device.
#[derive(Debug)]
pub struct Live {
    gpu: Gpu,
    parts: Vec<Part>,
    /// Names and units in the order of the kernels' outputs.
    columns: Vec<(String, Unit)>,
    /// Names in the order in which the indicators were added.
    names: Vec<String>,
    candles: wgpu::Buffer,
    volumes: Option<wgpu::Buffer>,
    /// Readback buffers for the outputs of one bar and of a full batch.
    gathered: [wgpu::Buffer; 2],
    series: usize,
    /// Bars uploaded at once.
    batch: usize,
    started: bool,
}

/// Bars that are uploaded at once, `[series][bars]`.
struct Batch {
    high: Array2<f64>,
    low: Array2<f64>,
    close: Array2<f64>,
    volume: Option<Array2<f64>>,
    present: Option<Array2<bool>>,
}

#[derive(Clone, Debug)]
struct Part {
    walk: Walk,
    uniform: wgpu::Buffer,
    command: Command,
    /// Buffers of the outputs, and whether each holds its values as prices too.
    outputs: Vec<(wgpu::Buffer, bool)>,
    rows: usize,
}

impl Live {
    pub(super) fn new(
        gpu: &Gpu,
        groups: Vec<Group>,
        columns: Vec<(String, Unit)>,
        names: Vec<String>,
        series: u32,
        kernels: &Kernels,
    ) -> Result<Self> {
        if series == 0 {
            return Err(Error::shape("live series", "at least one", 0));
        }
        let limits = gpu.device().limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / 16;
        let rows = groups.iter().map(|group| group.rows(series)).collect::<Result<Vec<_>>>()?;
        let rows = u64::from(rows.into_iter().fold(series, u32::max));
        if rows > most {
            let expected =
                format!("at most {most} rows (series times combinations), this device's largest binding");
            return Err(Error::shape("live series", expected, rows));
        }
        let full = BATCH.min((most / rows) as usize);
        let bars = u64::from(series) * full as u64;
        let candles = gpu.buffer("live candles", bars * 16, crate::gpu::STATE)?;
        let mut volumes = None;
        let mut parts = Vec::new();
        let mut total = 0;
        let mut batch = full;
        for group in groups {
            let rows = group.rows(series)?;
            let config = PanelConfig {
                class: gpu.class(),
                textures: false,
                live: true,
                keep: true,
                parameter_table: false,
                f16_outputs: false,
                wide_stores: false,
                prices: true,
            };
            possible(gpu, &group)?;
            let compiled = group.compile(gpu, config, rows, kernels)?;
            batch = batch.min(4 * grid::most(gpu.class(), compiled.source.loops) as usize);
            if compiled.source.volume && volumes.is_none() {
                volumes = Some(gpu.buffer("live volumes", bars * 4, crate::gpu::STATE)?);
            }
            let bytes = u64::from(rows) * full as u64 * 4;
            let channels =
                group.specs.iter().flat_map(|spec| spec.outputs.iter().map(|o| spec.is_price_extreme(o)));
            let outputs = channels
                .map(|prices| {
                    let bytes = if prices { 2 * bytes } else { bytes };
                    total += bytes;
                    Ok((gpu.buffer("live output", bytes, crate::gpu::STATE)?, prices))
                })
                .collect::<Result<Vec<_>>>()?;
            let walk = Walk {
                rows,
                series,
                by_series: u32::from(group.rows == Rows::EachSeries),
                entry: group.entry,
                chunks: 1,
                ..Walk::default()
            };
            let uniform = gpu.uniform("walk", &walk)?;
            let bound: Vec<_> = outputs.iter().map(|(output, _)| (output, output.size())).collect();
            let stores = (Store::Buffer(candles.clone()), volumes.clone().map(Store::Buffer));
            let bind = compiled.bind(gpu, &uniform, &stores.0, stores.1.as_ref(), &bound)?;
            let [x, y] = compiled.kernel.variant.rows(rows);
            let command = Command::dispatch(&compiled.kernel, &bind, [x, y, 1]);
            parts.push(Part { walk, uniform, command, outputs, rows: rows as usize });
        }
        let gathered = |bytes| gpu.buffer("live outputs", bytes, crate::gpu::STATE);
        let gathered = [gathered(total / full as u64)?, gathered(total)?];
        let series = series as usize;
        let gpu = gpu.clone();
        Ok(Self { gpu, parts, columns, names, candles, volumes, gathered, series, batch, started: false })
    }

    /// Resets the state to that before the first bar.
    pub fn reset(&mut self) {
        self.started = false;
    }

    /// Adds one or more bars and returns their values.
    ///
    /// Inputs are `[series][bars]`, oldest bar first; a NaN or infinite price counts as missing. Outputs have the shapes
    /// of [`super::Panel::read`] and are NaN until an indicator has warmed up, so push past bars first.
    ///
    /// # Errors
    /// [`Error::Shape`] if a shape is wrong; [`Error::Data`] if an indicator needs volume and there is none;
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`], [`Error::Gpu`]. After an error of the device the state is undefined:
    /// call [`Live::reset`].
    pub fn push(
        &mut self,
        high: ArrayView2<'_, f64>,
        low: ArrayView2<'_, f64>,
        close: ArrayView2<'_, f64>,
        volume: Option<ArrayView2<'_, f64>>,
    ) -> Result<Values> {
        self.push_present(high, low, close, volume, None)
    }

    /// [`Live::push`] for series that do not have all of the bars: where `present`, `[series][bars]`, is false, a series stays as it was,
    /// as if it were processed without this bar, and the values are NaN.
    ///
    /// # Errors
    /// As [`Live::push`].
    pub fn push_present(
        &mut self,
        high: ArrayView2<'_, f64>,
        low: ArrayView2<'_, f64>,
        close: ArrayView2<'_, f64>,
        volume: Option<ArrayView2<'_, f64>>,
        present: Option<ArrayView2<'_, bool>>,
    ) -> Result<Values> {
        let shape = (self.series, close.ncols());
        let volumes = [("volumes", volume.as_ref())];
        let prices =
            [("high prices", Some(&high)), ("low prices", Some(&low)), ("close prices", Some(&close))];
        for (what, values) in prices.into_iter().chain(volumes) {
            if let Some(values) = values.filter(|values| values.dim() != shape) {
                let expected = format!("{shape:?} [series, bars]");
                return Err(Error::shape(what, expected, format!("{:?}", values.dim())));
            }
        }
        if let Some(present) = present.filter(|present| present.dim() != shape) {
            let expected = format!("{shape:?} [series, bars]");
            return Err(Error::shape("present bars", expected, format!("{:?}", present.dim())));
        }
        if self.volumes.is_some() && volume.is_none() {
            return Err(Error::Data(
                "an indicator needs volume, but `volume` is `None`; pass it to `push`".into(),
            ));
        }
        let mut columns: Vec<(String, Unit, Array3<f64>)> = Vec::new();
        for part in &self.parts {
            for _ in &part.outputs {
                let (name, unit) = &self.columns[columns.len()];
                let empty = Array3::zeros((part.rows / self.series, self.series, shape.1));
                columns.push((name.clone(), *unit, empty));
            }
        }
        for first in (0..shape.1).step_by(self.batch) {
            let bars = self.batch.min(shape.1 - first);
            let range = ndarray::Slice::from(first..first + bars);
            let cut = |values: &ArrayView2<'_, f64>| values.slice_axis(Axis(1), range).to_owned();
            let batch = Batch {
                high: cut(&high),
                low: cut(&low),
                close: cut(&close),
                volume: volume.as_ref().map(cut),
                present: present.map(|present| present.slice_axis(Axis(1), range).to_owned()),
            };
            self.step(&batch, first, &mut columns)?;
        }
        columns.sort_by_key(|(name, ..)| self.names.iter().position(|own| own == name));
        Ok(Values { columns })
    }

    fn step(
        &mut self,
        batch: &Batch,
        first: usize,
        columns: &mut [(String, Unit, Array3<f64>)],
    ) -> Result<()> {
        let Batch { high, low, close, volume, present } = batch;
        let bars = close.ncols();
        let is_present = |place: (usize, usize)| present.as_ref().is_none_or(|present| present[place]);
        let prices = high.indexed_iter().zip(low).zip(close);
        let candle = |(((place, high), low), close): (((_, &f64), &f64), &f64)| match is_present(place) {
            true => encode([*high, *low, *close]),
            false => [f32::INFINITY, 0.0, 0.0, 0.0],
        };
        let candles: Vec<[f32; 4]> = prices.map(candle).collect();
        self.gpu.write(&self.candles, 0, bytemuck::cast_slice(&candles))?;
        if let (Some(buffer), Some(volume)) = (&self.volumes, volume.as_ref()) {
            let volume: Vec<f32> = volume.iter().map(|value| finite(*value as f32)).collect();
            self.gpu.write(buffer, 0, bytemuck::cast_slice(&volume))?;
        }
        let mut recorder = Recorder::new(&self.gpu);
        let gathered = &self.gathered[usize::from(bars > 1)];
        let mut offset = 0;
        for part in &mut self.parts {
            let bytes = (part.rows * bars * 4) as u64;
            part.walk.bars = bars as u32;
            part.walk.resume = u32::from(self.started);
            self.gpu.write(&part.uniform, 0, bytemuck::bytes_of(&part.walk))?;
            recorder.encode(std::slice::from_ref(&part.command))?;
            for (output, prices) in &part.outputs {
                let bytes = if *prices { 2 * bytes } else { bytes };
                recorder.encode(&[Command::Copy {
                    source: output.clone(),
                    source_offset: 0,
                    target: gathered.clone(),
                    target_offset: offset,
                    bytes,
                }])?;
                offset += bytes;
            }
        }
        recorder.submit()?;
        self.started = true;
        let values: Vec<f32> = self.gpu.read(gathered)?;
        let mut rest = values.as_slice();
        let outputs = self.parts.iter().flat_map(|part| &part.outputs);
        for ((_, unit, column), (_, prices)) in columns.iter_mut().zip(outputs) {
            let (own, others) = rest.split_at(column.len() / column.dim().2 * bars);
            let (behind, others) = others.split_at(if *prices { own.len() } else { 0 });
            rest = others;
            let own = own.chunks_exact(bars).enumerate();
            for ((n, own), mut row) in own.zip(column.lanes_mut(Axis(2))) {
                for t in 0..bars {
                    if !is_present((n % self.series, t)) {
                        row[first + t] = f64::NAN;
                        continue;
                    }
                    let value = f64::from(own[t]);
                    row[first + t] = match unit {
                        Unit::Plain => value,
                        Unit::Price => {
                            let price = behind.get(n * bars + t).map_or(f64::NAN, |price| f64::from(*price));
                            more_precise(value, price, close[[n % self.series, t]])
                        }
                    };
                }
            }
        }
        Ok(())
    }
}
