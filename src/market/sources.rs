//! Inputs of the feature kernel, section by section in one device buffer.

use super::features::sections;
use super::{Candles, ExtraFeatures, RealBars};
use crate::gpu::{Command, Gpu, Recorder};
use crate::indicators::{Indicators, Series};
use crate::{Error, Result};

/// Indicator outputs that the features use, in the order of the shader's sections.
pub(super) const INDICATORS: [(usize, &str); 10] = [
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

/// Filled bars are counted in f32, which is exact up to here.
const MOST_FILLED: usize = 1 << 24;

/// Inputs of the sections.
pub(super) struct Sources<'a> {
    pub gpu: &'a Gpu,
    pub candles: &'a Candles,
    pub real: &'a RealBars,
    pub extra: &'a ExtraFeatures,
    /// Whether a section after the caller's marks filled bars.
    pub marked: bool,
}

impl Sources<'_> {
    /// Uploads and computes all sections. Returns their buffer, f32 `[section][instrument][stride]`, and the stride.
    ///
    /// # Errors
    /// [`Error::Data`] for too many filled bars; errors of the device.
    pub fn gather(&self, recorder: &mut Recorder, indicators: &Indicators) -> Result<(wgpu::Buffer, u32)> {
        let Self { gpu, candles, real, extra, marked } = *self;
        let [open, high, low, close] = [&candles.open, &candles.high, &candles.low, &candles.close]
            .map(|prices| real.compact(prices.view()));
        let volume = candles.volume.as_ref().map(|volume| real.compact(volume.view()));
        let series = Series::upload(gpu, high.view(), low.view(), close.view())?;
        let most = (0..candles.instruments()).map(|i| real.filled_until(i, candles.bars() - 1)).max();
        if most.is_some_and(|most| most > MOST_FILLED) {
            let reason = format!(
                "an instrument has more than {MOST_FILLED} filled bars; drop them (gap policy `drop`)"
            );
            return Err(Error::Data(reason));
        }
        let stride = series.stride() as usize;
        let bytes = (candles.instruments() * stride) as u64 * 4;
        let callers = extra.names.len() + usize::from(marked);
        let count = sections::SECTIONS + callers + usize::from(real.any_filled());
        let sources = gpu.buffer("feature sources", count as u64 * bytes, crate::gpu::STATE)?;
        let moved = |i: usize, bar: usize, by: usize| match bar.checked_sub(by) {
            Some(before) => close[[i, bar]] - close[[i, before]],
            None => 0.0,
        };
        let own = |section: usize, i: usize, bar: usize| match section {
            sections::GAP => match bar.checked_sub(1) {
                Some(before) => open[[i, bar]] - close[[i, before]],
                None => 0.0,
            },
            sections::PRICE => close[[i, bar]],
            sections::VOLUME => volume.as_ref().map_or(0.0, |volume| volume[[i, bar]]),
            sections::MOVE_1 => moved(i, bar, 1),
            sections::MOVE_5 => moved(i, bar, 5),
            sections::MOVE_20 => moved(i, bar, 20),
            sections::RANGE => high[[i, bar]] - low[[i, bar]],
            _ => close[[i, bar]] - low[[i, bar]],
        };
        let write = |section: usize, value: &dyn Fn(usize, usize) -> f64| {
            let mut values = vec![0f32; candles.instruments() * stride];
            for (i, row) in values.chunks_exact_mut(stride).enumerate() {
                let bars = row.iter_mut().take(candles.bars()).enumerate();
                bars.for_each(|(bar, to)| *to = value(i, bar) as f32);
            }
            gpu.write(&sources, section as u64 * bytes, bytemuck::cast_slice(&values))
        };
        for section in 0..sections::SECTIONS - INDICATORS.len() {
            write(section, &|i, bar| own(section, i, bar))?;
        }
        for (feature, values) in extra.values.outer_iter().enumerate() {
            write(sections::SECTIONS + feature, &|i, bar| values[[i, bar]])?;
        }
        if marked {
            let filled = candles.filled.as_ref();
            let mark = |i, bar| f64::from(u8::from(filled.is_some_and(|filled| filled[[i, bar]])));
            write(sections::SECTIONS + callers - 1, &mark)?;
        }
        if real.any_filled() {
            write(count - 1, &|i, bar| real.filled_until(i, bar) as f64)?;
        }
        let panel = indicators.panel(&series)?;
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
        Ok((sources, series.stride()))
    }
}

/// Open minus the previous close; 0 at the first bar.
pub(super) fn gap(candles: &Candles, instrument: usize, bar: usize) -> f64 {
    match bar.checked_sub(1) {
        Some(before) => candles.open[[instrument, bar]] - candles.close[[instrument, before]],
        None => 0.0,
    }
}
