// Relative strength index: one invocation walks one series.

import package::constants::{ROW, WG};
import package::lib::numeric::{add_compensated, is_nan, nan};

struct Rsi {
    series: u32,
    bars: u32,
    period: u32,
    // 0, which the compiler cannot know.
    zero: u32,
}

@group(0) @binding(0) var<uniform> p: Rsi;
@group(0) @binding(1) var<storage, read> close: array<f32>;
@group(0) @binding(2) var<storage, read> close_tail: array<f32>;
@group(0) @binding(3) var<storage, read_write> rsi: array<f32>;

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
    // Average gain and loss, each with what its f32 could not hold.
    var gain = vec2<f32>(0.0);
    var loss = vec2<f32>(0.0);
    var previous = vec2<f32>(0.0);
    // Bars since the start or the last NaN.
    var seen = 0u;
    for (var t = 0u; t < p.bars; t++) {
        let at = series * p.bars + t;
        let price = vec2<f32>(close[at], close_tail[at]);
        if (is_nan(price.x)) {
            seen = 0u;
            rsi[at] = nan();
            continue;
        }
        if (seen == 0u) {
            gain = vec2<f32>(0.0);
            loss = vec2<f32>(0.0);
        } else {
            let change = difference(price, previous);
            let up = max(change, 0.0);
            let down = max(-change, 0.0);
            if (seen <= p.period) {
                gain = add_compensated(gain, up);
                loss = add_compensated(loss, down);
                if (seen == p.period) {
                    gain = vec2<f32>(gain.x / period, 0.0);
                    loss = vec2<f32>(loss.x / period, 0.0);
                }
            } else {
                gain = add_compensated(gain, (up - gain.x) / period);
                loss = add_compensated(loss, (down - loss.x) / period);
            }
        }
        if (seen < p.period) {
            rsi[at] = nan();
        } else {
            let total = gain.x + loss.x;
            var value = 50.0;
            if (total > 0.0) {
                // A quotient may be rounded up past 1.
                value = min(100.0 * (gain.x / total), 100.0);
            }
            rsi[at] = value;
        }
        previous = price;
        seen++;
    }
}
