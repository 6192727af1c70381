//! Statistics of features over several ranges of training bars, computed in f64 on the CPU. One range is fitted by the kernel that scales.

use std::ops::Range;

use super::data::training_bars;
use crate::gpu::Gpu;
use crate::{Error, Result};

/// The ranges without the bars that have no features.
///
/// # Errors
/// [`Error::Data`] if fewer than two bars are left, or a range ends after the last of `bars` or does not come after the one before.
pub(super) fn training_ranges(
    ranges: &[Range<usize>],
    first_bar: usize,
    bars: usize,
) -> Result<Vec<Range<usize>>> {
    if let Some(pair) = ranges.windows(2).find(|pair| pair[0].end > pair[1].start) {
        return Err(Error::Data(format!(
            "the training bars {}..{} do not come after {}..{}: ranges are ascending and do not overlap",
            pair[1].start, pair[1].end, pair[0].start, pair[0].end
        )));
    }
    let all = ranges.first().map_or(0, |first| first.start)..ranges.last().map_or(0, |last| last.end);
    training_bars(&all, first_bar, bars)?;
    let usable: Vec<_> = ranges.iter().map(|range| range.start.max(first_bar)..range.end).collect();
    let usable: Vec<_> = usable.into_iter().filter(|range| !range.is_empty()).collect();
    if usable.iter().map(ExactSizeIterator::len).sum::<usize>() < 2 {
        return Err(Error::Data(format!(
            "{} ranges of training bars include fewer than two bars with features, which start at bar {first_bar}; train on more bars",
            ranges.len()
        )));
    }
    Ok(usable)
}

/// Mean and population standard deviation of every column of `features` `[bar][column]` over the training bars. A column that marks
/// filled bars, the last of every `marked` ones, has the statistics [0, 1].
///
/// # Errors
/// As [`Gpu::read`].
pub(super) fn moments(
    gpu: &Gpu,
    features: &wgpu::Buffer,
    columns: usize,
    train: &[Range<usize>],
    marked: usize,
) -> Result<Vec<[f32; 2]>> {
    let end = train.last().map_or(0, |range| range.end);
    let bytes = gpu.read_range(features, 0, (end * columns * size_of::<f32>()) as u64)?;
    let all: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
    let count = train.iter().map(ExactSizeIterator::len).sum::<usize>() as f64;
    let mut sums = vec![0f64; columns];
    let rows =
        || train.iter().flat_map(|range| all[range.start * columns..range.end * columns].chunks(columns));
    for row in rows() {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let means: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
    let mut squares = vec![0f64; columns];
    for row in rows() {
        for ((square, value), mean) in squares.iter_mut().zip(row).zip(&means) {
            *square += (f64::from(*value) - mean).powi(2);
        }
    }
    let is_mark = |column: usize| marked > 0 && (column + 1).is_multiple_of(marked);
    let of = |(column, (mean, square)): (usize, (f64, f64))| match is_mark(column) {
        true => [0.0, 1.0],
        false => [mean as f32, (square / count).sqrt() as f32],
    };
    Ok(means.into_iter().zip(squares).enumerate().map(of).collect())
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use jiff::civil::date;
    use ndarray::Array2;

    use super::*;
    use crate::market::{Candles, ExtraFeatures, MarketData, Scaling};
    use crate::random::Stream;

    fn candles(bars: usize) -> Candles {
        let mut stream = Stream::new(11, 5);
        let close = Array2::from_shape_simple_fn((2, bars), || 40.0 + 10.0 * stream.uniform());
        let start = date(2001, 1, 1).at(0, 0, 0, 0);
        let days = (0..bars).map(|bar| start.checked_add((bar as i64).days()).unwrap()).collect();
        let (open, high, low) = (&close * 0.999, &close * 1.01, &close * 0.99);
        let volume = Some(&close * 100.0);
        Candles::new(vec!["A".into(), "B".into()], days, open, high, low, close, volume).unwrap()
    }

    #[test]
    fn several_ranges_are_fitted_as_one_and_bars_between_do_not_count() {
        let (gpu, bars) = (crate::testing::gpu(), 201);
        let candles = candles(bars);
        let load = |scaling: Scaling| MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &scaling);
        // Unscaled: a feature with the mean 0 and the deviation 1 keeps its value up to the limit.
        let one = load(Scaling::Fit(0..bars)).unwrap();
        let (first, whole) = (one.first_bar(), one.scaling().clone());
        assert_eq!(first, crate::market::FEATURE_HISTORY);
        let same = load(Scaling::FitWithin(vec![0..120, 120..bars])).unwrap().scaling().clone();
        for (got, want) in same.moments.iter().flatten().zip(whole.moments.iter().flatten()) {
            assert!((got - want).abs() <= 2e-6 * want.abs().max(1e-3), "{got} for {want}");
        }

        // The mean over two ranges is the mean of their means, weighted by their bars; so are the second moments.
        let parts = [first..100, 140..191];
        let both = load(Scaling::FitWithin(parts.to_vec())).unwrap();
        let [a, b] = parts.clone().map(|part| load(Scaling::Fit(part)).unwrap().scaling().clone());
        let [n, m] = parts.map(|part| part.len() as f64);
        for (index, got) in both.scaling().moments.iter().enumerate() {
            let [[mean_a, dev_a], [mean_b, dev_b]] = [&a, &b].map(|it| it.moments[index].map(f64::from));
            let mean = (n * mean_a + m * mean_b) / (n + m);
            let square = |mean: f64, deviation: f64| deviation * deviation + mean * mean;
            let second = (n * square(mean_a, dev_a) + m * square(mean_b, dev_b)) / (n + m);
            let deviation = (second - mean * mean).sqrt();
            let near =
                |got: f32, want: f64| (f64::from(got) - want).abs() <= 1e-4 * (deviation + want.abs()) + 1e-7;
            assert!(
                near(got[0], mean) && near(got[1], deviation),
                "{index}: {got:?} for {mean}, {deviation}"
            );
        }
        assert_ne!(both.scaling().moments, whole.moments);

        let refusal = |ranges: Vec<Range<usize>>| load(Scaling::FitWithin(ranges)).unwrap_err().to_string();
        assert!(refusal(vec![0..90, 80..100]).contains("do not come after"));
        assert!(refusal(vec![0..90, 95..bars + 1]).contains("end after the last"));
        assert!(refusal(vec![]).contains("fewer than two bars"));
        assert!(refusal(vec![0..5, first..first + 1]).contains("fewer than two bars"));
    }
}
