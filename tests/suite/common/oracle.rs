//! Reference indicators in f64: TA-Lib's official Rust crate if it has the indicator, otherwise the formula.

use std::collections::VecDeque;
use std::ops::Range;

use ndarray::Array2;
use phalanx::indicators::*;
use phalanx::random::Stream;
use ta_lib::{Core, MAType, OutRange, RetCode};

/// Candles with volumes, `[series][bars]`.
#[derive(Clone, Debug)]
pub struct Bars {
    pub high: Array2<f64>,
    pub low: Array2<f64>,
    pub close: Array2<f64>,
    pub volume: Array2<f64>,
}

/// A range of bars of one series.
pub struct Stretch<'a> {
    pub high: &'a [f64],
    pub low: &'a [f64],
    pub close: &'a [f64],
    pub volume: &'a [f64],
}

type Outputs = Vec<Vec<f64>>;
type Directional = fn(&Core, usize, &Stretch<'_>, i32, &mut [f64]) -> Result<OutRange, RetCode>;

/// An indicator with its reference.
pub struct Case {
    pub name: String,
    pub add: Box<dyn Fn(Indicators) -> Indicators>,
    pub spec: Spec,
    pub input: Input,
    pub outputs: Vec<&'static str>,
    /// Whether errors are measured in points of a fixed scale, rather than relative to the deviation of the output.
    pub points: bool,
    formula: Box<dyn Fn(&Stretch<'_>) -> Outputs>,
}

fn case<I: Indicator + Clone + std::fmt::Debug + 'static>(
    indicator: I,
    points: bool,
    formula: impl Fn(&Stretch<'_>) -> Outputs + 'static,
) -> Case {
    let spec = indicator.spec().expect("valid parameters");
    Case {
        name: format!("{indicator:?}"),
        add: Box::new(move |indicators| indicators.with(indicator.clone())),
        input: spec.input,
        outputs: spec.outputs.iter().map(|output| output.name).collect(),
        points,
        formula: Box::new(formula),
        spec,
    }
}

impl Case {
    /// Number of last bars that alone determine a value; `None` for indicators with averages.
    pub fn window(&self) -> Option<u32> {
        self.spec.memory.filter(|_| self.spec.averages.is_empty())
    }
}

/// TA-Lib's outputs, which start at the front of the array, moved to their bars.
fn placed<const N: usize>(
    bars: usize,
    run: impl FnOnce(&Core, usize, [&mut [f64]; N]) -> Result<OutRange, RetCode>,
) -> Outputs {
    let mut outputs = [0; N].map(|_| vec![0.0; bars]);
    let range = run(&Core::new(), bars - 1, outputs.each_mut().map(|output| output.as_mut_slice()));
    let range = range.expect("TA-Lib");
    outputs
        .into_iter()
        .map(|output| {
            let mut all = vec![f64::NAN; bars];
            all[range.beg_idx..range.beg_idx + range.count].copy_from_slice(&output[..range.count]);
            all
        })
        .collect()
}

/// `value` of every bar with at least `period` bars up to it.
fn rolling(bars: usize, period: usize, value: impl Fn(Range<usize>) -> f64) -> Vec<f64> {
    (0..bars).map(|t| if t + 1 < period { f64::NAN } else { value(t + 1 - period..t + 1) }).collect()
}

/// The best of the last `period` values, at a cost that does not depend on `period`.
fn extremes(values: &[f64], period: usize, better: fn(f64, f64) -> bool) -> Vec<f64> {
    // Bars whose values may still be the best of a window, the best first.
    let mut candidates = VecDeque::new();
    let mut best = |t: usize| {
        while candidates.back().is_some_and(|last: &usize| !better(values[*last], values[t])) {
            candidates.pop_back();
        }
        candidates.push_back(t);
        if candidates[0] + period == t {
            candidates.pop_front();
        }
        if t + 1 < period { f64::NAN } else { values[candidates[0]] }
    };
    (0..values.len()).map(&mut best).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// An exponential average that starts as the mean of the first `period` values.
fn seeded(values: &[f64], period: usize, weight: f64) -> Vec<f64> {
    let mut average = f64::NAN;
    (0..values.len())
        .map(|t| {
            if t + 1 == period {
                average = mean(values[..period].iter().copied());
            } else {
                average += (values[t] - average) * weight;
            }
            average
        })
        .collect()
}

fn typical(s: &Stretch<'_>, t: usize) -> f64 {
    (s.high[t] + s.low[t] + s.close[t]) / 3.0
}

/// Periods of the cases.
#[derive(Clone, Copy, Debug)]
pub struct Periods {
    pub period: u32,
    pub second: u32,
    pub third: u32,
}

/// The selections that tests share, because a software rasteriser takes seconds to compile the kernels of new ones: every
/// indicator, with one set of periods each.
#[derive(Clone, Copy, Debug)]
pub enum Selection {
    /// The defaults, whose windows fit into registers.
    Defaults,
    /// Periods drawn for each indicator by itself, from the stream of this seed: some windows fit into registers, some do not.
    Mixed(u64),
    /// Periods whose windows do not fit into registers.
    Long,
}

impl Selection {
    pub const ALL: [Self; 3] = [Self::Defaults, Self::Mixed(11), Self::Long];

    pub fn cases(self) -> Vec<Case> {
        match self {
            Self::Defaults => cases(None),
            Self::Long => cases(Some(Periods { period: 45, second: 34, third: 50 })),
            Self::Mixed(seed) => {
                let mut stream = Stream::new(seed, 5);
                let mut draw =
                    |least: u32, most: u32| least + (f64::from(most - least + 1) * stream.uniform()) as u32;
                let kinds = cases(None).into_iter().enumerate();
                let drawn = kinds.map(|(kind, case)| {
                    // The stochastic of two nearly equal RSI values is dominated by rounding.
                    let second = if case.name.starts_with("Stochrsi") { 8 } else { 1 };
                    let periods =
                        Periods { period: draw(1, 47), second: draw(second, 39), third: draw(1, 39) };
                    cases(Some(periods)).swap_remove(kind)
                });
                drawn.collect()
            }
        }
    }
}

/// Every indicator with the given periods and uneven factors (`None`: its defaults).
pub fn cases(periods: Option<Periods>) -> Vec<Case> {
    let p = |default: u32, least: u32| periods.map_or(default, |p| p.period.max(least));
    let second = |default: u32, least: u32| periods.map_or(default, |p| p.second.max(least));
    let third = |default: u32| periods.map_or(default, |p| p.third);
    let factor = |default: f64, other: f64| periods.map_or(default, |_| other);
    let i = |n: u32| i32::try_from(n).expect("a period");
    let u = |n: u32| n as usize;
    let mut all = Vec::new();

    let period = p(14, 2);
    all.push(case(Rsi { period }, true, move |s| {
        placed(s.close.len(), |core, last, [a]| core.rsi(0, last, s.close, i(period), a))
    }));
    let (fast, slow, signal) = (p(12, 2), p(12, 2) + second(14, 1), third(9));
    all.push(case(Macd { fast, slow, signal }, false, move |s| {
        placed(s.close.len(), |core, last, [a, b, c]| {
            core.macd(0, last, s.close, i(fast), i(slow), i(signal), a, b, c)
        })
    }));
    let period = p(20, 2);
    let down = factor(2.0, 2.5);
    let bands = Bbands { period, deviations_up: 2.0, deviations_down: down };
    all.push(case(bands, false, move |s| {
        placed(s.close.len(), |core, last, [a, b, c]| {
            core.bbands(0, last, s.close, i(period), 2.0, down, MAType::SMA, a, b, c)
        })
    }));
    let period = p(14, 1);
    all.push(case(Atr { period }, false, move |s| {
        placed(s.close.len(), |core, last, [a]| core.atr(0, last, s.high, s.low, s.close, i(period), a))
    }));
    let period = p(10, 1);
    all.push(case(Mom { period }, false, move |s| {
        placed(s.close.len(), |core, last, [a]| core.mom(0, last, s.close, i(period), a))
    }));
    let (k, d) = (p(14, 1), second(3, 1));
    all.push(case(Stochf { k, d }, true, move |s| {
        placed(s.close.len(), |core, last, [a, b]| {
            core.stochf(0, last, s.high, s.low, s.close, i(k), i(d), MAType::SMA, a, b)
        })
    }));
    let period = p(30, 2);
    all.push(case(Sma { period }, false, move |s| {
        placed(s.close.len(), |core, last, [a]| core.sma(0, last, s.close, i(period), a))
    }));
    all.push(case(Ema { period }, false, move |s| {
        placed(s.close.len(), |core, last, [a]| core.ema(0, last, s.close, i(period), a))
    }));
    all.push(case(Wma { period }, false, move |s| {
        placed(s.close.len(), |core, last, [a]| core.wma(0, last, s.close, i(period), a))
    }));
    let period = p(14, 2);
    all.push(case(Rma { period }, false, move |s| vec![seeded(s.close, u(period), 1.0 / f64::from(period))]));
    let period = p(10, 1);
    all.push(case(Roc { period }, false, move |s| {
        placed(s.close.len(), |core, last, [a]| core.roc(0, last, s.close, i(period), a))
    }));
    let period = p(1, 1);
    all.push(case(LogReturn { period }, false, move |s| {
        vec![rolling(s.close.len(), u(period) + 1, |w| (s.close[w.end - 1] / s.close[w.start]).ln())]
    }));
    let period = p(14, 2);
    all.push(case(Adx { period }, true, move |s| {
        let (bars, n) = (s.close.len(), i(period));
        let directional: [Directional; 3] = [
            |core, last, s, n, a| core.adx(0, last, s.high, s.low, s.close, n, a),
            |core, last, s, n, a| core.plus_di(0, last, s.high, s.low, s.close, n, a),
            |core, last, s, n, a| core.minus_di(0, last, s.high, s.low, s.close, n, a),
        ];
        directional
            .into_iter()
            .flat_map(|run| placed(bars, |core, last, [a]| run(core, last, s, n, a)))
            .collect()
    }));
    all.push(case(Cci { period }, false, move |s| {
        placed(s.close.len(), |core, last, [a]| core.cci(0, last, s.high, s.low, s.close, i(period), a))
    }));
    all.push(case(Willr { period }, true, move |s| {
        placed(s.close.len(), |core, last, [a]| core.willr(0, last, s.high, s.low, s.close, i(period), a))
    }));
    all.push(case(Obv::default(), false, move |s| {
        placed(s.close.len(), |core, last, [a]| core.obv(0, last, s.close, s.volume, a))
    }));
    all.push(case(Mfi { period }, true, move |s| {
        placed(s.close.len(), |core, last, [a]| {
            core.mfi(0, last, s.high, s.low, s.close, s.volume, i(period), a)
        })
    }));
    let period = p(20, 1);
    all.push(case(Vwap { period }, false, move |s| {
        vec![rolling(s.close.len(), u(period), |w| {
            let volume: f64 = s.volume[w.clone()].iter().sum();
            w.map(|t| typical(s, t) * s.volume[t]).sum::<f64>() / volume
        })]
    }));
    all.push(case(Donchian { period }, false, move |s| {
        let upper = extremes(s.high, u(period), |a, b| a > b);
        let lower = extremes(s.low, u(period), |a, b| a < b);
        let middle = upper.iter().zip(&lower).map(|(a, b)| (a + b) / 2.0).collect();
        vec![upper, middle, lower]
    }));
    let (period, atr_period) = (p(20, 2), second(10, 1));
    let multiplier = factor(2.0, 1.5);
    all.push(case(Keltner { period, atr_period, multiplier }, false, move |s| {
        let bars = s.close.len();
        let mut middle = seeded(s.close, u(period), 2.0 / (f64::from(period) + 1.0));
        let range =
            placed(bars, |core, last, [a]| core.atr(0, last, s.high, s.low, s.close, i(atr_period), a));
        let band = |sign: f64| middle.iter().zip(&range[0]).map(|(m, r)| m + sign * multiplier * r).collect();
        let (upper, lower): (Vec<f64>, Vec<f64>) = (band(1.0), band(-1.0));
        middle.iter_mut().zip(&upper).for_each(|(m, other)| *m += 0.0 * other);
        vec![upper, middle, lower]
    }));
    let (period, k, d) = (p(14, 2), second(5, 2), third(3));
    all.push(case(Stochrsi { period, k, d }, true, move |s| {
        placed(s.close.len(), |core, last, [a, b]| {
            core.stochrsi(0, last, s.close, i(period), i(k), i(d), MAType::SMA, a, b)
        })
    }));
    let period = p(20, 2);
    all.push(case(Zscore { period }, false, move |s| {
        vec![rolling(s.close.len(), u(period), |w| {
            let now = s.close[w.end - 1];
            let m = mean(s.close[w.clone()].iter().map(|x| x - now));
            let v = mean(s.close[w].iter().map(|x| (x - now - m) * (x - now - m)));
            if v > 0.0 { -m / v.sqrt() } else { 0.0 }
        })]
    }));
    let year = factor(252.0, 365.0);
    let volatility = RealizedVolatility { period, periods_per_year: year };
    all.push(case(volatility, false, move |s| {
        vec![rolling(s.close.len(), u(period) + 1, |w| {
            let returns: Vec<f64> = s.close[w].windows(2).map(|pair| (pair[1] / pair[0]).ln()).collect();
            let m = mean(returns.iter().copied());
            let squares: f64 = returns.iter().map(|r| (r - m) * (r - m)).sum();
            (squares / f64::from(period - 1) * year).sqrt()
        })]
    }));
    all
}

/// The reference of one series: outputs `[output][bar]`, restarted after every missing price.
pub fn expected(case: &Case, bars: &Bars, series: usize) -> Outputs {
    let row = |values: &Array2<f64>| values.row(series).to_vec();
    let (high, low, close, volume) = (row(&bars.high), row(&bars.low), row(&bars.close), row(&bars.volume));
    let good = |t: usize| {
        let candle = high[t].is_finite() && low[t].is_finite();
        close[t].is_finite()
            && (case.input == Input::Close || candle)
            && (case.input != Input::Trades || volume[t].is_finite())
    };
    let mut outputs = vec![vec![f64::NAN; close.len()]; case.outputs.len()];
    let mut start = 0;
    for t in 0..=close.len() {
        if t < close.len() && good(t) {
            continue;
        }
        if start < t {
            let r = start..t;
            let stretch = Stretch {
                high: &high[r.clone()],
                low: &low[r.clone()],
                close: &close[r.clone()],
                volume: &volume[r.clone()],
            };
            for (all, part) in outputs.iter_mut().zip((case.formula)(&stretch)) {
                all[r.clone()].copy_from_slice(&part);
            }
        }
        start = t + 1;
    }
    outputs
}

/// Alternative unit of an output, for outputs with few or equal values, whose deviation is meaningless.
pub fn typical_size(name: &str, price: f64, volatility: f64) -> f64 {
    match name {
        "roc" => 100.0 * volatility,
        "log_return" => volatility,
        "realized_volatility" => volatility * 252f64.sqrt(),
        "zscore" => 1.0,
        "cci" => 100.0,
        "obv" => 1e5,
        _ => price * volatility,
    }
}

/// Population standard deviation of the finite values; 0 if there are none.
pub fn deviation(values: &[f64]) -> f64 {
    let there: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
    if there.is_empty() {
        return 0.0;
    }
    let m = mean(there.iter().copied());
    mean(there.iter().map(|x| (x - m) * (x - m))).sqrt()
}
