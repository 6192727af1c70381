// Average true range: one invocation walks one series.

import package::constants::{ROW, WG};
import package::lib::numeric::{add_compensated, is_nan, nan};

struct Atr {
    series: u32,
    bars: u32,
    period: u32,
    // 0, which the compiler cannot know.
    zero: u32,
}

@group(0) @binding(0) var<uniform> p: Atr;
@group(0) @binding(1) var<storage, read> high: array<f32>;
@group(0) @binding(2) var<storage, read> high_tail: array<f32>;
@group(0) @binding(3) var<storage, read> low: array<f32>;
@group(0) @binding(4) var<storage, read> low_tail: array<f32>;
@group(0) @binding(5) var<storage, read> close: array<f32>;
@group(0) @binding(6) var<storage, read> close_tail: array<f32>;
@group(0) @binding(7) var<storage, read_write> atr: array<f32>;

// a - b of two prices, each a head and a tail. The heads nearly cancel and must do so before the tails come in:
// a compiler that regroups sums would lose the tails, and does not see through the exclusive or.
fn difference(a: vec2<f32>, b: vec2<f32>) -> f32 {
    let d = a - b;
    return bitcast<f32>(bitcast<u32>(d.x) ^ p.zero) + d.y;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let series = id.y * ROW + id.x;
    if (series >= p.series) {
        return;
    }
    let period = f32(p.period);
    // The average with what its f32 could not hold.
    var average = vec2<f32>(0.0);
    var previous = vec2<f32>(0.0);
    // Bars since the start or the last NaN.
    var seen = 0u;
    for (var t = 0u; t < p.bars; t++) {
        let at = series * p.bars + t;
        let top = vec2<f32>(high[at], high_tail[at]);
        let bottom = vec2<f32>(low[at], low_tail[at]);
        let price = vec2<f32>(close[at], close_tail[at]);
        if (is_nan(top.x) || is_nan(bottom.x) || is_nan(price.x)) {
            seen = 0u;
            atr[at] = nan();
            continue;
        }
        if (seen == 0u) {
            average = vec2<f32>(0.0);
        } else {
            let gaps = max(abs(difference(top, previous)), abs(difference(bottom, previous)));
            let range = max(difference(top, bottom), gaps);
            if (seen <= p.period) {
                average = add_compensated(average, range);
                if (seen == p.period) {
                    average = vec2<f32>(average.x / period, 0.0);
                }
            } else {
                average = add_compensated(average, (range - average.x) / period);
            }
        }
        if (seen < p.period) {
            atr[at] = nan();
        } else {
            atr[at] = average.x;
        }
        previous = price;
        seen++;
    }
}
