// Moving average convergence divergence: one invocation walks one series.
//
// The line is the small difference of two averages and the histogram crosses zero: f32 has no digits left there.
// Every quantity is therefore an unevaluated sum of two f32, a head and a tail of at most half its last digit
// (Dekker 1971, Knuth TAOCP 2, 4.2.2), which gives about 46 bits.

import package::constants::{ROW, WG};
import package::lib::numeric::{is_nan, nan};

struct Macd {
    series: u32,
    bars: u32,
    fast: u32,
    slow: u32,
    signal: u32,
    // 0, which the compiler cannot know.
    zero: u32,
    pad0: u32,
    pad1: u32,
    // 2 / (period + 1).
    fast_weight: vec2<f32>,
    slow_weight: vec2<f32>,
    signal_weight: vec2<f32>,
    // 1 / period.
    fast_share: vec2<f32>,
    slow_share: vec2<f32>,
    signal_share: vec2<f32>,
}

@group(0) @binding(0) var<uniform> p: Macd;
@group(0) @binding(1) var<storage, read> close: array<f32>;
@group(0) @binding(2) var<storage, read> close_tail: array<f32>;
@group(0) @binding(3) var<storage, read_write> macd: array<f32>;
@group(0) @binding(4) var<storage, read_write> macd_signal: array<f32>;
@group(0) @binding(5) var<storage, read_write> macd_hist: array<f32>;

// x, rounded here and now: compilers may regroup or fuse what they can see through, which would make the rounding
// errors that are computed below come out as zero.
fn rounded(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ p.zero);
}

// head + tail as a pair, for a tail smaller than the head.
fn normalised(head: f32, tail: f32) -> vec2<f32> {
    let sum = rounded(head + tail);
    return vec2<f32>(sum, tail - rounded(sum - head));
}

fn add(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let sum = rounded(a.x + b.x);
    let of_b = rounded(sum - a.x);
    let of_a = rounded(sum - of_b);
    let error = rounded(a.x - of_a) + rounded(b.x - of_b);
    return normalised(sum, error + (a.y + b.y));
}

// The upper 12 of the 24 bits of x; products of such halves are exact.
fn upper_half(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
}

fn multiply(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let product = rounded(a.x * b.x);
    let a_upper = upper_half(a.x);
    let a_lower = rounded(a.x - a_upper);
    let b_upper = upper_half(b.x);
    let b_lower = rounded(b.x - b_upper);
    var error = rounded(a_upper * b_upper) - product;
    error = rounded(error) + rounded(a_upper * b_lower);
    error = rounded(error) + rounded(a_lower * b_upper);
    error = rounded(error) + rounded(a_lower * b_lower);
    return normalised(product, rounded(error) + (a.x * b.y + a.y * b.x));
}

// The exponential average after one more value.
fn follow(average: vec2<f32>, value: vec2<f32>, weight: vec2<f32>) -> vec2<f32> {
    return add(average, multiply(add(value, -average), weight));
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let series = id.y * ROW + id.x;
    if (series >= p.series) {
        return;
    }
    // Sums until their seed is complete, averages from then on.
    var fast = vec2<f32>(0.0);
    var slow = vec2<f32>(0.0);
    var signal = vec2<f32>(0.0);
    // Bars since the start or the last NaN, this one included.
    var seen = 0u;
    for (var t = 0u; t < p.bars; t++) {
        let at = series * p.bars + t;
        let price = vec2<f32>(close[at], close_tail[at]);
        macd[at] = nan();
        macd_signal[at] = nan();
        macd_hist[at] = nan();
        if (is_nan(price.x)) {
            seen = 0u;
            continue;
        }
        if (seen == 0u) {
            fast = vec2<f32>(0.0);
            slow = vec2<f32>(0.0);
            signal = vec2<f32>(0.0);
        }
        seen++;
        if (seen <= p.slow) {
            slow = add(slow, price);
            // The fast average starts late, so that both seeds end at the same bar.
            if (seen + p.fast > p.slow) {
                fast = add(fast, price);
            }
            if (seen < p.slow) {
                continue;
            }
            slow = multiply(slow, p.slow_share);
            fast = multiply(fast, p.fast_share);
        } else {
            slow = follow(slow, price, p.slow_weight);
            fast = follow(fast, price, p.fast_weight);
        }
        let line = add(fast, -slow);
        let lines = seen - p.slow + 1u;
        if (lines <= p.signal) {
            signal = add(signal, line);
            if (lines < p.signal) {
                continue;
            }
            signal = multiply(signal, p.signal_share);
        } else {
            signal = follow(signal, line, p.signal_weight);
        }
        macd[at] = line.x;
        macd_signal[at] = signal.x;
        macd_hist[at] = add(line, -signal).x;
    }
}
