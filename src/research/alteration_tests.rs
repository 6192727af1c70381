use ndarray::{Array2, Array3};

use super::*;

fn candles() -> Candles {
    let mut random = Stream::new(11, 4);
    let mut level = [50.0, 3.0];
    let close = Array2::from_shape_fn((2, 400), |(i, _)| {
        level[i] *= (0.01 * random.normal()).exp();
        level[i]
    });
    let open = Array2::from_shape_fn(
        (2, 400),
        |(i, bar)| if bar == 0 { close[[i, 0]] } else { close[[i, bar - 1]] },
    );
    let high = Array2::from_shape_fn((2, 400), |at| 1.01 * f64::max(open[at], close[at]));
    let low = Array2::from_shape_fn((2, 400), |at| 0.99 * f64::min(open[at], close[at]));
    let volume = Array2::from_shape_fn((2, 400), |(i, bar)| 1000.0 + (bar * 7 % 31 + i) as f64);
    let start = jiff::civil::date(2020, 1, 1).at(0, 0, 0, 0);
    let timestamps = (0..400).map(|day| start + jiff::ToSpan::days(day)).collect();
    Candles::new(vec!["A".into(), "B".into()], timestamps, open, high, low, close, Some(volume)).unwrap()
}

/// A feature of the caller's own: candles, instrument and bar to its value.
type Feature = fn(&Candles, usize, usize) -> f64;

fn audit(name: &str, feature: Feature) -> Alteration {
    let gpu = crate::testing::gpu();
    let candles = candles();
    let extra = |candles: &Candles| {
        let values = Array3::from_shape_fn((1, 2, 400), |(_, i, bar)| feature(candles, i, bar));
        Ok(ExtraFeatures { names: vec![name.into()], values })
    };
    let data = MarketData::new(&gpu, &candles, &extra(&candles).unwrap(), &Scaling::Fit(100..250)).unwrap();
    future_alteration(&gpu, &candles, extra, data.scaling(), 250..400, 3, 1).unwrap()
}

fn change(candles: &Candles, i: usize, from: usize, to: usize) -> f64 {
    (candles.close[[i, to]] / candles.close[[i, from]]).ln()
}

/// Leaks by one bar, by scaling over all data, by a centred window, and by a block of five bars stamped at its start.
#[test]
fn leaking_features_are_found_and_named() {
    let leaking: [(&str, Feature); 4] = [
        ("next bar", |candles, i, bar| change(candles, i, bar, (bar + 1).min(399))),
        ("scaled over all", |candles, i, bar| {
            candles.close[[i, bar]] / candles.close.row(i).iter().sum::<f64>()
        }),
        ("centred window", |candles, i, bar| {
            let (first, last) = (bar.saturating_sub(2), (bar + 2).min(399));
            change(candles, i, first, last)
        }),
        ("weekly", |candles, i, bar| {
            let first = bar / 5 * 5;
            change(candles, i, first, (first + 4).min(399))
        }),
    ];
    for (name, feature) in leaking {
        let found = audit(name, feature);
        assert_eq!(found.leaks.iter().map(|leak| leak.feature.as_str()).collect::<Vec<_>>(), [name]);
        assert!(found.leaks[0].bar <= found.leaks[0].unaltered);
        assert!(found.conclusive);
    }
}

#[test]
fn features_of_the_past_do_not_leak() {
    let clean = audit("last five bars", |candles, i, bar| change(candles, i, bar.saturating_sub(5), bar));
    assert_eq!((clean.leaks, clean.cuts, clean.conclusive), (Vec::new(), vec![287, 324, 361], true));
}

#[test]
fn only_later_bars_are_altered_and_they_stay_consistent() {
    let candles = candles();
    let other = altered(&candles, 200, 3);
    for (one, two) in [(&candles.open, &other.open), (&candles.close, &other.close)] {
        for ((at, before), after) in one.indexed_iter().zip(two) {
            assert_eq!(before == after, at.1 <= 200, "{at:?}");
        }
    }
    let Candles { symbols, timestamps, open, high, low, close, volume, .. } = other;
    Candles::new(symbols, timestamps, open, high, low, close, volume).unwrap();

    let gpu = crate::testing::gpu();
    let extra = |_: &Candles| Ok(ExtraFeatures::default());
    let data = MarketData::new(&gpu, &candles, &ExtraFeatures::default(), &Scaling::Fit(100..250)).unwrap();
    for (bars, cuts) in [(250..401, 3), (399..400, 3), (250..400, 0)] {
        future_alteration(&gpu, &candles, extra, data.scaling(), bars, cuts, 1).unwrap_err();
    }
}
