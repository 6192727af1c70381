//! Features computed bar by bar, for decisions on the last bar.

mod bar;
mod instrument;

pub use bar::LiveBar;
use instrument::{Instrument, scaled};

use jiff::civil::DateTime;
use ndarray::{Array2, ArrayView2, s};

use super::features::{FEATURES, FILLED, LOOK_BACK};
use super::sources::INDICATORS;
use super::{Candles, ExtraFeatures, ScalingStatistics, data};
use crate::gpu::Gpu;
use crate::indicators::{self, Indicators, Values};
use crate::text::shown;
use crate::{Error, Result};

/// Bars of history that are pushed at once.
const BATCH: usize = 4096;

/// The features of a market, updated with every bar: what [`super::MarketData`] computes for whole candles. Indicators keep their state
/// on the device, everything else is computed on the CPU as the kernels compute it. Values agree with those of
/// [`super::MarketData`] within the precision of f32: their recurrences may be divided into chunks there ([`indicators::Live`]).
#[derive(Debug)]
pub struct Live {
    indicators: indicators::Live,
    scaling: ScalingStatistics,
    /// Features of the caller.
    extra: usize,
    look_back: usize,
    instruments: Vec<Instrument>,
    /// Scaled, `[instrument][feature]`.
    features: Vec<f32>,
    last: Option<DateTime>,
}

impl Live {
    /// Starts without history: [`Live::warm_up`]. `scaling` is that of the policy ([`super::MarketData::scaling`]).
    ///
    /// # Errors
    /// [`Error::Data`] if these are not the statistics of features of this version; errors of compilation and allocation.
    pub fn new(gpu: &Gpu, scaling: &ScalingStatistics) -> Result<Self> {
        scaling.validate()?;
        let names = &scaling.features;
        if names.len() < FEATURES.len() || names[..FEATURES.len()] != FEATURES {
            return Err(Error::Data(format!(
                "the model was trained on the features {}, but this version computes {}: train it anew",
                names.join(", "),
                FEATURES.join(", ")
            )));
        }
        let marked = names.len() > FEATURES.len() && names.last().is_some_and(|name| name == FILLED);
        let selection = Indicators::classic(gpu);
        let look_back = (selection.warm_up()? as usize).max(LOOK_BACK);
        let count = scaling.symbols.len();
        Ok(Self {
            indicators: selection.live(count as u32)?,
            extra: names.len() - FEATURES.len() - usize::from(marked),
            look_back,
            instruments: vec![Instrument::default(); count],
            features: vec![0.0; count * names.len()],
            scaling: scaling.clone(),
            last: None,
        })
    }

    /// Symbols of the instruments, in order.
    #[must_use]
    pub fn symbols(&self) -> &[String] {
        &self.scaling.symbols
    }

    /// Features of the caller that [`Live::push`] expects per instrument.
    #[must_use]
    pub fn extra(&self) -> usize {
        self.extra
    }

    /// Time of the last bar.
    #[must_use]
    pub fn last(&self) -> Option<DateTime> {
        self.last
    }

    /// The last close of every instrument; NaN before its first bar.
    pub fn closes(&self) -> impl Iterator<Item = f64> + '_ {
        self.instruments.iter().map(|instrument| instrument.last.map_or(f64::NAN, |bar| bar.close))
    }

    /// Bars that the instrument with the least of them still needs before every feature has a value; 0 if all have.
    #[must_use]
    pub fn missing_bars(&self) -> usize {
        let bars = self.instruments.iter().map(|instrument| instrument.bars).min().unwrap_or(0);
        (self.look_back + 1).saturating_sub(bars)
    }

    /// Scaled features of the last bar, `[instrument][feature]`. Before [`Live::missing_bars`] is 0 they mean nothing.
    #[must_use]
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// Adds all bars of `candles`, with the caller's features if the policy has some.
    ///
    /// # Errors
    /// [`Error::Data`] for candles of other instruments, or that begin before the last bar; as [`Live::push`].
    pub fn warm_up(&mut self, candles: &Candles, extra: &ExtraFeatures) -> Result<()> {
        if candles.symbols != self.scaling.symbols {
            let (of, got) = (self.scaling.symbols.join(", "), candles.symbols.join(", "));
            return Err(Error::Data(format!("the model trades {of}, but the candles hold {got}")));
        }
        let names = &self.scaling.features[FEATURES.len()..][..self.extra];
        if extra.names != names {
            return Err(Error::shape("extra features", names.join(", "), extra.names.join(", ")));
        }
        candles.check_shapes()?;
        data::check_extra(candles, extra)?;
        self.follows(candles.timestamps.first().copied())?;
        let bars = candles.bars();
        for first in (0..bars).step_by(BATCH) {
            let range = first..bars.min(first + BATCH);
            let cut = |values: &Array2<f64>| values.slice(s![.., range.clone()]).to_owned();
            let present =
                candles.filled.as_ref().map(|filled| filled.slice(s![.., range.clone()]).mapv(|it| !it));
            let [high, low, close] = [&candles.high, &candles.low, &candles.close].map(cut);
            let values = self.indicators.push_present(
                high.view(),
                low.view(),
                close.view(),
                None,
                present.as_ref().map(|present| present.view()),
            )?;
            for bar in range {
                let at = |i: usize| candles.live_bar(i, bar);
                self.remember(&values, bar - first, at);
            }
        }
        let own = |i: usize, feature: usize| extra.values[[feature, i, bars - 1]];
        self.compute(|i| candles.live_bar(i, bars - 1).is_some(), own);
        self.last = candles.timestamps.last().copied();
        Ok(())
    }

    /// Adds one bar of all instruments, `None` for those that did not trade. `extra` are the caller's features,
    /// `[instrument][feature]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of bars or features; [`Error::Data`] for a bar that no candle file may have, without any bar,
    /// or not after the last one. Then nothing has changed. Errors of the device.
    pub fn push(&mut self, timestamp: DateTime, bars: &mut [Option<LiveBar>], extra: &[f64]) -> Result<()> {
        let count = self.instruments.len();
        if bars.len() != count {
            return Err(Error::shape("bars", format!("{count} instruments"), bars.len()));
        }
        if extra.len() != count * self.extra {
            return Err(Error::shape("extra features", count * self.extra, extra.len()));
        }
        if let Some(index) = extra.iter().position(|value| value.is_nan() || value.abs() > data::MOST_EXTRA) {
            let symbol = shown(&self.scaling.symbols[index / self.extra]);
            return Err(Error::Data(format!(
                "extra feature {} of {symbol} is {}",
                index % self.extra,
                extra[index]
            )));
        }
        self.follows(Some(timestamp))?;
        if bars.iter().all(Option::is_none) {
            return Err(Error::Data(format!("{timestamp}: no instrument has a bar")));
        }
        let mut ranges = Vec::with_capacity(count);
        for ((bar, instrument), symbol) in bars.iter_mut().zip(&self.instruments).zip(&self.scaling.symbols) {
            ranges.push(match bar {
                Some(bar) => bar.check(symbol, timestamp, instrument.prices)?,
                None => instrument.prices,
            });
        }
        let column = |value: fn(&LiveBar) -> f64| {
            let values = bars.iter().map(|bar| bar.as_ref().map_or(f64::NAN, value)).collect();
            Array2::from_shape_vec((count, 1), values).map_err(|error| Error::Data(error.to_string()))
        };
        let present = Array2::from_shape_fn((count, 1), |(i, _)| bars[i].is_some());
        let [high, low, close] = [column(|bar| bar.high)?, column(|bar| bar.low)?, column(|bar| bar.close)?];
        let values = self.indicators.push_present(
            high.view(),
            low.view(),
            close.view(),
            None,
            Some(present.view()),
        )?;
        self.instruments.iter_mut().zip(ranges).for_each(|(instrument, range)| instrument.prices = range);
        self.remember(&values, 0, |i| bars[i]);
        let wide = self.extra;
        self.compute(|i| bars[i].is_some(), |i, feature| extra[i * wide + feature]);
        self.last = Some(timestamp);
        Ok(())
    }

    /// Checks that a bar is later than the last one.
    fn follows(&self, timestamp: Option<DateTime>) -> Result<()> {
        match (self.last, timestamp) {
            (Some(last), Some(timestamp)) if timestamp <= last => {
                Err(Error::Data(format!("the bar of {timestamp} is not after the last one, of {last}")))
            }
            _ => Ok(()),
        }
    }

    fn remember(&mut self, values: &Values, column: usize, bar: impl Fn(usize) -> Option<LiveBar>) {
        let columns = INDICATORS.map(|(_, name)| values.get(name));
        for (i, instrument) in self.instruments.iter_mut().enumerate() {
            let Some(bar) = bar(i) else { continue };
            let read = |values: &Option<ArrayView2<'_, f64>>| {
                values.and_then(|values| values.get((i, column)).copied()).unwrap_or(f64::NAN)
            };
            instrument.values = columns.each_ref().map(read);
            instrument.add(bar);
        }
    }

    /// Computes and scales the features of the last bar.
    fn compute(&mut self, present: impl Fn(usize) -> bool, extra: impl Fn(usize, usize) -> f64) {
        let wide = self.scaling.features.len();
        for (i, (instrument, features)) in
            self.instruments.iter().zip(self.features.chunks_exact_mut(wide)).enumerate()
        {
            let Some(own) = instrument.features() else { continue };
            let (first, rest) = features.split_at_mut(FEATURES.len());
            first.copy_from_slice(&own);
            let (callers, mark) = rest.split_at_mut(self.extra);
            callers.iter_mut().enumerate().for_each(|(feature, value)| *value = extra(i, feature) as f32);
            let moments = &self.scaling.moments[i * wide..];
            first
                .iter_mut()
                .chain(callers)
                .zip(moments)
                .for_each(|(value, moments)| *value = scaled(*value, *moments));
            if let Some(mark) = mark.first_mut() {
                *mark = f32::from(u8::from(!present(i)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
