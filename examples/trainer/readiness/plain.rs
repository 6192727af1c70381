//! The six classic indicators as plain loops, as the notebook wrote them for Numba: the peer of the kernels.

/// RSI (14), MACD (12, 26, 9), Bollinger bands (20, 2), ATR (14), momentum (10), fast stochastic (14, 3): the defaults of [`phalanx::indicators`].
/// Values before the first valid bar are NaN.
pub fn classic(high: &[f64], low: &[f64], close: &[f64]) -> Vec<(&'static str, Vec<f64>)> {
    let [macd, signal, histogram] = macd(close);
    let [upper, middle, lower] = bollinger(close, 20, 2.0);
    let [k, d] = stochastic(high, low, close);
    vec![
        ("rsi", rsi(close, 14)),
        ("macd", macd),
        ("macd_signal", signal),
        ("macd_hist", histogram),
        ("bb_upper", upper),
        ("bb_middle", middle),
        ("bb_lower", lower),
        ("atr", atr(high, low, close, 14)),
        ("mom", momentum(close, 10)),
        ("stoch_k", k),
        ("stoch_d", d),
    ]
}

fn empty(bars: usize) -> Vec<f64> {
    vec![f64::NAN; bars]
}

fn rsi(close: &[f64], period: usize) -> Vec<f64> {
    let mut out = empty(close.len());
    let (mut gain, mut loss) = (0.0, 0.0);
    for t in 1..close.len() {
        let change = close[t] - close[t - 1];
        let (up, down) = (change.max(0.0), (-change).max(0.0));
        let share = 1.0 / period as f64;
        if t <= period {
            gain += up * share;
            loss += down * share;
        } else {
            gain += (up - gain) * share;
            loss += (down - loss) * share;
        }
        if t >= period {
            out[t] = if gain + loss == 0.0 { 50.0 } else { 100.0 * gain / (gain + loss) };
        }
    }
    out
}

/// Exponential average from bar `first` on, seeded with the mean of `period` values.
fn ema(values: &[f64], first: usize, period: usize) -> Vec<f64> {
    let mut out = empty(values.len());
    let start = first + period - 1;
    let mut last = values[first..=start].iter().sum::<f64>() / period as f64;
    out[start] = last;
    let share = 2.0 / (period as f64 + 1.0);
    for t in start + 1..values.len() {
        last += (values[t] - last) * share;
        out[t] = last;
    }
    out
}

fn macd(close: &[f64]) -> [Vec<f64>; 3] {
    let (fast, slow) = (ema(close, 26 - 12, 12), ema(close, 0, 26));
    let line: Vec<f64> = fast.iter().zip(&slow).map(|(fast, slow)| fast - slow).collect();
    let signal = ema(&line, 25, 9);
    let histogram = line.iter().zip(&signal).map(|(line, signal)| line - signal).collect();
    [line, signal, histogram]
}

fn bollinger(close: &[f64], period: usize, width: f64) -> [Vec<f64>; 3] {
    let mut bands = [(); 3].map(|()| empty(close.len()));
    for t in period - 1..close.len() {
        let window = &close[t + 1 - period..=t];
        let mean = window.iter().sum::<f64>() / period as f64;
        let variance = window.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / period as f64;
        let distance = width * variance.sqrt();
        bands[0][t] = mean + distance;
        bands[1][t] = mean;
        bands[2][t] = mean - distance;
    }
    bands
}

fn atr(high: &[f64], low: &[f64], close: &[f64], period: usize) -> Vec<f64> {
    let mut out = empty(close.len());
    let mut average = 0.0;
    for t in 1..close.len() {
        let range = high[t].max(close[t - 1]) - low[t].min(close[t - 1]);
        if t <= period {
            average += range / period as f64;
        } else {
            average += (range - average) / period as f64;
        }
        if t >= period {
            out[t] = average;
        }
    }
    out
}

fn momentum(close: &[f64], period: usize) -> Vec<f64> {
    let mut out = empty(close.len());
    for t in period..close.len() {
        out[t] = close[t] - close[t - period];
    }
    out
}

fn stochastic(high: &[f64], low: &[f64], close: &[f64]) -> [Vec<f64>; 2] {
    let (window, smooth) = (14, 3);
    let [mut k, mut d] = [(); 2].map(|()| empty(close.len()));
    for t in window - 1..close.len() {
        let highest = high[t + 1 - window..=t].iter().copied().fold(f64::MIN, f64::max);
        let lowest = low[t + 1 - window..=t].iter().copied().fold(f64::MAX, f64::min);
        k[t] = if highest > lowest { 100.0 * (close[t] - lowest) / (highest - lowest) } else { 0.0 };
    }
    for t in window + smooth - 2..close.len() {
        d[t] = k[t + 1 - smooth..=t].iter().sum::<f64>() / smooth as f64;
    }
    [k, d]
}
