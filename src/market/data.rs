//! Features and prices of a market in one device buffer.

use std::ops::Range;
use std::sync::Arc;

use ndarray::Array3;

use super::account_data::AccountData;
use super::features::{self, FEATURES, FILLED, LOOK_BACK, sections};
use super::sources::Sources;
use super::statistics::{Scaling, ScalingStatistics};
use super::{Candles, RealBars, fit, scale};
use crate::gpu::{Command, Gpu, Recorder};
use crate::indicators::{Indicators, Series};
use crate::ranges::number;
use crate::text::shown;
use crate::{Error, Result};

/// Largest absolute value of a scaled feature, in standard deviations.
pub(crate) const LIMIT: f32 = 5.0;

/// Largest absolute value of an extra feature: sums of its square over 10^8 bars fit into f32.
pub(super) const MOST_EXTRA: f64 = 1e15;

/// Prices per bar and instrument: gap, move, open, close.
const PRICES: usize = 4;

/// Features of the caller, appended to the built-in ones.
#[derive(Clone, Debug, Default)]
pub struct ExtraFeatures {
    /// Names.
    pub names: Vec<String>,
    /// Values from -1e15 to 1e15, `[feature][instrument][bar]`. The value at bar t must be known at the close of bar t.
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
    /// Whether the buffer holds funding rates.
    funded: bool,
    /// Whether the candles have volumes.
    traded: bool,
    /// Checksums of the candles without volumes, of the time between bars, and of the volumes, up to and including each bar.
    checksums: Arc<[[u32; 3]]>,
}

impl MarketData {
    /// Computes and scales the features of `candles` on the device. Where bars were filled ([`Candles::filled`]), windows count real
    /// bars only, a filled bar has the features of the instrument's last real one, and one more feature, [`FILLED`], marks it. With
    /// statistics that lack this feature it is left out.
    ///
    /// # Errors
    /// [`Error::Data`] if there are too few candles for the indicators, too few training bars with features, statistics of
    /// other instruments or features, extra features that are not finite or beyond 1e15, or a feature whose mean or deviation f32
    /// cannot hold; [`Error::Shape`] if the extra features do not match the candles; [`Error::Buffer`] if the data exceed the device's
    /// largest binding.
    pub fn new(gpu: &Gpu, candles: &Candles, extra: &ExtraFeatures, scaling: &Scaling) -> Result<Self> {
        let (instruments, bars) = (candles.instruments(), candles.bars());
        check_extra(candles, extra)?;
        let real = candles.real_bars();
        let indicators = Indicators::classic(gpu);
        let first_bar = first_bar(candles, &real, (indicators.warm_up()? as usize).max(LOOK_BACK))?;
        let marked = is_marked(&real, extra, scaling)?;
        let own = FEATURES.iter().map(|name| (*name).to_string()).chain(extra.names.iter().cloned());
        let names: Vec<String> = own.chain(marked.then(|| FILLED.to_string())).collect();
        let columns = instruments * names.len();
        let prices = bars * instruments * PRICES;
        let funding = candles.funding.as_ref().map_or(0, |_| bars * instruments);
        let words = bars * columns + prices + bars + funding;
        let callers = names.len() - FEATURES.len();
        let sections = (sections::SECTIONS + callers + usize::from(real.any_filled())) * instruments;
        fits(gpu, words.max(sections * Series::row(bars)) as u64 * 4)?;

        let buffer = gpu.buffer("market data", words as u64 * 4, crate::gpu::STATE)?;
        let mut recorder = Recorder::new(gpu);
        let sources = Sources { gpu, candles, real: &real, extra, marked };
        let (sources, stride) = sources.gather(&mut recorder, &indicators)?;

        let shape = features::Parameters {
            bars: bars as u32,
            instruments: instruments as u32,
            extra: callers as u32,
            stride,
            filled: u32::from(real.any_filled()),
            pad: [0; 3],
        };
        let kernel = features::kernel(gpu)?;
        let group = features::bind(gpu, &kernel, &shape, &sources, &buffer)?;
        recorder.run(&[Command::dispatch(&kernel, &group, features::groups(&kernel.variant, &shape))])?;

        let marks = if marked { names.len() } else { 0 };
        let mut train = 0..0;
        let moments = match scaling {
            Scaling::Given(given) => given.of(&candles.symbols, &names)?.to_vec(),
            Scaling::FitWithin(ranges) => {
                let ranges = fit::training_ranges(ranges, first_bar, bars)?;
                fit::moments(gpu, &buffer, columns, &ranges, marks)?
            }
            Scaling::Fit(range) => {
                train = training_bars(range, first_bar, bars)?;
                vec![[0.0; 2]; columns]
            }
        };
        let statistics = gpu.upload("scaling", &moments)?;
        let scale_parameters = scale::Parameters {
            bars: bars as u32,
            columns: columns as u32,
            first: train.start as u32,
            end: train.end as u32,
            limit: LIMIT,
            zero: 0,
            marked: marks as u32,
            pad: 0,
        };
        recorder.run(&scale::commands(gpu, &scale_parameters, &statistics, &buffer)?)?;

        let mut crc = crc32fast::Hasher::new();
        let mut time = crc32fast::Hasher::new();
        let mut volumes = crc32fast::Hasher::new();
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
                let filled = candles.filled.as_ref().map(|filled| filled[[i, bar]]);
                crc.update(filled.map(u8::from).as_slice());
                if let Some(funding) = &candles.funding {
                    crc.update(&funding[[i, bar]].to_le_bytes());
                }
                if let Some(volume) = &candles.volume {
                    volumes.update(&volume[[i, bar]].to_le_bytes());
                }
            }
            time.update(&candles.years_before(bar).to_le_bytes());
            checksums.push([&crc, &time, &volumes].map(Clone::clone).map(crc32fast::Hasher::finalize));
        }
        let AccountData { prices, years, funding } = AccountData::new(candles, 0..bars);
        let account = [prices.as_flattened(), &years, &funding].concat();
        gpu.write(&buffer, (bars * columns) as u64 * 4, bytemuck::cast_slice(&account))?;
        let checksums = checksums.into();
        let mut moments: Vec<[f32; 2]> = gpu.read(&statistics)?;
        moments.truncate(columns);
        let statistics =
            ScalingStatistics { features: names, symbols: candles.symbols.clone(), moments }.fitted()?;
        let (funded, traded) = (candles.funding.is_some(), candles.volume.is_some());
        Ok(Self { buffer, bars, instruments, statistics, first_bar, funded, traded, checksums })
    }

    /// The device buffer, f32: features `[bar][instrument][feature]`, then prices `[bar][instrument][gap, move, open,
    /// close]`. Gap is the open minus the previous close, move the close minus the open; both are computed in f64. The open of a
    /// filled bar is 0. Then the years since the previous bar, `[bar]`, and funding rates `[bar][instrument]` if the candles have them.
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

    /// Checks that bars have features, and are two at least.
    ///
    /// # Errors
    /// [`Error::Data`].
    pub(crate) fn check_tradable(&self, bars: &Range<usize>) -> Result<()> {
        if bars.start >= self.first_bar && bars.end <= self.bars && bars.len() >= 2 {
            return Ok(());
        }
        Err(Error::Data(format!(
            "bars {} to {} cannot be traded: features start at bar {}, the data has {} bars, and a range needs at least two",
            bars.start, bars.end, self.first_bar, self.bars
        )))
    }

    /// The statistics with which the features were scaled.
    #[must_use]
    pub fn scaling(&self) -> &ScalingStatistics {
        &self.statistics
    }

    /// Identifies the candles and extra features before bar `end`, volumes included.
    #[must_use]
    pub(crate) fn candles_before(&self, end: usize) -> String {
        let volume = if self.traded { "with" } else { "without" };
        let [candles, _, volumes] = self.checksums_before(end);
        format!("{end} bars {volume} volume, {candles:08x}{volumes:08x}")
    }

    /// Checksum of the candles and extra features before bar `end`, without volumes.
    #[must_use]
    pub(crate) fn checksum(&self, end: usize) -> u32 {
        self.checksums_before(end)[0]
    }

    /// Checksum of the time between bars, up to bar `end`.
    pub(crate) fn time_checksum(&self, end: usize) -> u32 {
        self.checksums_before(end)[1]
    }

    fn checksums_before(&self, end: usize) -> [u32; 3] {
        end.checked_sub(1).and_then(|last| self.checksums.get(last)).copied().unwrap_or_default()
    }

    /// Index of the first price in the buffer, in f32 values.
    #[must_use]
    pub(crate) fn prices_at(&self) -> u32 {
        (self.bars * self.instruments * self.features()) as u32
    }

    /// Index of the first time between bars in the buffer, in f32 values.
    #[must_use]
    pub(crate) fn years_at(&self) -> u32 {
        self.prices_at() + (self.bars * self.instruments * PRICES) as u32
    }

    /// Index of the first funding rate in the buffer, in f32 values, if there are any.
    #[must_use]
    pub(crate) fn funding_at(&self) -> Option<u32> {
        self.funded.then(|| self.years_at() + self.bars as u32)
    }
}

/// The first bar at which every instrument has `look_back` real bars behind it.
///
/// # Errors
/// [`Error::Data`] unless another bar follows it.
fn first_bar(candles: &Candles, real: &RealBars, look_back: usize) -> Result<usize> {
    let bars = candles.bars();
    let reached = |i: usize| {
        (look_back..bars).find(|bar| real.position(i, *bar).is_some_and(|position| position >= look_back))
    };
    let all = (0..candles.instruments()).map(reached).collect::<Option<Vec<_>>>();
    match all.and_then(|all| all.into_iter().max()).filter(|first| first + 2 <= bars) {
        Some(first) => Ok(first),
        None => Err(Error::Data(format!(
            "the candles have {bars} bars, but at least {} that are not filled are needed: {look_back} for the indicators \
             before the first decision and 2 to trade; load more bars",
            look_back + 2
        ))),
    }
}

/// Whether the features include [`FILLED`].
fn is_marked(real: &RealBars, extra: &ExtraFeatures, scaling: &Scaling) -> Result<bool> {
    let marked = match scaling {
        // Only fills that training sees: an input that never changes there would have untrained weights.
        Scaling::Fit(train) => real.any_filled_in(train.clone()),
        Scaling::FitWithin(ranges) => ranges.iter().any(|train| real.any_filled_in(train.clone())),
        Scaling::Given(given) => {
            given.features.len() == FEATURES.len() + extra.names.len() + 1
                && given.features.last().is_some_and(|name| name == FILLED)
        }
    };
    if marked && extra.names.iter().any(|name| name == FILLED) {
        return Err(Error::Data(format!(
            "an extra feature is named `{FILLED}`, which marks filled bars; rename it"
        )));
    }
    Ok(marked)
}

pub(super) fn check_extra(candles: &Candles, extra: &ExtraFeatures) -> Result<()> {
    if extra.names.is_empty() && extra.values.is_empty() {
        return Ok(());
    }
    let expected = (extra.names.len(), candles.instruments(), candles.bars());
    if extra.values.dim() != expected {
        let got = format!("{:?}", extra.values.dim());
        return Err(Error::shape("extra features [feature][instrument][bar]", format!("{expected:?}"), got));
    }
    let held = |value: f64| value.abs() <= MOST_EXTRA;
    match extra.values.indexed_iter().find(|(_, value)| !held(**value)) {
        None => Ok(()),
        Some(((feature, instrument, bar), value)) => Err(Error::Data(format!(
            "extra feature `{}` of {} at {} is {}; it has to be a finite number from -{MOST_EXTRA:e} to {MOST_EXTRA:e}, so that 32-bit \
             numbers hold its square",
            shown(&extra.names[feature]),
            candles.symbols[instrument],
            candles.timestamps[bar],
            number(*value)
        ))),
    }
}

fn fits(gpu: &Gpu, bytes: u64) -> Result<()> {
    let limits = gpu.device().limits();
    let limit = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::Buffer {
        what: "the buffer of the market's features".into(),
        needed: bytes.div_ceil(1 << 20),
        limit: limit >> 20,
        advice: "use fewer bars or instruments".into(),
    })
}

pub(super) fn training_bars(train: &Range<usize>, first_bar: usize, bars: usize) -> Result<Range<usize>> {
    if train.end > bars {
        return Err(Error::Data(format!(
            "the training bars {}..{} end after the last of {bars} bars: `Scaling::Fit` takes bars of the candles",
            train.start, train.end
        )));
    }
    let usable = train.start.max(first_bar)..train.end;
    if usable.len() >= 2 {
        return Ok(usable);
    }
    Err(Error::Data(format!(
        "the training bars {}..{} include fewer than two bars with features, which start at bar {first_bar}; train on \
         more bars",
        train.start, train.end
    )))
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use jiff::civil::date;
    use ndarray::Array2;

    use super::*;

    /// One bar at 1e21: its deviation is beyond f32.
    #[test]
    fn statistics_that_are_not_finite_name_feature_and_symbol() {
        let bars = 120;
        let start = date(2020, 1, 1).at(0, 0, 0, 0);
        let timestamps = (0..bars).map(|bar| start + (bar as i64).days()).collect();
        let close = Array2::from_shape_fn((2, bars), |(i, bar)| 10.0 + (bar * (i + 3) % 7) as f64);
        let prices = || close.clone();
        let symbols = vec!["AAA".into(), "BBB".into()];
        let mut candles =
            Candles::new(symbols, timestamps, prices(), prices(), prices(), prices(), None).unwrap();
        // Refused when candles are made.
        for prices in [&mut candles.open, &mut candles.high, &mut candles.low, &mut candles.close] {
            prices[[1, 100]] = 1e21;
        }
        let gpu = crate::testing::gpu();
        let load = |train| MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(train));
        let error = load(0..bars).unwrap_err().to_string();
        assert!(error.starts_with("feature `") && error.contains("` of BBB has the mean"), "{error}");
        assert!(load(0..100).unwrap().scaling().validate().is_ok(), "outside the training bars");
    }

    /// More bars than the 65,535 iterations of an invocation on llvmpipe reach, in both classes of kernels.
    #[test]
    fn a_long_series_is_scaled_by_the_statistics_of_all_its_bars() {
        let bars = 170_000;
        let start = date(2020, 1, 1).at(0, 0, 0, 0);
        let timestamps = (0..bars).map(|bar| start + (bar as i64).minutes()).collect();
        let mut stream = crate::random::Stream::new(3, 1);
        let mut price = 100.0;
        let close = Array2::from_shape_simple_fn((1, bars), || {
            price *= 1.0 + 0.001 * (stream.uniform() - 0.5);
            price
        });
        let (open, high, low) = (close.clone(), &close * 1.001, &close * 0.999);
        let candles = Candles::new(vec!["A".into()], timestamps, open, high, low, close, None).unwrap();
        for gpu in crate::testing::both_classes() {
            let data =
                MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(0..bars)).unwrap();
            let (columns, first) = (data.features(), data.first_bar());
            let values: Vec<f32> = gpu.read(data.buffer()).unwrap();
            let mut spread = 0;
            for column in 0..columns {
                let own = || (first..bars).map(|bar| f64::from(values[bar * columns + column]));
                let count = (bars - first) as f64;
                let mean = own().sum::<f64>() / count;
                let deviation = (own().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
                // Values beyond the limit were clipped. Features without volume are constant.
                let name = format!("column {column}: {mean}, {deviation}");
                assert!(mean.abs() < 0.01 && (deviation == 0.0 || (deviation - 1.0).abs() < 0.01), "{name}");
                spread += usize::from(deviation > 0.0);
            }
            assert!(spread > columns / 2, "{spread} of {columns} columns");
        }
    }

    #[test]
    fn extra_features_that_f32_cannot_hold_are_refused() {
        let start = date(2020, 1, 1).at(0, 0, 0, 0);
        let timestamps = (0..3).map(|bar| start + i64::from(bar).days()).collect();
        let prices = || Array2::from_elem((2, 3), 10.0);
        let symbols = vec!["AAA".into(), "BBB".into()];
        let candles =
            Candles::new(symbols, timestamps, prices(), prices(), prices(), prices(), None).unwrap();
        let with = |value: f64| {
            let mut values = Array3::zeros((2, 2, 3));
            values[[1, 0, 2]] = value;
            check_extra(&candles, &ExtraFeatures { names: vec!["a".into(), "b".into()], values })
        };
        for value in [0.0, 1e15, -1e15, 1e-300] {
            with(value).unwrap();
        }
        for (value, shown) in
            [(1e200, "1e200"), (-1.5e15, "-1500000000000000"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")]
        {
            let error = with(value).unwrap_err().to_string();
            let expected = format!(
                "extra feature `b` of AAA at 2020-01-03T00:00:00 is {shown}; it has to be a finite number from -1e15 to 1e15"
            );
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
