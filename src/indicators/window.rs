//! Reads a part of the outputs, for results that are too large to be in the CPU's memory at once.

use ndarray::Array3;

use super::indicator::Unit;
use super::panel::{Column, Panel};
use super::values::{Values, more_precise};
use crate::gpu::{Command, Gpu, Recorder};
use crate::{Error, Result};

/// Copies of a submission.
const MOST_COPIES: usize = 1 << 12;

/// Values of one column in the buffer that windows are copied to.
struct Place {
    /// The first word of its values.
    at: usize,
    /// The first word of its prices, if the device stores them.
    prices: Option<usize>,
}

impl Panel {
    /// Reads `bars` bars of each series, from bar `first[series]` on: [`Panel::read`] for a window of the outputs. Values beyond the last
    /// bar are NaN.
    ///
    /// # Errors
    /// [`Error::Shape`] if `first` has not one element for each series, or `bars` is 0 or more than the series have, and as
    /// [`Panel::read`].
    pub fn read_windows(&self, gpu: &Gpu, first: &[usize], bars: usize) -> Result<Values> {
        let series = self.series.series() as usize;
        if first.len() != series || bars == 0 {
            let got = format!("{} for {bars} bars", first.len());
            return Err(Error::shape("first bars", format!("{series}, and at least one bar"), got));
        }
        let most = self.series.bars() as usize;
        if bars > most {
            return Err(Error::shape("bars of a window", format!("at most {most}"), bars));
        }
        let size = if self.half { 2 } else { 4 };
        let stride = self.series.stride() as usize;
        let whole = bars == most && first.iter().all(|first| *first == 0);
        // Copies start and end at multiples of four bytes, so that windows begin at even bars.
        let width = if whole { stride } else { (bars + 1).next_multiple_of(2) };
        let stored: Vec<&Column> = self.outputs.iter().filter(|column| column.buffer.is_some()).collect();
        let mut places = Vec::with_capacity(stored.len());
        let mut all = 0;
        for column in &stored {
            let values = column.combinations * series * width;
            let prices = column.prices.then_some(all + values);
            places.push(Place { at: all, prices });
            all += if column.prices { 2 * values } else { values };
        }
        let target = gpu.buffer("windows", (all * size) as u64, crate::gpu::STATE)?;
        let mut recorder = Recorder::new(gpu);
        let mut commands = Vec::new();
        for (column, place) in stored.iter().zip(&places) {
            let Some(source) = &column.buffer else { continue };
            let rows = column.combinations * series;
            for (half, at) in [Some(place.at), place.prices].into_iter().enumerate() {
                let Some(at) = at else { continue };
                if whole {
                    commands.push(Command::Copy {
                        source: source.clone(),
                        source_offset: (half * rows * stride * size) as u64,
                        target: target.clone(),
                        target_offset: (at * size) as u64,
                        bytes: (rows * stride * size) as u64,
                    });
                    continue;
                }
                for (row, first) in (0..rows).zip(first.iter().cycle()) {
                    let from = first & !1;
                    let count = width.min(stride.saturating_sub(from));
                    if count > 0 {
                        commands.push(Command::Copy {
                            source: source.clone(),
                            source_offset: (((half * rows + row) * stride + from) * size) as u64,
                            target: target.clone(),
                            target_offset: ((at + row * width) * size) as u64,
                            bytes: (count * size) as u64,
                        });
                    }
                    // Many series have many rows: bounds the memory of the commands.
                    if commands.len() >= MOST_COPIES {
                        recorder.run(&commands)?;
                        commands.clear();
                    }
                }
            }
        }
        recorder.run(&commands)?;
        let read: Vec<f32> = if self.half {
            gpu.read::<half::f16>(&target)?.into_iter().map(f32::from).collect()
        } else {
            gpu.read(&target)?
        };
        let close = self.series.close();
        let columns = stored.iter().zip(&places).map(|(column, place)| {
            let shape = (column.combinations, series, bars);
            let values = Array3::from_shape_fn(shape, |(combination, s, bar)| {
                let start = first.get(s).copied().unwrap_or_default();
                let Some(close) = start.checked_add(bar).and_then(|at| close.get([s, at])) else {
                    return f64::NAN;
                };
                let offset = (combination * series + s) * width + start % 2 + bar;
                let value = |at: usize| read.get(at + offset).map_or(f64::NAN, |value| f64::from(*value));
                match column.unit {
                    Unit::Price => {
                        more_precise(value(place.at), place.prices.map_or(f64::NAN, value), *close)
                    }
                    _ => value(place.at),
                }
            });
            (column.name.clone(), column.unit, values)
        });
        Ok(Values { columns: columns.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Donchian, Indicators, Rsi, Series, Sma};
    use super::*;
    use crate::testing::gpu;
    use ndarray::{Array2, s};

    #[test]
    fn windows_are_parts_of_the_whole() {
        let gpu = gpu();
        let close = Array2::from_shape_fn((3, 41), |(s, bar)| 100.0 + ((s + 2) * bar * 7 % 23) as f64);
        let (high, low) = (&close * 1.01, &close * 0.99);
        let series = Series::upload(&gpu, high.view(), low.view(), close.view()).unwrap();
        let periods = [3, 5].map(|period| Rsi { period });
        let all = Indicators::new(&gpu).with(Sma { period: 4 }).with(Donchian { period: 5 }).grid(periods);
        for indicators in [all.clone(), all.half()] {
            let panel = indicators.panel(&series).unwrap();
            Recorder::new(&gpu).run(&panel.commands()).unwrap();
            let whole = panel.read(&gpu).unwrap();
            let bits = |value: f64| if value.is_nan() { u64::MAX } else { value.to_bits() };
            let far = [usize::MAX, usize::MAX - 1, 40];
            for (first, bars) in
                [([0, 0, 0], 41), ([3, 10, 7], 9), ([40, 31, 2], 10), ([0, 50, 1], 1), (far, 3)]
            {
                let part = panel.read_windows(&gpu, &first, bars).unwrap();
                assert!(part.names().eq(whole.names()));
                for name in whole.names() {
                    assert_eq!(part.unit(name), whole.unit(name));
                    let (part, whole) = (part.grid(name).unwrap(), whole.grid(name).unwrap());
                    for (s, start) in first.into_iter().enumerate() {
                        let own = part.slice(s![.., s, ..]);
                        for ((combination, bar), value) in own.indexed_iter() {
                            let at = start.checked_add(bar);
                            let expected = at.and_then(|at| whole.get([combination, s, at]));
                            let expected = expected.copied().unwrap_or(f64::NAN);
                            assert_eq!(bits(*value), bits(expected), "{name} {s} {bar}");
                        }
                    }
                }
            }
            for (first, bars) in
                [(&[0, 0][..], 1), (&[0, 0, 0], 0), (&[0, 0, 0], 42), (&[0, 1, 0], usize::MAX)]
            {
                let error = panel.read_windows(&gpu, first, bars).unwrap_err();
                assert!(matches!(error, Error::Shape { .. }), "{error}");
            }
        }
    }
}
