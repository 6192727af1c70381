// Means and standard deviations of every column from the sums over its chunks of training bars (market/scale_stats). One workgroup
// per column, fixed order.

import package::constants::{CHUNK, GROUPS, WG};
import package::lib::numeric::{add_compensated, is_finite};
import package::lib::scaling::{Scaling, exact_parts, is_mark};

@group(0) @binding(0) var<uniform> p: Scaling;
// [column][chunk]: a number near the mean of the chunk or 0, the sum of the distances from it, that of their squares, and the rounding
// error of the first sum.
@group(0) @binding(1) var<storage, read> chunks: array<vec4<f32>>;
// [column][mean, standard deviation].
@group(0) @binding(2) var<storage, read_write> statistics: array<vec2<f32>>;

// Two sums, each followed by its rounding error.
var<workgroup> lanes: array<vec4<f32>, WG>;

// Bars of a chunk: the last one may be shorter.
fn bars_of(chunk: u32) -> f32 {
    return f32(min(CHUNK, p.end - p.first - chunk * CHUNK));
}

fn add_sums(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let first = add_compensated(add_compensated(a.xy, b.x, p.zero), b.y, p.zero);
    let second = add_compensated(add_compensated(a.zw, b.z, p.zero), b.w, p.zero);
    return vec4<f32>(first, second);
}

fn total(lane: u32, mine: vec4<f32>) -> vec4<f32> {
    lanes[lane] = mine;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            lanes[lane] = add_sums(lanes[lane], lanes[lane + half]);
        }
        workgroupBarrier();
    }
    let sum = lanes[0];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let column = group.y * GROUPS + group.x;
    if (column >= p.columns) {
        return;
    }
    let of_all = (p.end - p.first + CHUNK - 1u) / CHUNK;
    let count = f32(p.end - p.first);
    var values = vec4<f32>(0.0);
    for (var chunk = lane; chunk < of_all; chunk += WG) {
        let one = chunks[column * of_all + chunk];
        let parts = exact_parts(one.x) * bars_of(chunk);
        let rest = add_compensated(add_compensated(values.xy, parts.x, p.zero), parts.y, p.zero);
        values = vec4<f32>(add_compensated(add_compensated(rest, one.y, p.zero), one.w, p.zero), 0.0, 0.0);
    }
    let mean = total(lane, values).x / count;
    // Sums of the squared distances from the mean, and of the distances.
    var apart = vec4<f32>(0.0);
    for (var chunk = lane; chunk < of_all; chunk += WG) {
        let one = chunks[column * of_all + chunk];
        let off = one.x - mean;
        let moved = bars_of(chunk) * off;
        let squares = one.z + off * (2.0 * one.y + moved);
        apart = add_sums(apart, vec4<f32>(squares, 0.0, one.y + moved, one.w));
    }
    apart = total(lane, apart);
    if (lane > 0u) {
        return;
    }
    // The sum of the distances is not 0, because the mean is rounded.
    let exact = apart.x - apart.z * (apart.z / count);
    let squares = select(apart.x, exact, is_finite(exact) && exact > 0.0);
    statistics[column] = select(vec2<f32>(mean, sqrt(squares / count)), vec2<f32>(0.0, 1.0), is_mark(column, p.marked));
}
