//! Compares panels of indicators with their references.

use ndarray::Array2;
use phalanx::gpu::{Gpu, Recorder};
use phalanx::indicators::{Indicators, Series, Values};
use phalanx::random::Stream;

use super::oracle::{Bars, Case, deviation, expected, typical_size};

pub fn upload(gpu: &Gpu, bars: &Bars) -> Series {
    let [high, low, close, volume] = [&bars.high, &bars.low, &bars.close, &bars.volume].map(|x| x.view());
    Series::with_volume(gpu, high, low, close, volume).expect("an upload")
}

pub fn all(gpu: &Gpu, cases: &[Case]) -> Indicators {
    cases.iter().fold(Indicators::new(gpu), |indicators, case| (case.add)(indicators))
}

pub fn batch(gpu: &Gpu, indicators: &Indicators, bars: &Bars) -> Values {
    let panel = indicators.panel(&upload(gpu, bars)).expect("a panel");
    Recorder::new(gpu).run(&panel.commands()).expect("a submission");
    panel.read(gpu).expect("values")
}

/// Random walks with the given level and volatility, whose close lies anywhere between low and high.
pub fn walk(series: usize, bars: usize, level: f64, volatility: f64) -> Bars {
    let mut stream = Stream::new(series as u64 * 31 + bars as u64, 9);
    let [mut high, mut low, mut close, mut volume] = [0; 4].map(|_| Array2::zeros((series, bars)));
    for s in 0..series {
        let mut price = level;
        for t in 0..bars {
            let before = price;
            price *= (volatility * stream.normal()).exp();
            let above = volatility * stream.normal().abs();
            high[[s, t]] = before.max(price) * (1.0 + above);
            low[[s, t]] = before.min(price) / (1.0 + volatility * stream.normal().abs());
            close[[s, t]] = price;
            volume[[s, t]] = 1e5 * (1.0 + 0.5 * stream.normal()).abs();
        }
    }
    Bars { high, low, close, volume }
}

/// A bad tick: the part of a candle that is multiplied.
#[derive(Clone, Copy, Debug)]
pub enum Tick {
    /// Open, high, low and close.
    Candle,
    /// The close, and with it the high or low that it exceeds.
    Close,
    /// The high, or with a factor below 1 the low.
    Edge,
}

impl Tick {
    pub fn strike(self, bars: &mut Bars, s: usize, t: usize, factor: f64) {
        let [high, low, close] = [&mut bars.high, &mut bars.low, &mut bars.close].map(|x| &mut x[[s, t]]);
        match self {
            Self::Candle => [high, low, close].map(|price| *price *= factor),
            Self::Close => {
                *close *= factor;
                *high = high.max(*close);
                *low = low.min(*close);
                [(); 3]
            }
            Self::Edge => {
                *if factor > 1.0 { high } else { low } *= factor;
                [(); 3]
            }
        };
    }
}

/// Largest error of every output of a case, in points or in standard deviations of the output relative to its close. Asserts
/// that outputs are NaN exactly where the reference is.
pub fn worst(values: &Values, case: &Case, bars: &Bars, volatility: f64) -> Vec<f64> {
    let mut worst = vec![0f64; case.outputs.len()];
    for s in 0..bars.close.nrows() {
        for ((name, want), worst) in case.outputs.iter().zip(expected(case, bars, s)).zip(&mut worst) {
            let got = values.get(name).expect("the output");
            let price = is_price(name);
            let close = |t: usize| if price { bars.close[[s, t]] } else { 0.0 };
            let own: Vec<f64> = want.iter().enumerate().map(|(t, x)| x - close(t)).collect();
            let closes = bars.close.row(s).into_iter().filter(|close| close.is_finite());
            let least = closes.copied().fold(f64::INFINITY, f64::min);
            let unit = deviation(&own).max(0.1 * typical_size(name, least, volatility));
            let unit = if case.points { 1.0 } else { unit };
            for (t, want) in want.iter().enumerate() {
                let got = got[[s, t]];
                let same = got.is_nan() == want.is_nan();
                assert!(same, "{} {name}, series {s}, bar {t}: {got}, not {want}", case.name);
                if got != *want && !want.is_nan() {
                    *worst = worst.max((got - want).abs() / unit);
                }
            }
        }
    }
    worst
}

pub fn is_price(name: &str) -> bool {
    ["sma", "ema", "rma", "wma", "vwap"].contains(&name)
        || ["bb_", "dc_", "kc_"].iter().any(|start| name.starts_with(start))
}

/// Largest error allowed in a property test.
pub fn allowed(case: &Case, name: &str) -> f64 {
    match (case.points, name.starts_with("stochrsi")) {
        // A ratio of differences of RSI values.
        (true, true) => 0.1,
        (true, false) => 1e-2,
        _ => 1e-3,
    }
}
