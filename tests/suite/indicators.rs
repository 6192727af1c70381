//! The indicators against TA-Lib and f64 formulas.

use half::f16;
use ndarray::{Array2, ArrayView2, s};
use phalanx::gpu::{Class, Recorder};
use phalanx::indicators::{Bbands, Cci, Ema, Indicators, Macd, Obv, Rsi, Series, Sma, Vwap};

use crate::common::oracle::{Bars, Case, Periods, Selection, cases, deviation, expected};
use crate::common::panels::{Tick, all, allowed, batch, is_price, upload, walk, worst};
use crate::testing::{gpu, skip, unchecked_gpu};

#[test]
fn agree_with_the_references_at_any_level_and_volatility() {
    let gpu = gpu();
    let cases = cases(None);
    let indicators = all(&gpu, &cases);
    let mut table: Vec<Vec<f64>> = cases.iter().map(|case| vec![0.0; case.outputs.len()]).collect();
    for level in [1e-4, 1.0, 1e6] {
        for volatility in [1e-5, 1e-3, 1e-1] {
            let bars = walk(3, 700, level, volatility);
            let values = batch(&gpu, &indicators, &bars);
            for (case, table) in cases.iter().zip(&mut table) {
                for (table, worst) in table.iter_mut().zip(worst(&values, case, &bars, volatility)) {
                    *table = table.max(worst);
                }
            }
        }
    }
    println!(
        "worst error against f64, three series of 700 bars, prices 1e-4 to 1e6, volatilities 1e-5 to 1e-1"
    );
    for (case, worst) in cases.iter().zip(&table) {
        for (name, worst) in case.outputs.iter().zip(worst) {
            println!("{name:20} {worst:9.1e} {}", if case.points { "points" } else { "deviations" });
            // Far below the required accuracy (1e-2 points, 1e-3 deviations), to detect a loss of digits.
            let allowed = if name.starts_with("stochrsi") { 1e-2 } else { 1e-4 };
            assert!(*worst < allowed, "{name}: {worst:e}");
        }
    }
}

fn check(bars: &Bars, cases: &[Case], volatility: f64) {
    check_some(bars, cases, "", volatility);
}

/// Computes all cases, whose kernels other tests need too, and checks those whose name starts with `start`.
fn check_some(bars: &Bars, cases: &[Case], start: &str, volatility: f64) {
    let gpu = gpu();
    let values = batch(&gpu, &all(&gpu, cases), bars);
    for case in cases.iter().filter(|case| case.name.starts_with(start)) {
        for (name, worst) in case.outputs.iter().zip(worst(&values, case, bars, volatility)) {
            let allowed = allowed(case, name);
            assert!(worst < allowed, "{} {name}: {worst:e}", case.name);
        }
    }
}

#[test]
fn agree_for_windows_in_registers_and_in_memory() {
    for selection in [Selection::Mixed(11), Selection::Long] {
        check(&walk(2, 401, 50.0, 0.01), &selection.cases(), 0.01);
    }
}

#[test]
fn missing_prices_affect_only_bars_whose_window_contains_them() {
    let mut bars = walk(3, 600, 20.0, 0.02);
    for (t, bad) in [(0, f64::NAN), (100, f64::INFINITY), (101, f64::NAN), (230, f64::NAN), (599, f64::NAN)] {
        bars.close[[0, t]] = bad;
        bars.high[[1, t]] = bad;
        bars.low[[1, (t + 40) % 600]] = bad;
        bars.volume[[2, t]] = bad;
    }
    check(&bars, &cases(None), 0.02);
    check(&bars, &Selection::Long.cases(), 0.02);
}

#[test]
fn short_series_give_no_values_and_no_error() {
    let gpu = gpu();
    let indicators = all(&gpu, &cases(None));
    for bars in [1, 2, 3, 5] {
        let values = batch(&gpu, &indicators, &walk(2, bars, 10.0, 0.01));
        for name in values.names() {
            let got = values.get(name).expect("an output");
            assert_eq!(got.dim(), (2, bars));
            let first = match name {
                "obv" => 0,
                "log_return" => 1,
                _ => 9,
            };
            let there = |t: usize| t >= first;
            assert!(got.indexed_iter().all(|((_, t), x)| x.is_nan() != there(t)), "{name}: {got}");
        }
    }
}

#[test]
fn flat_prices_follow_the_crate() {
    // Short enough for the kernels of series that move: longer runs of equal closes are processed in one piece.
    let flat = Array2::from_elem((1, 60), 7.0);
    let bars = Bars { high: flat.clone(), low: flat.clone(), close: flat, volume: Array2::ones((1, 60)) };
    let gpu = gpu();
    let cases = cases(None);
    let values = batch(&gpu, &all(&gpu, &cases), &bars);
    for case in cases {
        for (name, want) in case.outputs.iter().zip(expected(&case, &bars, 0)) {
            for (t, want) in want.iter().enumerate() {
                let got = values.get(name).expect("an output")[[0, t]];
                // Without movement the crate's ATR is a rounding error in some bars, ours is 0.
                assert!(
                    got.is_nan() == want.is_nan() && (got.is_nan() || (got - want).abs() < 1e-9),
                    "{name} {t}: {got}, not {want}"
                );
            }
        }
    }
}

/// A series longer than one dispatch of a software adapter can process, in chunks and in parts.
#[test]
fn long_series_are_processed_to_their_end() {
    let bars = walk(1, 300_001, 100.0, 1e-3);
    check(&bars, &cases(None), 1e-3);
    let gpu = gpu();
    if gpu.class() == Class::Hardware && gpu.info().device_type == phalanx::wgpu::DeviceType::Cpu {
        return skip(
            "windows of 40,000 bars in the kernels for GPUs: llvmpipe stops their loops after 65,535 iterations",
        );
    }
    let long: Vec<Case> = cases_with(40_000)
        .into_iter()
        .filter(|case| ["Rsi", "Sma", "Donchian", "Ema"].iter().any(|name| case.name.starts_with(name)))
        .collect();
    check(&bars, &long, 1e-3);
}

/// Ratios keep their last value while prices stand still, also in series long enough for chunks.
#[test]
fn ratios_keep_their_value_while_prices_stand_still() {
    let mut bars = walk(1, 3000, 100.0, 0.01);
    for t in 700..1900 {
        for column in [&mut bars.high, &mut bars.low, &mut bars.close] {
            column[[0, t]] = 100.0;
        }
    }
    // After a thousand bars the averages underflow in f32, but not in the reference.
    let until = 1500;
    let gpu = gpu();
    let ratios = |case: &Case| ["Rsi", "Adx"].iter().any(|name| case.name.starts_with(name));
    let cases: Vec<Case> = cases(None).into_iter().filter(ratios).collect();
    let values = batch(&gpu, &all(&gpu, &cases), &bars);
    for case in &cases {
        for (name, want) in case.outputs.iter().zip(expected(case, &bars, 0)) {
            let got = values.get(name).expect("an output");
            for t in (0..until).chain(2300..3000) {
                let (got, want) = (got[[0, t]], want[t]);
                assert!(
                    got.is_nan() == want.is_nan() && (got.is_nan() || (got - want).abs() < 1e-2),
                    "{name} {t}: {got}, not {want}"
                );
            }
        }
    }
}

/// Equal candles whose typical price is not the close: all differences are rounding errors.
#[test]
fn equal_candles_have_no_spread() {
    let same = |price: f64| Array2::from_elem((1, 60), price);
    let bars = Bars { high: same(10.3), low: same(9.9), close: same(10.0), volume: same(5.0) };
    check_some(&bars, &cases(None), "Cci", 0.01);
}

#[test]
fn prices_that_are_not_positive_have_no_logarithm() {
    let mut bars = walk(1, 300, 100.0, 0.01);
    bars.close[[0, 120]] = -37.63;
    let gpu = gpu();
    for (selection, period) in [(Selection::Defaults, 20), (Selection::Long, 45)] {
        let values = batch(&gpu, &all(&gpu, &selection.cases()), &bars);
        let got = values.get("realized_volatility").expect("an output");
        for t in 0..300 {
            let seen = (120..=121 + period as usize - 1).contains(&t);
            assert_eq!(got[[0, t]].is_nan(), t < period as usize || seen, "{period}, bar {t}");
        }
    }
}

/// A jump on the first bar of a block of a window in memory must not affect the deviation of later bars.
#[test]
fn a_jump_at_a_block_border_does_not_lose_precision() {
    let mut bars = walk(1, 200, 100.0, 1e-4);
    for t in 90..200 {
        for column in [&mut bars.high, &mut bars.low, &mut bars.close] {
            column[[0, t]] += 1000.0;
        }
    }
    let gpu = gpu();
    let values = batch(&gpu, &all(&gpu, &Selection::Long.cases()), &bars);
    let width = |t: usize| {
        values.get("bb_upper").expect("upper")[[0, t]] - values.get("bb_middle").expect("middle")[[0, t]]
    };
    for t in 89 + 45..200 {
        let window = bars.close.slice(s![0, t - 44..=t]).to_vec();
        let want = 2.0 * deviation(&window);
        assert!((width(t) - want).abs() < 1e-3 * want, "{t}: {} not {want}", width(t));
    }
}

fn cases_with(period: u32) -> Vec<Case> {
    cases(Some(Periods { period, second: 3, third: 3 }))
}

fn same(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> bool {
    a.dim() == b.dim()
        && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
}

#[test]
fn live_values_equal_the_batch_bit_for_bit() {
    let gpu = gpu();
    let mut bars = walk(5, 230, 100.0, 0.01);
    bars.close[[1, 60]] = f64::NAN;
    bars.volume[[2, 61]] = f64::NAN;
    for (s, tick) in [(2, Tick::Candle), (3, Tick::Close), (4, Tick::Edge)] {
        for (t, factor) in [(40, 1000.0), (41, 0.001), (90, 0.001), (180, 1000.0)] {
            tick.strike(&mut bars, s, t, factor);
        }
    }
    for cases in [Selection::Defaults, Selection::Long].map(Selection::cases) {
        let indicators = all(&gpu, &cases);
        let whole = batch(&gpu, &indicators, &bars);
        // Without checks: those of all the state of registers take longer to compile than the kernel.
        let mut live = all(&unchecked_gpu(), &cases).live(5).expect("a live form");
        for round in 0..2 {
            let mut first = 0;
            for step in [1, 1, 7, 64, 65, 3].into_iter().chain(std::iter::repeat_n(1, 89)) {
                let cut = |values: &Array2<f64>| values.slice(s![.., first..first + step]).to_owned();
                let [high, low, close, volume] = [&bars.high, &bars.low, &bars.close, &bars.volume].map(cut);
                let values =
                    live.push(high.view(), low.view(), close.view(), Some(volume.view())).expect("a push");
                for name in whole.names() {
                    let want =
                        whole.get(name).expect("an output").slice(s![.., first..first + step]).to_owned();
                    let got = values.get(name).expect("an output");
                    assert!(same(got, want.view()), "round {round}, {name}, bar {first}: {got}, not {want}");
                }
                first += step;
            }
            assert_eq!(first, 230);
            live.reset();
        }
    }
}

#[test]
fn live_and_chunks_differ_below_the_digits_of_f32() {
    let gpu = gpu();
    let bars = walk(1, 6000, 100.0, 0.01);
    let indicators = Indicators::classic(&gpu);
    let whole = batch(&gpu, &indicators, &bars);
    let mut live = indicators.live(1).expect("a live form");
    let values = live.push(bars.high.view(), bars.low.view(), bars.close.view(), None).expect("a push");
    for name in whole.names() {
        let (a, b) = (whole.get(name).expect("an output"), values.get(name).expect("an output"));
        let own: Vec<f64> =
            b.iter().zip(&bars.close).map(|(x, c)| if is_price(name) { x - c } else { *x }).collect();
        let worst =
            a.iter().zip(b).filter(|(a, _)| !a.is_nan()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= 1e-6 * deviation(&own), "{name}: {worst:e} of {:e}", deviation(&own));
        assert_eq!(a.iter().filter(|x| x.is_nan()).count(), b.iter().filter(|x| x.is_nan()).count());
    }
}

#[test]
fn a_grid_of_parameters_is_one_dispatch_and_agrees_with_the_references() {
    let gpu = gpu();
    let bars = walk(3, 500, 100.0, 0.01);
    let series = upload(&gpu, &bars);
    let rsi = (2..=65).map(|period| Rsi { period });
    let bands = [5, 40, 120].map(|period| Bbands { period, deviations_up: 2.0, deviations_down: 2.5 });
    let panel = Indicators::new(&gpu)
        .grid(rsi.clone())
        .grid(bands.clone())
        .grid([10, 40].map(|period| Vwap { period }))
        .grid([20, 150].map(|period| Ema { period }))
        .panel(&series)
        .expect("a panel");
    assert_eq!(panel.commands().len(), 4, "one for each indicator");
    Recorder::new(&gpu).run(&panel.commands()).expect("a submission");
    let grid = panel.read(&gpu).expect("values");
    assert_eq!(grid.grid("rsi").expect("rsi").dim(), (64, 3, 500));
    let close = |n: usize, kind: &str, period: u32| {
        let mut cases = cases_with(period).into_iter();
        let case = cases.find(|case| case.name.starts_with(kind)).expect("the indicator");
        for s in 0..3 {
            for (name, want) in case.outputs.iter().zip(expected(&case, &bars, s)) {
                let got = grid.grid(name).expect("a grid");
                for (t, want) in want.into_iter().enumerate() {
                    let got = got[[n, s, t]];
                    let same = got.is_nan() == want.is_nan() && (got.is_nan() || (got - want).abs() < 1e-4);
                    assert!(same, "{name} of {period}, series {s}, bar {t}: {got}, not {want}");
                }
            }
        }
    };
    rsi.enumerate().for_each(|(n, rsi)| close(n, "Rsi", rsi.period));
    bands.iter().enumerate().for_each(|(n, bands)| close(n, "Bbands", bands.period));
    [10, 40].into_iter().enumerate().for_each(|(n, period)| close(n, "Vwap", period));
    [20, 150].into_iter().enumerate().for_each(|(n, period)| close(n, "Ema", period));
}

#[test]
fn every_series_can_have_separate_parameters() {
    let gpu = gpu();
    let bars = walk(3, 200, 100.0, 0.01);
    let periods = [3, 30, 60];
    let each = Indicators::new(&gpu).each_series(periods.map(|period| Sma { period }));
    let values = batch(&gpu, &each, &bars);
    let got = values.get("sma").expect("sma");
    for (s, period) in periods.into_iter().enumerate() {
        for t in 0..200 {
            if t + 1 < period as usize {
                assert!(got[[s, t]].is_nan());
                continue;
            }
            let want = bars.close.slice(s![s, t + 1 - period as usize..=t]).mean().expect("a mean");
            assert!((got[[s, t]] - want).abs() < 1e-5, "{s} {t}: {} not {want}", got[[s, t]]);
        }
    }
    let error = each.panel(&upload(&gpu, &walk(2, 50, 1.0, 0.01))).unwrap_err().to_string();
    assert!(error.contains("2, one for each") && error.contains('3'), "{error}");
}

#[test]
fn f16_outputs_are_the_f32_outputs_rounded() {
    let gpu = gpu();
    let bars = walk(2, 301, 100.0, 0.01);
    let wide = batch(&gpu, &Indicators::classic(&gpu), &bars);
    let series = upload(&gpu, &bars);
    let panel = Indicators::classic(&gpu).half().panel(&series).expect("a panel");
    Recorder::new(&gpu).run(&panel.commands()).expect("a submission");
    for name in wide.names() {
        let got: Vec<f16> = gpu.read(panel.buffer(name).expect("a buffer")).expect("values");
        assert!(got.len() >= 2 * series.stride() as usize);
        for ((s, t), want) in wide.get(name).expect("an output").indexed_iter() {
            let want = if is_price(name) { want - bars.close[[s, t]] } else { *want };
            let got = f64::from(got[s * series.stride() as usize + t]);
            // Half a unit in the last place, plus the rounding errors of the conversion to f64 prices.
            let allowed = want.abs() * 2f64.powi(-11) + 1e-6;
            assert!(
                got.is_nan() == want.is_nan() && (got.is_nan() || (got - want).abs() <= allowed),
                "{name}: {got}, {want}"
            );
        }
    }
    assert!(panel.bytes() < Indicators::classic(&gpu).panel(&series).expect("a panel").bytes() * 6 / 10);
}

#[test]
fn outputs_can_be_written_to_buffers_of_the_caller() {
    let gpu = gpu();
    let bars = walk(2, 50, 100.0, 0.01);
    let series = upload(&gpu, &bars);
    let own = gpu.upload("mine", &vec![7f32; 2 * 52]).expect("a buffer");
    let indicators = Indicators::new(&gpu)
        .with(Rsi::default())
        .with(Macd::default())
        .with(Sma { period: 3 })
        .named("fast");
    let error =
        indicators.panel_into(&series, &[("rsi", &own), ("fast", &own.clone())]).unwrap_err().to_string();
    assert!(error.contains("fast") && error.contains("given twice"), "{error}");
    let panel = indicators.panel_into(&series, &[("rsi", &own)]).expect("a panel");
    assert_eq!(panel.names().collect::<Vec<_>>(), ["rsi", "macd", "macd_signal", "macd_hist", "fast"]);
    Recorder::new(&gpu).run(&panel.commands()).expect("a submission");
    let rsi: Vec<f32> = gpu.read(&own).expect("values");
    assert!(rsi[13].is_nan() && (0.0..=100.0).contains(&rsi[14]) && (0.0..=100.0).contains(&rsi[52 + 49]));
    let small = gpu.upload("small", &[0f32; 50]).expect("a buffer");
    let error = indicators.panel_into(&series, &[("rsi", &small)]).unwrap_err().to_string();
    assert!(error.contains("rsi") && error.contains("416"), "{error}");
    let error = indicators.panel_into(&series, &[("sma", &own)]).unwrap_err().to_string();
    assert!(error.contains("sma") && error.contains("fast"), "{error}");
}

#[test]
fn errors_name_the_mistake() {
    let gpu = gpu();
    let bars = walk(1, 50, 100.0, 0.01);
    let [high, low, close] = [&bars.high, &bars.low, &bars.close].map(|x| x.view());
    let series = Series::upload(&gpu, high, low, close).expect("an upload");
    let fails = |indicators: Indicators, parts: [&str; 2]| {
        let error = indicators.panel(&series).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        // The live version detects missing volumes at its first bar.
        assert!(error.contains("volume") || indicators.live(1).is_err(), "live takes it: {error}");
    };
    let new = || Indicators::new(&gpu);
    fails(new(), ["indicators", "at least one, got 0"]);
    fails(new().with(Rsi { period: 1 }), ["rsi.period", "between 2 and 100000"]);
    fails(new().with(Macd { fast: 26, ..Macd::default() }), ["macd.fast", "below macd.slow, which is 26"]);
    fails(
        new().with(Bbands { deviations_up: f64::NAN, ..Bbands::default() }),
        ["bbands.deviations_up", "above 0"],
    );
    fails(new().with(Sma { period: 5 }).with(Sma { period: 9 }), ["sma", "`named`"]);
    fails(new().with(Obv::default()), ["volume", "the series has none"]);
    fails(new().grid(Vec::<Rsi>::new()), ["without parameter sets", "at least one"]);
    if gpu.class() == Class::Software {
        fails(new().with(Cci { period: 100_000 }), ["cci", "too long for llvmpipe"]);
    }
    let mut live = new().with(Rsi::default()).live(2).expect("a live form");
    let error = live.push(high, low, close, None).unwrap_err().to_string();
    assert!(error.contains("high prices") && error.contains("(2, 50)"), "{error}");
}

#[test]
fn the_classic_six_are_one_reproducible_dispatch() {
    let gpu = gpu();
    let bars = walk(9, 777, 100.0, 0.01);
    let series = upload(&gpu, &bars);
    let panel = Indicators::classic(&gpu).panel(&series).expect("a panel");
    assert_eq!(panel.commands().len(), 1);
    assert_eq!(panel.names().count(), 11);
    assert_eq!(Indicators::classic(&gpu).warm_up().expect("parameters"), 33);
    let mut recorder = Recorder::new(&gpu);
    recorder.run(&panel.commands()).expect("a submission");
    let first = panel.read(&gpu).expect("values");
    recorder.run(&panel.commands()).expect("a submission");
    let second = panel.read(&gpu).expect("values");
    assert!(first.names().all(|name| same(first.get(name).unwrap(), second.get(name).unwrap())));
}

/// No bit of a value depends on later bars.
#[test]
fn later_bars_do_not_change_earlier_values() {
    let gpu = gpu();
    let mut bars = walk(2, 180, 100.0, 0.01);
    let indicators = all(&gpu, &cases(None));
    let before = batch(&gpu, &indicators, &bars);
    bars.close.slice_mut(s![.., 120..]).fill(1e6);
    bars.high.slice_mut(s![.., 120..]).fill(2e6);
    bars.volume.slice_mut(s![.., 120..]).fill(1e12);
    let after = batch(&gpu, &indicators, &bars);
    for name in before.names() {
        let [a, b] = [&before, &after].map(|values| values.get(name).expect("an output"));
        assert!(same(a.slice(s![.., ..120]), b.slice(s![.., ..120])), "{name}");
        assert!(!same(a, b), "{name} sees nothing");
    }
}
