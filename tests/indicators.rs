//! The indicators beside TA-Lib, on real candles.

use std::path::Path;

use ndarray::{Array2, ArrayView1};
use phalanx::gpu::{Gpu, GpuOptions, Recorder};
use phalanx::indicators::{Indicators, Parameters, Series, Values};
use phalanx::market::{Candles, GapPolicy};
use ta_lib::{Core, MAType, OutRange};

fn candles() -> Candles {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/us4_daily.csv.gz");
    Candles::load(&[path], GapPolicy::Reject).expect("the bundled candles")
}

fn on_the_device(candles: &Candles, parameters: &Parameters) -> Values {
    let gpu = Gpu::open(&GpuOptions { checked: true, ..Default::default() }).expect("an adapter");
    let prices = [&candles.high, &candles.low, &candles.close].map(|prices| prices.view());
    let series = Series::upload(&gpu, prices[0], prices[1], prices[2]).expect("an upload");
    let panel = Indicators::new(&gpu, parameters.clone())
        .and_then(|indicators| indicators.panel(&series))
        .expect("compiled kernels");
    Recorder::new(&gpu).run(&panel.commands()).expect("a submission");
    panel.read(&gpu).expect("values")
}

/// What TA-Lib wrote to the front of `outputs`, moved to the bars it belongs to.
fn placed<const N: usize>(range: OutRange, outputs: [Vec<f64>; N], bars: usize) -> [Vec<f64>; N] {
    outputs.map(|output| {
        let mut all = vec![f64::NAN; bars];
        all[range.beg_idx..range.beg_idx + range.count].copy_from_slice(&output[..range.count]);
        all
    })
}

/// All outputs of one instrument by the `ta-lib` crate, in the order of [`Values::columns`].
fn by_ta_lib(candles: &Candles, instrument: usize, p: &Parameters) -> Vec<Vec<f64>> {
    let core = Core::new();
    let row = |prices: &Array2<f64>| prices.row(instrument).to_vec();
    let (high, low, close) = (row(&candles.high), row(&candles.low), row(&candles.close));
    let (bars, last) = (close.len(), close.len() - 1);
    let new = || vec![0.0; bars];
    let period = |n: u32| i32::try_from(n).expect("a period");

    let mut rsi = new();
    let range = core.rsi(0, last, &close, period(p.rsi_period), &mut rsi).expect("rsi");
    let [rsi] = placed(range, [rsi], bars);

    let mut lines = [new(), new(), new()];
    let [line, signal, histogram] = &mut lines;
    let periods = [p.macd_fast, p.macd_slow, p.macd_signal].map(period);
    let range = core
        .macd(0, last, &close, periods[0], periods[1], periods[2], line, signal, histogram)
        .expect("macd");
    let lines = placed(range, lines, bars);

    let mut bands = [new(), new(), new()];
    let [upper, middle, lower] = &mut bands;
    let (n, width) = (period(p.bollinger_period), p.bollinger_deviations);
    let range = core
        .bbands(0, last, &close, n, width, width, MAType::SMA, upper, middle, lower)
        .expect("bollinger bands");
    let bands = placed(range, bands, bars);

    let mut atr = new();
    let range = core.atr(0, last, &high, &low, &close, period(p.atr_period), &mut atr).expect("atr");
    let [atr] = placed(range, [atr], bars);

    let mut momentum = new();
    let range = core.mom(0, last, &close, period(p.momentum_period), &mut momentum).expect("momentum");
    let [momentum] = placed(range, [momentum], bars);

    let mut percents = [new(), new()];
    let [percent_k, percent_d] = &mut percents;
    let windows = [p.stochastic_k, p.stochastic_d].map(period);
    let range = core
        .stochf(0, last, &high, &low, &close, windows[0], windows[1], MAType::SMA, percent_k, percent_d)
        .expect("stochastic");
    let percents = placed(range, percents, bars);

    [rsi].into_iter().chain(lines).chain(bands).chain([atr, momentum]).chain(percents).collect()
}

/// Largest |a - b| / |b|, and the bar where it is.
fn worst(got: ArrayView1<'_, f64>, want: &[f64]) -> (f64, usize) {
    let mut worst = (0.0, 0);
    for (t, (a, b)) in got.iter().zip(want).enumerate() {
        // Without this an exact 0 would be 0 / 0.
        let error = if a == b || b.is_nan() { 0.0 } else { (a - b).abs() / b.abs() };
        if error > worst.0 {
            worst = (error, t);
        }
    }
    worst
}

fn compare(candles: &Candles, parameters: &Parameters) {
    let values = on_the_device(candles, parameters);
    let mut latest_start = 0;
    let mut largest = vec![0.0; values.columns().len()];
    for (instrument, symbol) in candles.symbols.iter().enumerate() {
        let expected = by_ta_lib(candles, instrument, parameters);
        for (((name, got), want), largest) in values.columns().iter().zip(&expected).zip(&mut largest) {
            let got = got.row(instrument);
            let start = want.iter().position(|x| !x.is_nan()).expect("a value");
            latest_start = latest_start.max(start);
            assert_eq!(got.iter().position(|x| !x.is_nan()), Some(start), "{symbol} {name}: first value");
            assert!(got.iter().skip(start).all(|x| x.is_finite()), "{symbol} {name}: a gap");
            let (error, bar) = worst(got, want);
            let (a, b) = (got[bar], want[bar]);
            assert!(error <= 1e-5, "{symbol} {name}, bar {bar}: {a}, TA-Lib has {b}: {error:e} apart");
            *largest = error.max(*largest);
        }
    }
    for ((name, _), largest) in values.columns().iter().zip(&largest) {
        println!("{name:12} {largest:9.1e}");
    }
    assert_eq!(latest_start, parameters.warm_up() as usize);
}

#[test]
fn agrees_with_ta_lib() {
    compare(&candles(), &Parameters::default());
}

#[test]
fn agrees_with_ta_lib_for_other_periods() {
    compare(
        &candles(),
        &Parameters {
            rsi_period: 2,
            macd_fast: 19,
            macd_slow: 39,
            macd_signal: 5,
            bollinger_period: 50,
            bollinger_deviations: 2.5,
            atr_period: 100,
            momentum_period: 1,
            stochastic_k: 5,
            stochastic_d: 1,
        },
    );
}

#[test]
fn agrees_with_ta_lib_where_a_price_multiplies_or_collapses() {
    for factor in [1e4f64, 1e-4] {
        let mut candles = candles();
        let bars = candles.timestamps.len() as f64;
        for prices in [&mut candles.high, &mut candles.low, &mut candles.close] {
            for (t, mut bar) in prices.columns_mut().into_iter().enumerate() {
                bar *= factor.powf(t as f64 / bars);
            }
        }
        compare(&candles, &Parameters::default());
    }
}
