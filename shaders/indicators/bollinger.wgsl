// Bollinger bands: one invocation computes one bar of one series.

import package::constants::{ROW, WG};
import package::lib::numeric::{is_nan, nan};

struct Bollinger {
    series: u32,
    bars: u32,
    period: u32,
    // 0, which the compiler cannot know.
    zero: u32,
    // From the middle to a band, in standard deviations.
    deviations: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Bollinger;
@group(0) @binding(1) var<storage, read> close: array<f32>;
@group(0) @binding(2) var<storage, read> close_tail: array<f32>;
@group(0) @binding(3) var<storage, read_write> upper: array<f32>;
@group(0) @binding(4) var<storage, read_write> middle: array<f32>;
@group(0) @binding(5) var<storage, read_write> lower: array<f32>;
// Middle minus close, and half the distance of the bands.
@group(0) @binding(6) var<storage, read_write> offset: array<f32>;
@group(0) @binding(7) var<storage, read_write> width: array<f32>;

fn price(at: u32) -> vec2<f32> {
    return vec2<f32>(close[at], close_tail[at]);
}

// a - b of two prices, each a head and a tail. The heads nearly cancel and must do so before the tails come in:
// a compiler that regroups sums would lose the tails, and does not see through the exclusive or.
fn difference(a: vec2<f32>, b: vec2<f32>) -> f32 {
    let d = a - b;
    return bitcast<f32>(bitcast<u32>(d.x) ^ p.zero) + d.y;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * ROW + id.x;
    if (at >= p.series * p.bars) {
        return;
    }
    var known = at % p.bars + 1u >= p.period;
    let current = price(at);
    var sum = 0.0;
    var squares = 0.0;
    if (known) {
        for (var back = 0u; back < p.period; back++) {
            let past = price(at - back);
            known = known && !is_nan(past.x);
            let d = difference(past, current);
            sum += d;
            squares += d * d;
        }
    }
    if (!known) {
        upper[at] = nan();
        middle[at] = nan();
        lower[at] = nan();
        offset[at] = nan();
        width[at] = nan();
        return;
    }
    let mean = sum / f32(p.period);
    let variance = max(squares / f32(p.period) - mean * mean, 0.0);
    let half = p.deviations * sqrt(variance);
    upper[at] = current.x + (current.y + mean + half);
    middle[at] = current.x + (current.y + mean);
    lower[at] = current.x + (current.y + mean - half);
    offset[at] = mean;
    width[at] = half;
}
