// Momentum: one invocation computes one bar of one series.

import package::constants::{ROW, WG};
import package::lib::numeric::{is_nan, nan};

struct Momentum {
    series: u32,
    bars: u32,
    period: u32,
    // 0, which the compiler cannot know.
    zero: u32,
}

@group(0) @binding(0) var<uniform> p: Momentum;
@group(0) @binding(1) var<storage, read> close: array<f32>;
@group(0) @binding(2) var<storage, read> close_tail: array<f32>;
@group(0) @binding(3) var<storage, read_write> momentum: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let at = id.y * ROW + id.x;
    if (at >= p.series * p.bars) {
        return;
    }
    if (at % p.bars < p.period) {
        momentum[at] = nan();
        return;
    }
    let before = at - p.period;
    if (is_nan(close[at]) || is_nan(close[before])) {
        momentum[at] = nan();
        return;
    }
    // The heads nearly cancel and must do so before the tails come in: a compiler that regroups sums would lose
    // the tails, and does not see through the exclusive or.
    let heads = close[at] - close[before];
    let tails = close_tail[at] - close_tail[before];
    momentum[at] = bitcast<f32>(bitcast<u32>(heads) ^ p.zero) + tails;
}
