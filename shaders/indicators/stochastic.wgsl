// Fast stochastic oscillator: one invocation computes one bar of one series.

import package::constants::{ROW, WG};
import package::lib::numeric::{is_nan, nan};

struct Stochastic {
    series: u32,
    bars: u32,
    // Bars of the range and of the mean.
    k: u32,
    d: u32,
    // 0, which the compiler cannot know.
    zero: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Stochastic;
@group(0) @binding(1) var<storage, read> high: array<f32>;
@group(0) @binding(2) var<storage, read> high_tail: array<f32>;
@group(0) @binding(3) var<storage, read> low: array<f32>;
@group(0) @binding(4) var<storage, read> low_tail: array<f32>;
@group(0) @binding(5) var<storage, read> close: array<f32>;
@group(0) @binding(6) var<storage, read> close_tail: array<f32>;
// %K and %D of a bar.
@group(0) @binding(7) var<storage, read_write> percent_k: array<f32>;
@group(0) @binding(8) var<storage, read_write> percent_d: array<f32>;

// a - b of two prices, each a head and a tail. The heads nearly cancel and must do so before the tails come in:
// a compiler that regroups sums would lose the tails, and does not see through the exclusive or.
fn difference(a: vec2<f32>, b: vec2<f32>) -> f32 {
    let d = a - b;
    return bitcast<f32>(bitcast<u32>(d.x) ^ p.zero) + d.y;
}

// %K of a bar that has p.k - 1 bars before it.
fn position(at: u32) -> f32 {
    let price = vec2<f32>(close[at], close_tail[at]);
    var known = !is_nan(price.x);
    var highest = vec2<f32>(high[at], high_tail[at]);
    var lowest = vec2<f32>(low[at], low_tail[at]);
    known = known && !is_nan(highest.x) && !is_nan(lowest.x);
    for (var back = 1u; back < p.k; back++) {
        let past = at - back;
        let top = high[past];
        let bottom = low[past];
        known = known && !is_nan(top) && !is_nan(bottom);
        // Heads decide unless they are equal, so that most tails need not be read.
        if (top > highest.x || (top == highest.x && high_tail[past] > highest.y)) {
            highest = vec2<f32>(top, high_tail[past]);
        }
        if (bottom < lowest.x || (bottom == lowest.x && low_tail[past] < lowest.y)) {
            lowest = vec2<f32>(bottom, low_tail[past]);
        }
    }
    if (!known) {
        return nan();
    }
    let range = difference(highest, lowest);
    if (range == 0.0) {
        return 0.0;
    }
    return 100.0 * (difference(price, lowest) / range);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * ROW + id.x;
    if (at >= p.series * p.bars) {
        return;
    }
    if (at % p.bars + 2u < p.k + p.d) {
        percent_k[at] = nan();
        percent_d[at] = nan();
        return;
    }
    let now = position(at);
    var known = !is_nan(now);
    var sum = now;
    for (var back = 1u; back < p.d; back++) {
        let earlier = position(at - back);
        known = known && !is_nan(earlier);
        sum += earlier;
    }
    percent_k[at] = now;
    if (known) {
        percent_d[at] = sum / f32(p.d);
    } else {
        percent_d[at] = nan();
    }
}
