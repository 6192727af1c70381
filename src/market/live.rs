//! Features computed bar by bar, for decisions on the last bar.

use std::collections::VecDeque;

use jiff::civil::DateTime;
use ndarray::{Array2, ArrayView2, s};

use super::features::{FEATURES, FILLED, LOOK_BACK};
use super::rules::{Bar, PriceRange, check};
use super::sources::INDICATORS;
use super::{Candles, ExtraFeatures, ScalingStatistics, data};
use crate::gpu::Gpu;
use crate::indicators::{self, Indicators, Values};
use crate::text::shown;
use crate::{Error, Result};

/// Closes and volumes that the features look back on.
const HISTORY: usize = LOOK_BACK + 1;

/// Bars of history that are pushed at once.
const BATCH: usize = 4096;

/// One bar of one instrument that has closed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveBar {
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
    /// Units traded; 0 if unknown.
    pub volume: f64,
    /// Funding rates that fell due during the bar ([`Candles::funding`]); 0 if there are none.
    pub funding: f64,
}

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

/// The last real bars of an instrument.
#[derive(Clone, Debug, Default)]
struct Instrument {
    /// Real bars so far.
    bars: usize,
    last: Option<LiveBar>,
    /// Latest last.
    closes: VecDeque<f64>,
    volumes: VecDeque<f64>,
    /// Indicators at the last real bar, in the order of [`INDICATORS`].
    values: [f64; INDICATORS.len()],
    prices: PriceRange,
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

/// One value as `shaders/market/scale.wgsl` scales it.
fn scaled(value: f32, [mean, deviation]: [f32; 2]) -> f32 {
    let useful = deviation > 1e-6 * mean.abs() && deviation > 1e-20;
    if !useful || !value.is_finite() {
        return 0.0;
    }
    ((value - mean) / deviation).clamp(-data::LIMIT, data::LIMIT)
}

impl LiveBar {
    /// Checks the bar by itself, as bars of candle files are checked.
    ///
    /// # Errors
    /// [`Error::Data`] with symbol, time, field and reason.
    pub fn validate(mut self, symbol: &str, timestamp: DateTime) -> Result<()> {
        self.check(symbol, timestamp, PriceRange::default()).map(|_| ())
    }

    /// Checks the bar as bars of candle files are checked, and moves prices that are out of its range by rounding. Returns the range of
    /// the instrument's prices with it.
    fn check(&mut self, symbol: &str, timestamp: DateTime, prices: PriceRange) -> Result<PriceRange> {
        let values = [self.open, self.high, self.low, self.close, self.volume];
        let mut bar = Bar { timestamp, offset: None, values };
        check(symbol, &mut bar).map_err(|(_, reason)| Error::Data(reason))?;
        let prices =
            prices.with(&bar).map_err(|(_, reason)| Error::Data(format!("{}: {reason}", shown(symbol))))?;
        if !(-1.0 < self.funding && self.funding < 1.0) {
            let reason = format!(
                "{}: funding is {}, expected a fraction between -1 and 1",
                shown(symbol),
                self.funding
            );
            return Err(Error::Data(reason));
        }
        [self.open, self.high, self.low, self.close, self.volume] = bar.values;
        Ok(prices)
    }
}

impl Candles {
    /// A bar of an instrument, unless it was filled.
    #[must_use]
    pub fn live_bar(&self, instrument: usize, bar: usize) -> Option<LiveBar> {
        let at = [instrument, bar];
        if self.filled.as_ref().is_some_and(|filled| filled[at]) {
            return None;
        }
        Some(LiveBar {
            open: self.open[at],
            high: self.high[at],
            low: self.low[at],
            close: self.close[at],
            volume: self.volume.as_ref().map_or(0.0, |volume| volume[at]),
            funding: self.funding.as_ref().map_or(0.0, |funding| funding[at]),
        })
    }
}

impl Instrument {
    fn add(&mut self, bar: LiveBar) {
        self.bars += 1;
        self.prices = PriceRange { low: self.prices.low.min(bar.low), high: self.prices.high.max(bar.high) };
        self.last = Some(bar);
        for (values, value) in [(&mut self.closes, bar.close), (&mut self.volumes, bar.volume)] {
            values.push_back(value);
            if values.len() > HISTORY {
                values.pop_front();
            }
        }
    }

    /// The features in the order of [`FEATURES`], in f32 as `shaders/market/features.wgsl` computes them.
    fn features(&self) -> Option<[f32; FEATURES.len()]> {
        let bar = self.last?;
        let price = bar.close as f32;
        let back =
            |by: usize| self.closes.len().checked_sub(1 + by).and_then(|at| self.closes.get(at)).copied();
        let past_return =
            |by: usize| back(by).map_or(0.0, |before| (bar.close - before) as f32 / before as f32);
        let gap = back(1).map_or(0.0, |before| (bar.open - before) as f32 / before as f32);
        let share = |part: f32, whole: f32| if whole > 0.0 { part / whole } else { 0.5 };
        let range = (bar.high - bar.low) as f32;
        let [rsi, macd, macd_hist, upper, middle, lower, atr, mom, stoch_k, stoch_d] = self.values;
        // Bands are prices; the kernel reads them less the close.
        let [upper, middle, lower] = [upper, middle, lower].map(|band| (band - bar.close) as f32);
        let [rsi, macd, macd_hist, atr, mom, stoch_k, stoch_d] =
            [rsi, macd, macd_hist, atr, mom, stoch_k, stoch_d].map(|value| value as f32);
        let width = upper - lower;
        let window = self.volumes.len().min(LOOK_BACK);
        let recent = self.volumes.iter().rev().take(window);
        let volume = recent.fold(0.0, |sum, volume| sum + *volume as f32) / window as f32;
        Some([
            past_return(1),
            past_return(5),
            past_return(20),
            gap,
            range / price,
            share((bar.close - bar.low) as f32, range) - 0.5,
            rsi / 100.0 - 0.5,
            macd / price,
            macd_hist / price,
            share(-lower, width) - 0.5,
            width / (price + middle),
            atr / price,
            mom / price,
            stoch_k / 100.0 - 0.5,
            stoch_d / 100.0 - 0.5,
            if volume > 0.0 { bar.volume as f32 / volume - 1.0 } else { 0.0 },
        ])
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use jiff::civil::date;
    use ndarray::Axis;

    use super::super::{MarketData, Scaling};
    use super::*;

    /// Random walks of two instruments, of which the second lacks some bars.
    fn candles(bars: usize) -> Candles {
        let mut random = crate::random::Stream::new(5, 6);
        let start = date(2020, 1, 1).at(0, 0, 0, 0);
        let timestamps = (0..bars).map(|bar| start + (bar as i64).days()).collect();
        let mut close = Array2::from_elem((2, bars), 50.0);
        let mut all = [(); 4].map(|()| close.clone());
        let filled = Array2::from_shape_fn((2, bars), |(i, bar)| i == 1 && bar > 3 && bar % 7 < 2);
        for i in 0..2 {
            for bar in 1..bars {
                let before = close[[i, bar - 1]];
                let at = [i, bar];
                if filled[at] {
                    close[at] = before;
                    all.iter_mut().take(3).for_each(|prices| prices[at] = before);
                    all[3][at] = 0.0;
                    continue;
                }
                close[at] = before * (0.02 * random.normal()).exp();
                all[0][at] = before * (0.005 * random.normal()).exp();
                all[1][at] = close[at].max(all[0][at]) * (1.0 + 0.01 * random.uniform());
                all[2][at] = close[at].min(all[0][at]) * (1.0 - 0.01 * random.uniform());
                all[3][at] = (1000.0 * random.uniform()).round();
            }
        }
        let [open, high, low, volume] = all;
        let symbols = vec!["AAA".into(), "BBB".into()];
        let candles = Candles::new(symbols, timestamps, open, high, low, close, Some(volume)).unwrap();
        candles.with_filled(filled).unwrap()
    }

    #[test]
    fn features_are_those_of_whole_candles() {
        let gpu = crate::testing::gpu();
        let (bars, history) = (180, 60);
        let candles = candles(bars);
        let extra = ExtraFeatures {
            names: vec!["own".into()],
            values: ndarray::Array3::from_shape_fn((1, 2, bars), |(_, i, bar)| (bar * (i + 2) % 11) as f64),
        };
        let data = MarketData::new(&gpu, &candles, &extra, &Scaling::Fit(40..bars)).unwrap();
        let expected: Vec<f32> = gpu.read(data.buffer()).unwrap();
        let mut live = Live::new(&gpu, data.scaling()).unwrap();
        assert_eq!(live.missing_bars(), Indicators::classic(&gpu).warm_up().unwrap() as usize + 1);
        let head = candles.slice(0..history).unwrap();
        let head_extra = ExtraFeatures {
            names: extra.names.clone(),
            values: extra.values.slice_axis(Axis(2), (0..history).into()).to_owned(),
        };
        live.warm_up(&head, &head_extra).unwrap();
        assert_eq!(live.missing_bars(), 0);
        for bar in history..bars {
            let mut now: Vec<_> = (0..2).map(|i| candles.live_bar(i, bar)).collect();
            let own: Vec<f64> = (0..2).map(|i| extra.values[[0, i, bar]]).collect();
            live.push(candles.timestamps[bar], &mut now, &own).unwrap();
            let wide = 2 * data.features();
            for (column, (found, expected)) in live.features().iter().zip(&expected[bar * wide..]).enumerate()
            {
                assert!(
                    (found - expected).abs() < 2e-4,
                    "bar {bar} column {column}: {found}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn bad_bars_are_refused_and_change_nothing() {
        let gpu = crate::testing::gpu();
        let candles = candles(80);
        let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..80)).unwrap();
        let mut live = Live::new(&gpu, data.scaling()).unwrap();
        live.warm_up(&candles, &ExtraFeatures::default()).unwrap();
        let before = live.features().to_vec();
        let good = LiveBar { open: 50.0, high: 51.0, low: 49.0, close: 50.5, volume: 1.0, funding: 0.0 };
        let next = *candles.timestamps.last().unwrap() + 1.day();
        let mut error = |timestamp, bars: &[Option<LiveBar>]| {
            live.push(timestamp, &mut bars.to_vec(), &[]).unwrap_err().to_string()
        };
        for (bars, wanted) in [
            (vec![Some(good)], "2 instruments"),
            (vec![None, None], "no instrument has a bar"),
            (vec![Some(LiveBar { close: f64::NAN, ..good }), None], "AAA 2020-03-21: close is NaN"),
            (vec![None, Some(LiveBar { high: 40.0, ..good })], "BBB 2020-03-21: high 40 is below low 49"),
            (vec![Some(LiveBar { funding: 2.0, ..good }), None], "AAA: funding is 2"),
            (
                vec![Some(LiveBar { open: 1e-14, high: 1e-14, low: 1e-14, close: 1e-14, ..good }), None],
                "AAA: low is 1e-14, and another price",
            ),
        ] {
            let text = error(next, &bars);
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        let text = error(*candles.timestamps.last().unwrap(), &[Some(good), Some(good)]);
        assert!(text.contains("is not after the last one"), "{text}");
        assert_eq!(live.features(), before);
        live.push(next, &mut [Some(good), None], &[]).unwrap();
        assert_ne!(live.features(), before);
    }
}
