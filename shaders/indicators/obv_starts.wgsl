// The state of indicators/panel before every chunk of every row, from the sums over the chunks (indicators/obv_sums): a scan in a fixed
// order. One workgroup per row.

import package::constants::{GROUPS, WG};
import package::lib::obv::Sums;

@group(0) @binding(0) var<uniform> p: Sums;
@group(0) @binding(1) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> candles: array<vec4<f32>>;
// [row][chunk]: `Counters` of the panel, and `State` of its indicator.
@group(0) @binding(3) var<storage, read_write> counted: array<f32>;
@group(0) @binding(4) var<storage, read_write> states: array<vec2<f32>>;

// Sum, rounding error, and 1 if it starts anew.
var<workgroup> lanes: array<vec3<f32>, WG>;

fn rounded(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ p.zero);
}

// The sum over two neighbouring ranges. Either may be the larger one.
fn joined(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
    let sum = rounded(a.x + b.x);
    let added = rounded(sum - a.x);
    let error = rounded(a.x - rounded(sum - added)) + rounded(b.x - added) + (a.y + b.y);
    let whole = rounded(sum + error);
    let both = vec3<f32>(whole, error - rounded(whole - sum), a.z);
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
    for (var apart = 1u; apart < WG; apart *= 2u) {
        if (lane >= apart) {
            total = joined(lanes[lane - apart], total);
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
        counted[at * 5u] = known;
        counted[at * 5u + 1u] = known;
        counted[at * 5u + 2u] = known;
        counted[at * 5u + 3u] = before.x;
        counted[at * 5u + 4u] = before.y;
        states[at] = start.xy;
        start = joined(start, sums[at].xyz);
    }
}
