//! Indicators around bad ticks: no digit of a value depends on a price that it does not contain.

use std::path::Path;

use phalanx::indicators::{Average, Donchian, Indicators, Mom, Values};
use phalanx::market::{Candles, GapPolicy};
use proptest::prelude::*;

use crate::common::oracle::{Bars, Case, Selection, expected};
use crate::common::panels::{Tick, all, batch, walk};
use crate::indicators_properties::selections;
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

impl Bound {
    fn minus(&self, other: &Self) -> Self {
        let value = self.0 - other.0;
        Self(value, self.1 + other.1 + DIGITS * value.abs())
    }

    fn over(&self, other: &Self, factor: f64) -> Self {
        let value = if other.0 == 0.0 { 0.0 } else { self.0 / other.0 };
        let error = (self.1 + value.abs() * other.1) / other.0.abs().max(f64::MIN_POSITIVE);
        Self(factor * value, factor.abs() * (error + DIGITS * value.abs()))
    }
}

/// The outputs of a case at bar t that are differences, extremes or averages of prices, with the precision that the f32 of each
/// allows. None before the first valid bar.
fn bounds(case: &Case, bars: &Bars, s: usize, t: usize) -> Vec<(&'static str, Bound)> {
    if t < case.spec.first as usize {
        return vec![];
    }
    let (high, low, close) = (bars.high.row(s), bars.low.row(s), bars.close.row(s));
    let exact = |t: usize| Bound(close[t], PRICE * close[t]);
    // Highs and lows are uploaded as the distance from their close or as a price.
    let edge = |price: f64, j: usize| {
        Bound(price, DIGITS * price.abs().min((price - close[j]).abs()) + PRICE * close[j])
    };
    let length = case.spec.windows.first().map_or(0, |window| window.length as usize);
    let window = || t + 1 - length..=t;
    let highest = || edge_at(window(), |a, b| high[a] > high[b], |j| edge(high[j], j));
    let lowest = || edge_at(window(), |a, b| low[a] < low[b], |j| edge(low[j], j));
    let (first, now) = (case.outputs[0], exact(t));
    match first {
        "mom" => vec![(first, now.minus(&exact(t - length)))],
        "roc" => vec![(first, now.minus(&exact(t - length)).over(&exact(t - length), 100.0))],
        "log_return" => {
            let change = now.minus(&exact(t - length)).over(&exact(t - length), 1.0);
            // WGSL's logarithm has an absolute error of 2^-21.
            let least = if change.0.abs() > 0.03 { 5e-7 } else { 0.0 };
            vec![(first, Bound((now.0 / close[t - length]).ln(), 2.0 * change.1 / (1.0 + change.0) + least))]
        }
        "dc_upper" => {
            let (upper, lower) = (highest(), lowest());
            let output = |b: &Bound| Bound(b.0, b.1 + DIGITS * b.0.abs().min((b.0 - now.0).abs()));
            let middle =
                Bound((upper.0 + lower.0) / 2.0, upper.1 + lower.1 + DIGITS * upper.0.min(upper.0 - lower.0));
            vec![("dc_upper", output(&upper)), ("dc_middle", middle), ("dc_lower", output(&lower))]
        }
        "willr" => vec![(first, highest().minus(&now).over(&highest().minus(&lowest()), -100.0))],
        "stoch_k" => vec![(first, now.minus(&lowest()).over(&highest().minus(&lowest()), 100.0))],
        "ema" | "rma" => {
            let Average { period, weight, .. } = case.spec.averages[0];
            // Relative to the close; `size` is the same average of absolute values.
            let average = |value: &dyn Fn(f64) -> f64| {
                let n = period as usize;
                let first = (0..n).map(|j| value(close[j] - now.0)).sum::<f64>() / f64::from(period);
                (n..=t).fold(first, |average, j| average + (value(close[j] - now.0) - average) * weight)
            };
            let (value, size) = (average(&|x| x), average(&f64::abs));
            // A few roundings for every value that is still remembered, and one for each of the sum that begins the average.
            let roundings = 1.0 / weight + f64::from(period) / 4.0;
            vec![(first, Bound(now.0 + value, DIGITS * size * roundings + now.1))]
        }
        _ => vec![],
    }
}

/// An indicator that sums what depends on ticks, in f64, and the largest error that f32 justifies: a few roundings of the largest
/// number in its window, or of all numbers so far where it never forgets.
fn sums(case: &Case, bars: &Bars, s: usize) -> Vec<(&'static str, Vec<Bound>)> {
    let (high, low, close, volume) =
        (bars.high.row(s), bars.low.row(s), bars.close.row(s), bars.volume.row(s));
    let range = |t: usize| {
        let before = close[t.saturating_sub(1)];
        (high[t] - low[t]).max((high[t] - before).abs()).max((low[t] - before).abs())
    };
    // The largest distance of a close from that of bar t, in the window of `length` bars.
    let distance = |t: usize, length: usize| {
        let window = (t + 1).saturating_sub(length)..=t;
        window.map(|j| (close[j] - close[t]).abs()).fold(0.0, f64::max)
    };
    let name = case.outputs[0];
    let size: Box<dyn Fn(usize) -> f64> = match name {
        "sma" | "wma" => {
            let length = case.spec.memory.unwrap_or(1) as usize;
            Box::new(move |t| 2.0 * distance(t, length) + PRICE / DIGITS * close[t])
        }
        "obv" => Box::new(move |t| (0..=t).map(|j| volume[j].abs()).sum()),
        // Wilder's average: a tick decays as its weight does, and so do the roundings that it caused.
        "atr" => {
            let weight = case.spec.averages[0].weight;
            let decay = move |t: usize, j: usize| (1.0 - weight).powi((t - j) as i32);
            Box::new(move |t| (0..=t).map(|j| range(j) * decay(t, j)).sum::<f64>())
        }
        _ => return vec![],
    };
    let wanted = expected(case, bars, s).swap_remove(0);
    vec![(name, wanted.into_iter().enumerate().map(|(t, want)| Bound(want, DIGITS * size(t))).collect())]
}

/// The value at the best of some bars.
fn edge_at<T>(
    bars: std::ops::RangeInclusive<usize>,
    better: impl Fn(usize, usize) -> bool,
    value: impl Fn(usize) -> T,
) -> T {
    value(bars.reduce(|best, j| if better(j, best) { j } else { best }).expect("a bar"))
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
    selection: Selection,
    clean: Bars,
    bars: Bars,
    /// Bars with a bad tick, by series.
    ticks: [Vec<usize>; 2],
}

prop_compose! {
    fn struck()(
        selection in selections(),
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
        Struck { selection, clean, bars, ticks: at }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn bad_ticks_cost_no_digits(struck in struck()) {
        let gpu = gpu();
        let cases = struck.selection.cases();
        let indicators = all(&gpu, &cases);
        let values = batch(&gpu, &indicators, &struck.bars);
        for case in &cases {
            for (s, t) in (0..2).flat_map(|s| (0..BARS).map(move |t| (s, t))) {
                for (name, Bound(want, allowed)) in bounds(case, &struck.bars, s, t) {
                    let got = values.get(name).expect("an output")[[s, t]];
                    let error = (got - want).abs();
                    prop_assert!(error <= allowed, "{} {name}, series {s}, bar {t}: {got}, not {want}: {error:e} > {allowed:e}", case.name);
                }
            }
        }
        for (case, s) in cases.iter().flat_map(|case| (0..2).map(move |s| (case, s))) {
            for (name, bounds) in sums(case, &struck.bars, s) {
                for (t, Bound(want, allowed)) in bounds.into_iter().enumerate().filter(|(_, bound)| bound.0.is_finite()) {
                    let got = values.get(name).expect("an output")[[s, t]];
                    let error = (got - want).abs();
                    prop_assert!(error <= allowed, "{} {name}, series {s}, bar {t}: {got}, not {want}: {error:e} > {allowed:e}", case.name);
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
