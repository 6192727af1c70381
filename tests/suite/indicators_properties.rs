//! Random panels against TA-Lib and f64 formulas, and real candles against TA-Lib's Python wheel.

use std::collections::HashMap;
use std::path::Path;

use flate2::read::GzDecoder;
use ndarray::s;
use phalanx::indicators::{Donchian, Ema, Indicators, NAMES, Sma, Willr, parse};
use phalanx::market::{Candles, GapPolicy};
use proptest::prelude::*;

use crate::common::oracle::{Bars, Periods, Selection, cases, deviation, expected};
use crate::common::panels::{all, allowed, batch, is_price, walk, worst};
use crate::testing::gpu;

#[derive(Debug)]
struct Panel {
    selection: Selection,
    bars: Bars,
    volatility: f64,
}

/// The shared selections, whose kernels are compiled once; in `make test-nightly` also new periods in most cases.
pub fn selections() -> BoxedStrategy<Selection> {
    let shared = prop::sample::select(Selection::ALL.to_vec());
    match std::env::var_os("PHALANX_CHECKED") {
        None => shared.boxed(),
        Some(_) => prop_oneof![1 => shared, 3 => any::<u64>().prop_map(Selection::Mixed)].boxed(),
    }
}

prop_compose! {
    fn panel()(
        selection in selections(),
        series in 1usize..6,
        length in 1usize..400,
        level in -4.0f64..6.0,
        volatility in -5.0f64..-1.0,
        missing in prop::collection::vec((0usize..6, 0usize..400, 0usize..4, 0usize..3), 0..6),
    ) -> Panel {
        let volatility = 10f64.powf(volatility);
        let mut bars = walk(series, length, 10f64.powf(level), volatility);
        for (s, t, column, kind) in missing {
            let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][kind];
            let columns = [&mut bars.high, &mut bars.low, &mut bars.close, &mut bars.volume];
            if let Some(value) = columns.into_iter().nth(column).and_then(|values| values.get_mut([s, t])) {
                *value = bad;
            }
        }
        Panel { selection, bars, volatility }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn random_panels_agree(panel in panel()) {
        let cases = panel.selection.cases();
        let gpu = gpu();
        let values = batch(&gpu, &all(&gpu, &cases), &panel.bars);
        for case in &cases {
            for (name, worst) in case.outputs.iter().zip(worst(&values, case, &panel.bars, panel.volatility)) {
                // The stochastic of two nearly equal RSI values is dominated by rounding.
                let near = name.starts_with("stochrsi") && matches!(panel.selection, Selection::Defaults);
                // The flow of a bar whose typical price f32 cannot tell from the one before has either sign.
                let near = near || *name == "mfi" && has_tied_typical_prices(&panel.bars);
                prop_assert!(near || worst < allowed(case, name), "{} {name}: {worst:e}", case.name);
            }
        }
    }
}

/// Whether two consecutive typical prices are equal but for the rounding of f32.
fn has_tied_typical_prices(bars: &Bars) -> bool {
    let typical = &bars.high + &bars.low + &bars.close;
    typical.rows().into_iter().any(|row| {
        row.windows(2)
            .into_iter()
            .any(|pair| (pair[0] - pair[1]).abs() <= 4.0 * f64::from(f32::EPSILON) * pair[0])
    })
}

/// The last periods whose windows lie in registers, the last whose averages need no compensation, and the next ones.
#[test]
fn both_sides_of_the_limits_of_periods_agree() {
    let gpu = gpu();
    let bars = walk(2, 350, 30.0, 0.01);
    let mut indicators = Indicators::new(&gpu);
    for period in [32, 33, 100, 101] {
        indicators = indicators.with(Ema { period }).named(&format!("ema{period}"));
        indicators = indicators.with(Sma { period }).named(&format!("sma{period}"));
        indicators = indicators.with(Willr { period }).named(&format!("willr{period}"));
    }
    let values = batch(&gpu, &indicators, &bars);
    for (kind, least) in [("ema", 30.0), ("sma", 30.0), ("willr", 100.0)] {
        for period in [32, 33, 100, 101] {
            let name = format!("{kind}{period}");
            let got = values.get(&name).unwrap();
            let cases = cases(Some(Periods { period, second: 1, third: 1 }));
            let case = cases.iter().find(|case| case.outputs == [kind]).unwrap();
            for s in 0..2 {
                for (t, want) in expected(case, &bars, s).swap_remove(0).into_iter().enumerate() {
                    let got = got[[s, t]];
                    let same =
                        got.is_nan() == want.is_nan() && (got.is_nan() || (got - want).abs() < 1e-6 * least);
                    assert!(same, "{name}, series {s}, bar {t}: {got}, not {want}");
                }
            }
        }
    }
}

/// Windows of extremes in registers are trees whose shape depends on the period.
#[test]
fn extremes_agree_at_any_number_of_levels() {
    let gpu = gpu();
    let bars = walk(2, 90, 30.0, 0.01);
    let periods = [1, 2, 3, 4, 7, 8, 17, 32];
    let indicators = periods.iter().fold(Indicators::new(&gpu), |indicators, period| {
        indicators.with(Donchian { period: *period }).named(&format!("dc{period}"))
    });
    let values = batch(&gpu, &indicators, &bars);
    for period in periods {
        let mut cases = cases(Some(Periods { period, second: 1, third: 1 })).into_iter();
        let case = cases.find(|case| case.name.starts_with("Donchian")).unwrap();
        for s in 0..2 {
            for (name, want) in case.outputs.iter().zip(expected(&case, &bars, s)) {
                let got = values.get(&format!("dc{period}_{name}")).unwrap();
                for (t, want) in want.into_iter().enumerate() {
                    let got = got[[s, t]];
                    let same = got.is_nan() == want.is_nan() && (got.is_nan() || (got - want).abs() < 1e-6);
                    assert!(same, "{name} of {period}, series {s}, bar {t}: {got}, not {want}");
                }
            }
        }
    }
}

/// `tests/fixtures/indicators.py` generates the fixture.
#[test]
fn values_equal_the_python_wheel_on_real_candles() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let candles = Candles::load(&[root.join("examples/data/us4_daily.csv.gz")], GapPolicy::Reject).unwrap();
    let first = candles.symbols.iter().enumerate().min_by_key(|(_, symbol)| *symbol).unwrap().0;
    let cut = |values: &ndarray::Array2<f64>| values.slice(s![first..=first, ..]).to_owned();
    let bars = Bars {
        high: cut(&candles.high),
        low: cut(&candles.low),
        close: cut(&candles.close),
        volume: cut(candles.volume.as_ref().unwrap()),
    };
    let gpu = gpu();
    // The cases have the defaults, which `parse` gives too, and share their kernels with other tests.
    let cases = cases(None);
    for (name, case) in NAMES.iter().zip(&cases) {
        let parsed = parse(name).unwrap().spec().unwrap();
        assert_eq!(case.spec, parsed, "{name}");
    }
    let values = batch(&gpu, &all(&gpu, &cases), &bars);
    let at: HashMap<String, usize> =
        candles.timestamps.iter().enumerate().map(|(t, stamp)| (stamp.date().to_string(), t)).collect();
    let file = std::fs::File::open(root.join("tests/fixtures/indicators.csv.gz")).unwrap();
    let mut reader = csv::Reader::from_reader(GzDecoder::new(file));
    let names: Vec<String> = reader.headers().unwrap().iter().skip(1).map(str::to_string).collect();
    let mut compared = 0;
    let mut worst = vec![0f64; names.len()];
    for row in reader.records() {
        let row = row.unwrap();
        let t = at[&row[0]];
        for ((name, want), worst) in names.iter().zip(row.iter().skip(1)).zip(&mut worst) {
            let all = values.get(name).unwrap_or_else(|| panic!("no {name}"));
            let got = all[[0, t]];
            assert_eq!(got.is_nan(), want.is_empty(), "{name} at {}: {got} for `{want}`", &row[0]);
            if got.is_nan() {
                continue;
            }
            let want: f64 = want.parse().unwrap();
            let own: Vec<f64> = all
                .row(0)
                .iter()
                .zip(bars.close.row(0))
                .map(|(x, close)| if is_price(name) { x - close } else { *x })
                .collect();
            *worst = worst.max((got - want).abs() / deviation(&own));
            compared += 1;
        }
    }
    for (name, worst) in names.iter().zip(&worst) {
        println!("{name:14} {worst:9.1e} deviations");
        assert!(*worst < 1e-4, "{name}: {worst:e}");
    }
    assert!(compared > 5000, "{compared} values");
}
