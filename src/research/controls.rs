//! Controls of a training: one that must win, told the answer, and one that must not, on candles without anything to learn.

use std::ops::Range;

use ndarray::Array3;

use crate::market::{Candles, ExtraFeatures};
use crate::random::Stream;
use crate::{Error, Result};

/// Name of the random stream.
const STREAM: u32 = 0x5FFB_1ED5;

/// Name of the feature that knows the next bar.
const NEXT_RETURN: &str = "next_return";

/// The positive control: what a position decided at a bar earns until the next decision can fill, `ln(open[t + 2] / open[t + 1])`, as a
/// feature of that bar; up to the last close where there is no later open. Agents that trade with it and do not win could not
/// have learnt anything else either.
#[must_use]
pub fn next_returns(candles: &Candles) -> ExtraFeatures {
    let bars = candles.bars();
    let opens = |instrument: usize, bar: usize| match bar < bars {
        true => candles.open[[instrument, bar]],
        false => candles.close[[instrument, bars - 1]],
    };
    let values = Array3::from_shape_fn((1, candles.instruments(), bars), |(_, instrument, bar)| {
        (opens(instrument, bar + 2) / opens(instrument, bar + 1)).ln()
    });
    ExtraFeatures { names: vec![NEXT_RETURN.into()], values }
}

/// The negative control: the bars of every one of the consecutive `ranges` in random order, the same for all instruments. A bar keeps its shape, its
/// gap from the close before, its volume and its place beside the other instruments; its timestamp is that of its new place. So a range has the same returns in
/// another order, ends at the same prices, and its past says nothing of its future. Bars outside of the ranges, and the first
/// bar of the candles, stay.
///
/// # Errors
/// [`Error::Data`] if a range ends after the last bar or begins before the one before it ends, or if a price would leave the range of prices
/// ([`Candles`]).
pub fn shuffled(candles: &Candles, ranges: &[Range<usize>], seed: u64) -> Result<Candles> {
    let mut next = 1;
    let mut order: Vec<usize> = (0..candles.bars()).collect();
    let mut random = Stream::new(seed, STREAM);
    for range in ranges {
        let bars = range.start.max(1)..range.end;
        if bars.start < next || bars.end > candles.bars() {
            return Err(Error::Data(format!(
                "bars {}..{} of {} cannot be shuffled: ranges are ascending, do not overlap and end with the candles",
                range.start,
                range.end,
                candles.bars()
            )));
        }
        next = bars.end.max(next);
        let places = order.get_mut(bars).unwrap_or_default();
        for place in (1..places.len()).rev() {
            places.swap(place, ((random.uniform() * (place + 1) as f64) as usize).min(place));
        }
    }
    reordered(candles, &order)
}

/// The candles whose bar at a place has the shape of the bar that `order` names.
fn reordered(candles: &Candles, order: &[usize]) -> Result<Candles> {
    let mut out = candles.clone();
    for instrument in 0..candles.instruments() {
        for (bar, source) in order.iter().copied().enumerate().skip(1) {
            let from = [instrument, source];
            let to = [instrument, bar];
            let (before, level) = (candles.close[[instrument, source - 1]], out.close[[instrument, bar - 1]]);
            let filled = candles.filled.as_ref().is_some_and(|filled| filled[from]);
            let at = |price: f64| if filled { level } else { level * (price / before) };
            let [open, close] = [candles.open[from], candles.close[from]].map(at);
            out.open[to] = open;
            out.close[to] = close;
            // Rounding may move a bound by a unit in the last place.
            out.high[to] = at(candles.high[from]).max(open).max(close);
            out.low[to] = at(candles.low[from]).min(open).min(close);
            if let (Some(out), Some(volume)) = (&mut out.volume, &candles.volume) {
                out[to] = volume[from];
            }
            if let (Some(out), Some(filled)) = (&mut out.filled, &candles.filled) {
                out[to] = filled[from];
            }
            if let (Some(out), Some(funding)) = (&mut out.funding, &candles.funding) {
                out[to] = funding[from];
            }
        }
    }
    out.check_bars()?;
    Ok(out)
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a range of bars is meant")]
mod tests {
    use jiff::ToSpan;
    use jiff::civil::date;
    use ndarray::{Array2, s};

    use super::*;

    fn candles(bars: usize) -> Candles {
        let mut random = Stream::new(3, 1);
        let mut close = Array2::from_elem((2, bars), 50.0);
        for instrument in 0..2 {
            for bar in 1..bars {
                close[[instrument, bar]] = close[[instrument, bar - 1]] * (0.02 * random.normal()).exp();
            }
        }
        let open = Array2::from_shape_fn((2, bars), |(i, bar)| {
            close[[i, bar.saturating_sub(1)]] * (0.003 * random.normal()).exp()
        });
        let edge = |factor: f64, sign: f64| {
            Array2::from_shape_fn((2, bars), |at| {
                factor * if sign > 0.0 { open[at].max(close[at]) } else { open[at].min(close[at]) }
            })
        };
        let (high, low) = (edge(1.004, 1.0), edge(0.993, -1.0));
        let volume = Some(Array2::from_shape_fn((2, bars), |(i, bar)| (1000 * (i + 1) + bar) as f64));
        let start = date(2020, 1, 1).at(0, 0, 0, 0);
        let days = (0..bars).map(|bar| start + (bar as i64).days()).collect();
        Candles::new(vec!["A".into(), "B".into()], days, open, high, low, close, volume).unwrap()
    }

    fn log_returns(candles: &Candles, instrument: usize, bars: Range<usize>) -> Vec<f64> {
        bars.map(|bar| (candles.close[[instrument, bar]] / candles.close[[instrument, bar - 1]]).ln())
            .collect()
    }

    #[test]
    fn shuffled_candles_have_the_same_bars_in_another_order() {
        let original = candles(301);
        let ranges = [0..200, 200..301];
        let other = shuffled(&original, &ranges, 5).unwrap();
        assert_eq!(other.timestamps, original.timestamps);
        assert_ne!(other.close, original.close);
        for range in ranges {
            for instrument in 0..2 {
                let bars = range.start.max(1)..range.end;
                let mut all =
                    [&original, &other].map(|candles| log_returns(candles, instrument, bars.clone()));
                assert_ne!(all[0], all[1]);
                all.iter_mut().for_each(|all| all.sort_by(f64::total_cmp));
                assert!(all[0].iter().zip(&all[1]).all(|(a, b)| (a - b).abs() < 1e-12));
                let last = [instrument, range.end - 1];
                assert!((other.close[last] / original.close[last] - 1.0).abs() < 1e-12, "the end stays");
            }
            // Volumes name the bars: both instruments have the same order, and no bar crosses a range.
            let volume = other.volume.as_ref().unwrap().slice(s![.., range.clone()]);
            for bar in volume.columns() {
                assert_eq!(bar[1] - bar[0], 1000.0);
                assert!(range.contains(&(bar[0] as usize - 1000)));
            }
        }
        // A bar keeps its shape.
        let volume = other.volume.as_ref().unwrap();
        for bar in 1..301 {
            let from = volume[[0, bar]] as usize - 1000;
            for (new, old) in
                [(&other.open, &original.open), (&other.high, &original.high), (&other.low, &original.low)]
            {
                let ratio = |prices: &Array2<f64>, candles: &Candles, bar: usize| {
                    prices[[0, bar]] / candles.close[[0, bar]]
                };
                assert!((ratio(new, &other, bar) / ratio(old, &original, from) - 1.0).abs() < 1e-12);
            }
        }
        assert_eq!(shuffled(&original, &[0..200, 200..301], 5).unwrap().close, other.close);
        assert_ne!(shuffled(&original, &[0..200, 200..301], 6).unwrap().close, other.close);
        // Bars outside of the ranges stay.
        let part = shuffled(&original, &[100..150], 5).unwrap();
        assert_eq!(part.close.slice(s![.., ..100]), original.close.slice(s![.., ..100]));
        for wrong in [vec![0..302], vec![0..100, 99..120]] {
            assert!(shuffled(&original, &wrong, 5).unwrap_err().to_string().contains("cannot be shuffled"));
        }
    }

    #[test]
    fn filled_bars_and_funding_move_with_their_bars() {
        let mut original = candles(60);
        let mut filled = Array2::from_elem((2, 60), false);
        for bar in [7, 8, 31] {
            filled[[1, bar]] = true;
            let before = original.close[[1, bar - 1]];
            for prices in [&mut original.open, &mut original.high, &mut original.low, &mut original.close] {
                prices[[1, bar]] = before;
            }
            original.volume.as_mut().unwrap()[[1, bar]] = 0.0;
        }
        original.filled = Some(filled);
        original.funding = Some(Array2::from_shape_fn((2, 60), |(_, bar)| bar as f64 / 1000.0));
        let other = shuffled(&original, &[0..60], 9).unwrap();
        let mask = other.filled.as_ref().unwrap();
        assert_eq!(mask.iter().filter(|filled| **filled).count(), 3);
        for ((instrument, bar), _) in mask.indexed_iter().filter(|(_, filled)| **filled) {
            assert_eq!(other.close[[instrument, bar]], other.close[[instrument, bar - 1]]);
            assert_eq!(other.volume.as_ref().unwrap()[[instrument, bar]], 0.0);
            let from = (other.funding.as_ref().unwrap()[[0, bar]] * 1000.0).round() as usize;
            assert!([7, 8, 31].contains(&from));
        }
    }

    #[test]
    fn next_returns_are_those_between_the_next_two_opens() {
        let candles = candles(40);
        let extra = next_returns(&candles);
        assert_eq!((extra.names.len(), extra.values.dim()), (1, (1, 2, 40)));
        assert_eq!(extra.values[[0, 1, 3]], (candles.open[[1, 5]] / candles.open[[1, 4]]).ln());
        assert_eq!(extra.values[[0, 0, 38]], (candles.close[[0, 39]] / candles.open[[0, 39]]).ln());
        assert_eq!(extra.values[[0, 0, 39]], 0.0);
    }
}
