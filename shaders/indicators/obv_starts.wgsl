// The state of indicators/panel before every chunk of every row, from the sums over the chunks (indicators/obv_sums): a scan in a fixed
// order. One workgroup per row.

import package::constants::{GROUPS, WG};
import package::lib::obv::{Parameters, rounded};

// As in indicators/panel.
struct Counters {
    closes: f32,
    candles: f32,
    trades: f32,
    before: f32,
    before_rest: f32,
}

// As in indicators/obv.
struct State {
    total: f32,
    error: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> candles: array<vec4<f32>>;
// [row][chunk]
@group(0) @binding(3) var<storage, read_write> counted: array<Counters>;
@group(0) @binding(4) var<storage, read_write> states: array<State>;

// Sum, rounding error, and 1 if it restarts.
var<workgroup> lanes: array<vec3<f32>, WG>;

// The sum over two neighbouring ranges. Either may be the larger one.
fn joined(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
    let sum = rounded(a.x + b.x, p.zero);
    let added = rounded(sum - a.x, p.zero);
    let lost = rounded(a.x - rounded(sum - added, p.zero), p.zero) + rounded(b.x - added, p.zero);
    let error = lost + (a.y + b.y);
    let whole = rounded(sum + error, p.zero);
    let both = vec3<f32>(whole, error - rounded(whole - sum, p.zero), a.z);
    return select(both, b, b.z > 0.0);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * GROUPS + group.x;
    if (row >= p.rows) {
        return;
    }
    let each = (p.chunks + WG - 1u) / WG;
    let begin = min(lane * each, p.chunks);
    let end = min(begin + each, p.chunks);
    var total = vec3<f32>(0.0);
    for (var chunk = begin; chunk < end; chunk++) {
        total = joined(total, sums[row * p.chunks + chunk].xyz);
    }
    lanes[lane] = total;
    workgroupBarrier();
    for (var offset = 1u; offset < WG; offset *= 2u) {
        if (lane >= offset) {
            total = joined(lanes[lane - offset], total);
        }
        workgroupBarrier();
        lanes[lane] = total;
        workgroupBarrier();
    }
    var start = vec3<f32>(0.0);
    if (lane > 0u) {
        start = lanes[lane - 1u];
    }
    for (var chunk = begin; chunk < end; chunk++) {
        let at = row * p.chunks + chunk;
        var known = 0.0;
        var before = vec2<f32>(0.0);
        if (chunk > 0u) {
            known = sums[at - 1u].w;
            before = candles[(row % p.series * p.stride + chunk * p.length) * 4u - 1u].xy;
        }
        // The panel tells only the first complete bars from later ones.
        counted[at] = Counters(known, known, known, before.x, before.y);
        states[at] = State(start.x, start.y);
        start = joined(start, sums[at].xyz);
    }
}
