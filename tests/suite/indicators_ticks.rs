//! Indicators around bad ticks: no digit of a value depends on a price that it does not contain.

use std::path::Path;

use ndarray::{Array2, s};
use phalanx::indicators::{Donchian, Indicators, Mom, Values};
use phalanx::market::{Candles, GapPolicy};
use proptest::prelude::*;

use crate::common::oracle::{Bars, LONG, Periods, SHORT, cases};
use crate::common::panels::{Tick, all, batch, walk};
use crate::testing::{both_classes, gpu};

/// `tests/fixtures/bad_tick.csv`: the fourth of seven bars is 1000 times as high as the others.
fn fixture() -> Bars {
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/bad_tick.csv"));
    let candles = Candles::load(&[file], GapPolicy::Reject).expect("candles");
    Bars {
        high: candles.high,
        low: candles.low,
        close: candles.close,
        volume: candles.volume.expect("volumes"),
    }
}

#[test]
fn a_price_1000_times_as_high_costs_other_bars_no_digits() {
    let bars = fixture();
    let (mom, lower) = ([98_012.26, 0.08, 0.09, -98_012.08], [98.11, 98.17, 98.17, 98.26]);
    for gpu in both_classes() {
        let indicators = Indicators::new(&gpu).with(Mom { period: 3 }).with(Donchian { period: 4 });
        let mut live = indicators.live(1).expect("a live form");
        let [high, low, close] = [&bars.high, &bars.low, &bars.close].map(|x| x.view());
        for values in [batch(&gpu, &indicators, &bars), live.push(high, low, close, None).expect("a push")] {
            let get = |name: &str, t: usize| values.get(name).expect("an output")[[0, 3 + t]];
            for t in 0..4 {
                assert!((get("mom", t) - mom[t]).abs() <= 1e-7 * mom[t].abs(), "mom {}", get("mom", t));
                let got = get("dc_lower", t);
                assert!((got - lower[t]).abs() <= 1e-7 * lower[t], "dc_lower {got}, not {}", lower[t]);
                let (got, upper) = (get("dc_upper", t), 98_110.37);
                assert!((got - upper).abs() <= 1e-7 * upper, "dc_upper {got}, not {upper}");
            }
        }
    }
}

/// A value and the largest error that f32 justifies.
struct Bound(f64, f64);

/// Rounding errors of one f32, with a margin for the few of a formula; and of a price on the device.
const DIGITS: f64 = 2.4e-7;
const PRICE: f64 = 8e-15;

/// Differences, extremes and averages of prices at bar t of a series, with the precision that the f32 of each allows.
fn bounds(bars: &Bars, s: usize, t: usize, n: usize, k: usize) -> Vec<(&'static str, Bound)> {
    let (high, low, close) = (bars.high.row(s), bars.low.row(s), bars.close.row(s));
    let now = close[t];
    // Highs and lows are uploaded as the distance from their close or as a price.
    let edge = |price: f64, j: usize| {
        Bound(price, DIGITS * price.abs().min((price - close[j]).abs()) + PRICE * close[j])
    };
    let highest = |n: usize| {
        let j = (t + 1 - n..=t).max_by(|a, b| high[*a].total_cmp(&high[*b])).expect("a bar");
        edge(high[j], j)
    };
    let lowest = |n: usize| {
        let j = (t + 1 - n..=t).min_by(|a, b| low[*a].total_cmp(&low[*b])).expect("a bar");
        edge(low[j], j)
    };
    let ratio = |top: Bound, bottom: Bound| {
        let value = if bottom.0 == 0.0 { 0.0 } else { top.0 / bottom.0 };
        let error = (top.1 + value.abs() * bottom.1) / bottom.0.abs().max(f64::MIN_POSITIVE);
        Bound(value, error + DIGITS * value.abs())
    };
    let minus = |a: &Bound, b: &Bound| Bound(a.0 - b.0, a.1 + b.1 + DIGITS * (a.0 - b.0).abs());
    let exact = |price: f64| Bound(price, PRICE * price);
    let points = |b: Bound| Bound(100.0 * b.0, 100.0 * b.1);
    let mut all = Vec::new();
    if t >= n {
        let before = close[t - n];
        all.push(("mom", minus(&exact(now), &exact(before))));
        all.push(("roc", points(ratio(minus(&exact(now), &exact(before)), exact(before)))));
        // WGSL's logarithm has an absolute error of 2^-21.
        let change = ratio(minus(&exact(now), &exact(before)), exact(before));
        let least = if change.0.abs() > 0.03 { 5e-7 } else { 0.0 };
        all.push(("log_return", Bound((now / before).ln(), 2.0 * change.1 / (1.0 + change.0) + least)));
    }
    let output = |name, b: &Bound| (name, Bound(b.0, b.1 + DIGITS * b.0.abs().min((b.0 - now).abs())));
    if t + 1 >= n {
        let (upper, lower) = (highest(n), lowest(n));
        all.push(output("dc_upper", &upper));
        all.push(output("dc_lower", &lower));
        let widest = (upper.0 - now).abs().max((lower.0 - now).abs());
        let middle = DIGITS * upper.0.abs().max(lower.0.abs()).min(widest);
        all.push(("dc_middle", Bound((upper.0 + lower.0) / 2.0, upper.1 + lower.1 + middle)));
    }
    if t + 1 >= n.max(2) {
        let (upper, lower) = (highest(n.max(2)), lowest(n.max(2)));
        let willr = points(ratio(minus(&upper, &exact(now)), minus(&upper, &lower)));
        all.push(("willr", Bound(-willr.0, willr.1)));
    }
    if t + 1 >= k {
        let (upper, lower) = (highest(k), lowest(k));
        all.push(("stoch_k", points(ratio(minus(&exact(now), &lower), minus(&upper, &lower)))));
    }
    for (name, weight) in [("ema", 2.0 / (n.max(2) as f64 + 1.0)), ("rma", 1.0 / n.max(2) as f64)] {
        let n = n.max(2);
        if t + 1 >= n {
            // Relative to the close; `size` is the same average of absolute values.
            let average = |value: &dyn Fn(f64) -> f64| {
                let first = (0..n).map(|j| value(close[j] - now)).sum::<f64>() / n as f64;
                (n..=t).fold(first, |average, j| average + (value(close[j] - now) - average) * weight)
            };
            let (value, size) = (average(&|x| x), average(&f64::abs));
            all.push((name, Bound(now + value, 4.0 * DIGITS * size + PRICE * now)));
        }
    }
    all
}

fn first_difference(
    a: &Values,
    b: &Values,
    name: &str,
    s: usize,
    bars: std::ops::Range<usize>,
) -> Option<usize> {
    let [a, b] = [a, b].map(|values| values.get(name).expect("an output").row(s).to_vec());
    bars.into_iter().find(|t| a[*t].to_bits() != b[*t].to_bits() && !(a[*t].is_nan() && b[*t].is_nan()))
}

const BARS: usize = 230;

#[derive(Debug)]
struct Struck {
    periods: Option<Periods>,
    clean: Bars,
    bars: Bars,
    /// Bars with a bad tick, by series.
    ticks: [Vec<usize>; 2],
}

prop_compose! {
    fn struck()(
        which in 0usize..3,
        level in -3.0f64..5.0,
        volatility in -4.0f64..-1.5,
        ticks in prop::collection::vec((0usize..2, 0usize..BARS, 0usize..3, any::<bool>()), 1..5),
    ) -> Struck {
        let clean = walk(2, BARS, 10f64.powf(level), 10f64.powf(volatility));
        let mut bars = clean.clone();
        let mut at = [vec![], vec![]];
        for (s, t, tick, up) in ticks {
            let tick = [Tick::Candle, Tick::Close, Tick::Edge][tick];
            tick.strike(&mut bars, s, t, if up { 1000.0 } else { 0.001 });
            at[s].push(t);
        }
        Struck { periods: [None, Some(SHORT), Some(LONG)][which], clean, bars, ticks: at }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn bad_ticks_cost_no_digits(struck in struck()) {
        let gpu = gpu();
        let cases = cases(struck.periods);
        let indicators = all(&gpu, &cases);
        let values = batch(&gpu, &indicators, &struck.bars);
        for s in 0..2 {
            for t in 0..BARS {
                // The defaults differ between indicators: momentum and ROC 10, log return 1, %R 14, Donchian 20 ...
                let of = |name: &str| match (struck.periods, name) {
                    (Some(periods), _) => periods.period as usize,
                    (None, "mom" | "roc") => 10,
                    (None, "log_return") => 1,
                    (None, "willr" | "stoch_k" | "rma") => 14,
                    (None, "ema") => 30,
                    (None, _) => 20,
                };
                for name in ["mom", "roc", "log_return", "willr", "stoch_k", "rma", "ema", "dc_upper", "dc_middle", "dc_lower"] {
                    let n = of(name);
                    let found = bounds(&struck.bars, s, t, n, n).into_iter().find(|(own, _)| *own == name);
                    let got = values.get(name).expect("an output")[[s, t]];
                    match found {
                        Some((_, Bound(want, allowed))) if !got.is_nan() => prop_assert!(
                            (got - want).abs() <= allowed,
                            "{name}({n}), series {s}, bar {t}: {got}, not {want}: {:e} > {allowed:e}", (got - want).abs()
                        ),
                        found => prop_assert!(found.is_none() || (name == "stoch_k" && t < 100), "{name}, bar {t}: {got}"),
                    }
                }
            }
        }
        // Windows that contain no tick see nothing of it.
        let clean = batch(&gpu, &indicators, &struck.clean);
        for case in &cases {
            let Some(window) = case.window() else { continue };
            for (s, ticks) in struck.ticks.iter().enumerate() {
                let touched = |t: usize| ticks.iter().any(|tick| (*tick..*tick + window as usize).contains(&t));
                for t in (0..BARS).filter(|t| !touched(*t)) {
                    for name in &case.outputs {
                        let same = first_difference(&values, &clean, name, s, t..t + 1).is_none();
                        prop_assert!(same, "{} {name}, series {s}, bar {t}, ticks {ticks:?}", case.name);
                    }
                }
            }
        }
    }
}

/// Live values equal those of the batch around bad ticks, bit for bit.
#[test]
fn live_values_equal_the_batch_around_bad_ticks() {
    let gpu = gpu();
    let mut bars = walk(3, BARS, 100.0, 0.01);
    for (s, tick) in [Tick::Candle, Tick::Close, Tick::Edge].into_iter().enumerate() {
        for (t, factor) in [(40, 1000.0), (41, 0.001), (90, 0.001), (180, 1000.0)] {
            tick.strike(&mut bars, s, t, factor);
        }
    }
    for periods in [None, Some(LONG)] {
        let indicators = all(&gpu, &cases(periods));
        let whole = batch(&gpu, &indicators, &bars);
        let mut live = indicators.live(3).expect("a live form");
        for first in (0..BARS).step_by(23) {
            let cut = |values: &Array2<f64>| values.slice(s![.., first..first + 23]).to_owned();
            let [high, low, close, volume] = [&bars.high, &bars.low, &bars.close, &bars.volume].map(cut);
            let values =
                live.push(high.view(), low.view(), close.view(), Some(volume.view())).expect("a push");
            for name in whole.names() {
                let (got, want) = (values.get(name).expect("an output"), whole.get(name).expect("an output"));
                for ((s, t), got) in got.indexed_iter() {
                    let want = want[[s, first + t]];
                    let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                    assert!(same, "{name}, series {s}, bar {}: {got}, not {want}", first + t);
                }
            }
        }
    }
}
