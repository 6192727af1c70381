//! Features and prices of a market in one device buffer.

use std::ops::Range;
use std::sync::Arc;

use ndarray::Array3;
use serde::{Deserialize, Serialize};

use super::features::{self, FEATURES, LOOK_BACK, sections};
use super::{Candles, scale};
use crate::gpu::{Class, Command, Gpu, Recorder};
use crate::indicators::{Indicators, Series};
use crate::{Error, Result};

/// llvmpipe stops the loops of an invocation after 65,535 iterations in total; the scaling kernel loops over all bars three
/// times, eight bars per iteration.
const MOST_BARS_IN_SOFTWARE: usize = 160_000;

/// Largest absolute value of a scaled feature, in standard deviations.
const LIMIT: f32 = 5.0;

/// Indicator outputs that the features use, in the order of the shader's sections.
const INDICATORS: [(usize, &str); 10] = [
    (sections::RSI, "rsi"),
    (sections::MACD, "macd"),
    (sections::MACD_HIST, "macd_hist"),
    (sections::BB_UPPER, "bb_upper"),
    (sections::BB_MIDDLE, "bb_middle"),
    (sections::BB_LOWER, "bb_lower"),
    (sections::ATR, "atr"),
    (sections::MOM, "mom"),
    (sections::STOCH_K, "stoch_k"),
    (sections::STOCH_D, "stoch_d"),
];

/// Prices per bar and instrument: gap, move, open, close.
const PRICES: usize = 4;

/// Source of the scaling statistics.
#[derive(Clone, Debug)]
pub enum Scaling {
    /// Computed from these bars. Pass training bars only: other bars would leak future data into the features.
    Fit(Range<usize>),
    /// Fitted earlier, usually read from a model file.
    Given(ScalingStatistics),
}

/// Mean and standard deviation of every feature of every instrument over the training bars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalingStatistics {
    /// Names of the features, in order.
    pub features: Vec<String>,
    /// Symbols of the instruments, in order.
    pub symbols: Vec<String>,
    /// `[instrument][feature][mean, standard deviation]`
    pub moments: Vec<[f32; 2]>,
}

impl ScalingStatistics {
    /// Checks that there is a finite mean and a finite deviation of at least 0 per instrument and feature.
    pub(crate) fn validate(&self) -> Result<()> {
        let expected = self.symbols.len() * self.features.len();
        if self.moments.len() != expected {
            return Err(Error::shape("`scaling.moments`", expected, self.moments.len()));
        }
        let valid =
            |[mean, deviation]: &[f32; 2]| mean.is_finite() && deviation.is_finite() && *deviation >= 0.0;
        match self.moments.iter().position(|moments| !valid(moments)) {
            Some(index) => Err(Error::Data(format!(
                "`scaling.moments` {index} is {:?}, expected a finite mean and a deviation of at least 0",
                self.moments[index]
            ))),
            None => Ok(()),
        }
    }
}

/// Features of the caller, appended to the built-in ones.
#[derive(Clone, Debug, Default)]
pub struct ExtraFeatures {
    /// Names.
    pub names: Vec<String>,
    /// Finite values, `[feature][instrument][bar]`. The value at bar t must be known at the close of bar t.
    pub values: Array3<f64>,
}

/// Features and prices of a market on the device. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MarketData {
    buffer: wgpu::Buffer,
    bars: usize,
    instruments: usize,
    statistics: ScalingStatistics,
    first_bar: usize,
    /// Checksum of the candles up to and including each bar.
    checksums: Arc<[u32]>,
}

impl MarketData {
    /// Computes and scales the features of `candles` on the device.
    ///
    /// # Errors
    /// [`Error::Data`] if there are too few candles for the indicators, too few training bars with features, statistics of
    /// other instruments or features, or extra features that are not finite; [`Error::Shape`] if the extra features do not
    /// match the candles; [`Error::Budget`] if the data exceed the device's largest binding.
    pub fn new(gpu: &Gpu, candles: &Candles, extra: &ExtraFeatures, scaling: &Scaling) -> Result<Self> {
        let (instruments, bars) = (candles.instruments(), candles.bars());
        check_extra(candles, extra)?;
        let indicators = Indicators::classic(gpu);
        let first_bar = (indicators.warm_up()? as usize).max(LOOK_BACK);
        if bars < first_bar + 2 {
            return Err(Error::Data(format!(
                "the candles have {bars} bars, but at least {} are needed: {first_bar} for the indicators before the first \
                 decision and 2 to trade; load more bars",
                first_bar + 2
            )));
        }
        if gpu.class() == Class::Software && bars > MOST_BARS_IN_SOFTWARE {
            return Err(Error::Data(format!(
                "the candles have {bars} bars, but a software adapter can scale at most {MOST_BARS_IN_SOFTWARE}; use \
                 fewer bars or a GPU"
            )));
        }
        let names: Vec<String> =
            FEATURES.iter().map(|name| (*name).to_string()).chain(extra.names.iter().cloned()).collect();
        let columns = instruments * names.len();
        let words = bars * columns + bars * instruments * PRICES;
        let sections = (sections::SECTIONS + extra.names.len()) * instruments * Series::row(bars);
        fits(gpu, words.max(sections) as u64 * 4)?;

        let series = Series::upload(gpu, candles.high.view(), candles.low.view(), candles.close.view())?;
        let buffer = gpu.buffer("market data", words as u64 * 4, crate::gpu::STATE)?;
        let mut recorder = Recorder::new(gpu);
        let sources = gather(gpu, &mut recorder, candles, extra, &series, &indicators)?;

        let shape = features::Parameters {
            bars: bars as u32,
            instruments: instruments as u32,
            extra: extra.names.len() as u32,
            stride: series.stride(),
        };
        let kernel = features::kernel(gpu)?;
        let group = features::bind(gpu, &kernel, &shape, &sources, &buffer)?;
        recorder.run(&[Command::dispatch(&kernel, &group, features::groups(&kernel.variant, &shape))])?;

        let given = match scaling {
            Scaling::Fit(_) => None,
            Scaling::Given(given) => Some(check_given(given, &candles.symbols, &names)?),
        };
        let train = match scaling {
            Scaling::Fit(train) => training_bars(train, first_bar, bars)?,
            Scaling::Given(_) => 0..0,
        };
        let moments = given.cloned().unwrap_or_else(|| vec![[0.0; 2]; columns]);
        let statistics = gpu.upload("scaling", &moments)?;
        let scale_parameters = scale::Parameters {
            bars: bars as u32,
            columns: columns as u32,
            first: train.start as u32,
            end: train.end as u32,
            fit: u32::from(given.is_none()),
            limit: LIMIT,
            zero: 0,
            pad: 0,
        };
        let kernel = scale::kernel(gpu)?;
        let group = scale::bind(gpu, &kernel, &scale_parameters, &statistics, &buffer)?;
        let grid = scale::groups(&kernel.variant, columns as u32);
        recorder.run(&[Command::dispatch(&kernel, &group, grid)])?;

        let mut prices = Vec::with_capacity(bars * instruments * PRICES);
        let mut crc = crc32fast::Hasher::new();
        crc.update(candles.symbols.join(" ").as_bytes());
        let mut checksums = Vec::with_capacity(bars);
        for bar in 0..bars {
            crc.update(candles.timestamps[bar].to_string().as_bytes());
            for i in 0..instruments {
                let (open, close) = (candles.open[[i, bar]], candles.close[[i, bar]]);
                let (high, low) = (candles.high[[i, bar]], candles.low[[i, bar]]);
                // Without extra features every axis of the array has length 0, so it must not be indexed.
                let own = (0..extra.names.len()).map(|feature| extra.values[[feature, i, bar]]);
                for value in [open, high, low, close].into_iter().chain(own) {
                    crc.update(&value.to_le_bytes());
                }
                prices.extend([gap(candles, i, bar), close - open, open, close].map(|price| price as f32));
            }
            checksums.push(crc.clone().finalize());
        }
        gpu.write(&buffer, (bars * columns) as u64 * 4, bytemuck::cast_slice(&prices))?;
        let checksums = checksums.into();
        let mut moments: Vec<[f32; 2]> = gpu.read(&statistics)?;
        moments.truncate(columns);
        let statistics = ScalingStatistics { features: names, symbols: candles.symbols.clone(), moments };
        Ok(Self { buffer, bars, instruments, statistics, first_bar, checksums })
    }

    /// The device buffer, f32: features `[bar][instrument][feature]`, then prices `[bar][instrument][gap, move, open,
    /// close]`. Gap is the open minus the previous close, move the close minus the open; both are computed in f64.
    #[must_use]
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Number of bars.
    #[must_use]
    pub fn bars(&self) -> usize {
        self.bars
    }

    /// Number of instruments.
    #[must_use]
    pub fn instruments(&self) -> usize {
        self.instruments
    }

    /// Number of features per bar and instrument, extra features included.
    #[must_use]
    pub fn features(&self) -> usize {
        self.statistics.features.len()
    }

    /// First bar at which every feature has a value.
    #[must_use]
    pub fn first_bar(&self) -> usize {
        self.first_bar
    }

    /// The statistics with which the features were scaled.
    #[must_use]
    pub fn scaling(&self) -> &ScalingStatistics {
        &self.statistics
    }

    /// Checksum of the candles and extra features before bar `end`.
    #[must_use]
    pub(crate) fn checksum(&self, end: usize) -> u32 {
        end.checked_sub(1).and_then(|last| self.checksums.get(last)).copied().unwrap_or(0)
    }

    /// Index of the first price in the buffer, in f32 values.
    #[must_use]
    pub(crate) fn prices_at(&self) -> u32 {
        (self.bars * self.instruments * self.features()) as u32
    }
}

/// Open minus the previous close; 0 at the first bar.
fn gap(candles: &Candles, instrument: usize, bar: usize) -> f64 {
    match bar.checked_sub(1) {
        Some(before) => candles.open[[instrument, bar]] - candles.close[[instrument, before]],
        None => 0.0,
    }
}

fn check_extra(candles: &Candles, extra: &ExtraFeatures) -> Result<()> {
    if extra.names.is_empty() && extra.values.is_empty() {
        return Ok(());
    }
    let expected = (extra.names.len(), candles.instruments(), candles.bars());
    if extra.values.dim() != expected {
        let got = format!("{:?}", extra.values.dim());
        return Err(Error::shape("extra features [feature][instrument][bar]", format!("{expected:?}"), got));
    }
    match extra.values.indexed_iter().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some(((feature, instrument, bar), value)) => Err(Error::Data(format!(
            "extra feature `{}` of {} at {} is {value}; it has to be a finite number",
            extra.names[feature], candles.symbols[instrument], candles.timestamps[bar]
        ))),
    }
}

fn fits(gpu: &Gpu, bytes: u64) -> Result<()> {
    let limits = gpu.device().limits();
    let budget = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    if bytes <= budget {
        return Ok(());
    }
    Err(Error::Budget {
        needed: bytes.div_ceil(1 << 20),
        budget: budget >> 20,
        advice: "the market's features must fit into one buffer of the device: use fewer bars or instruments"
            .into(),
    })
}

fn training_bars(train: &Range<usize>, first_bar: usize, bars: usize) -> Result<Range<usize>> {
    let usable = train.start.max(first_bar)..train.end.min(bars);
    if usable.len() >= 2 {
        return Ok(usable);
    }
    Err(Error::Data(format!(
        "the training bars {}..{} include fewer than two bars with features, which start at bar {first_bar}; train on \
         more bars",
        train.start, train.end
    )))
}

fn check_given<'a>(
    given: &'a ScalingStatistics,
    symbols: &[String],
    features: &[String],
) -> Result<&'a Vec<[f32; 2]>> {
    if given.symbols != symbols {
        let (of, got) = (given.symbols.join(", "), symbols.join(", "));
        return Err(Error::Data(format!(
            "the model was trained on the instruments {of}, but the candles hold {got}; load the same instruments in \
             the same order"
        )));
    }
    if given.features != features {
        let (of, got) = (given.features.join(", "), features.join(", "));
        return Err(Error::Data(format!(
            "the model was trained on the features {of}, but the data have {got}; supply the same features in the same \
             order"
        )));
    }
    given.validate()?;
    Ok(&given.moments)
}

/// Uploads and computes all inputs of the feature kernel, section by section, in one buffer.
fn gather(
    gpu: &Gpu,
    recorder: &mut Recorder,
    candles: &Candles,
    extra: &ExtraFeatures,
    series: &Series,
    indicators: &Indicators,
) -> Result<wgpu::Buffer> {
    let stride = series.stride() as usize;
    let bytes = (candles.instruments() * stride) as u64 * 4;
    let sources = gpu.buffer(
        "feature sources",
        (sections::SECTIONS + extra.names.len()) as u64 * bytes,
        crate::gpu::STATE,
    )?;
    let close = &candles.close;
    let moved = |i: usize, bar: usize, by: usize| match bar.checked_sub(by) {
        Some(before) => close[[i, bar]] - close[[i, before]],
        None => 0.0,
    };
    let own = |section: usize, i: usize, bar: usize| match section {
        sections::GAP => gap(candles, i, bar),
        sections::PRICE => close[[i, bar]],
        sections::VOLUME => candles.volume.as_ref().map_or(0.0, |volume| volume[[i, bar]]),
        sections::MOVE_1 => moved(i, bar, 1),
        sections::MOVE_5 => moved(i, bar, 5),
        sections::MOVE_20 => moved(i, bar, 20),
        sections::RANGE => candles.high[[i, bar]] - candles.low[[i, bar]],
        _ => close[[i, bar]] - candles.low[[i, bar]],
    };
    let write = |section: usize, value: &dyn Fn(usize, usize) -> f64| {
        let mut values = vec![0f32; candles.instruments() * stride];
        for (i, row) in values.chunks_exact_mut(stride).enumerate() {
            row.iter_mut().take(candles.bars()).enumerate().for_each(|(bar, to)| *to = value(i, bar) as f32);
        }
        gpu.write(&sources, section as u64 * bytes, bytemuck::cast_slice(&values))
    };
    for section in 0..sections::SECTIONS - INDICATORS.len() {
        write(section, &|i, bar| own(section, i, bar))?;
    }
    for (feature, values) in extra.values.outer_iter().enumerate() {
        write(sections::SECTIONS + feature, &|i, bar| values[[i, bar]])?;
    }
    let panel = indicators.panel(series)?;
    recorder.encode(&panel.commands())?;
    for (section, name) in INDICATORS {
        let source =
            panel.buffer(name).ok_or_else(|| Error::shape("indicators", name, "none of that name"))?;
        recorder.encode(&[Command::Copy {
            source: source.clone(),
            source_offset: 0,
            target: sources.clone(),
            target_offset: section as u64 * bytes,
            bytes,
        }])?;
    }
    recorder.submit()?;
    Ok(sources)
}
