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
        let mut now = candles.live_bars(bar);
        let own: Vec<f64> = (0..2).map(|i| extra.values[[0, i, bar]]).collect();
        live.push(candles.timestamps[bar], &mut now, &own).unwrap();
        let wide = 2 * data.features();
        for (column, (found, expected)) in live.features().iter().zip(&expected[bar * wide..]).enumerate() {
            assert!((found - expected).abs() < 2e-4, "bar {bar} column {column}: {found}, not {expected}");
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
