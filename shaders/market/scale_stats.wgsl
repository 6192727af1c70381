// Sums of every column over chunks of training bars, from which market/scale_join computes means and standard deviations. One
// invocation per chunk and column; neighbours take neighbouring columns.

import package::constants::{CHUNK, ROW, WG};
import package::lib::numeric::{add_compensated, is_finite};
import package::lib::scaling::Scaling;

@group(0) @binding(0) var<uniform> p: Scaling;
// [column][chunk]: a number near the mean of the chunk or 0, the sum of the distances from it, that of their squares, and the rounding
// error of the first sum.
@group(0) @binding(1) var<storage, read_write> chunks: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> data: array<f32>;

// Past the end of the chunk the last bar is read again.
fn value(bar: u32, end: u32, column: u32) -> f32 {
    return data[min(bar, end - 1u) * p.columns + column];
}

fn distance_of(value: f32, near: f32, exists: bool) -> f32 {
    return select(0.0, value - near, exists);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = id.y * ROW + id.x;
    let column = index % p.columns;
    let chunk = index / p.columns;
    let of_all = (p.end - p.first + CHUNK - 1u) / CHUNK;
    if (chunk >= of_all) {
        return;
    }
    let start = p.first + chunk * CHUNK;
    let end = min(start + CHUNK, p.end);
    // Four sums side by side: a single one would wait for each addition.
    var sums = vec4<f32>(0.0);
    var sizes = vec4<f32>(0.0);
    for (var bar = start; bar < end; bar += 4u) {
        let four = vec4<f32>(value(bar, end, column), value(bar + 1u, end, column), value(bar + 2u, end, column), value(bar + 3u, end, column));
        let inside = vec4<bool>(true, bar + 1u < end, bar + 2u < end, bar + 3u < end);
        let own = select(vec4<f32>(0.0), four, inside);
        sums += own;
        sizes += abs(own);
    }
    // Squares of values far from 0 would lose the digits of a small deviation, and distances of values around 0 from their small mean
    // those of the mean: there they are from 0.
    let sum = sums.x + sums.y + sums.z + sums.w;
    let far = 4.0 * abs(sum) >= sizes.x + sizes.y + sizes.z + sizes.w;
    let near = select(0.0, sum / f32(end - start), far || !is_finite(sum));
    var distances = vec2<f32>(0.0);
    var squares = vec2<f32>(0.0);
    for (var bar = start; bar < end; bar += 4u) {
        let a = distance_of(value(bar, end, column), near, true);
        let b = distance_of(value(bar + 1u, end, column), near, bar + 1u < end);
        let c = distance_of(value(bar + 2u, end, column), near, bar + 2u < end);
        let d = distance_of(value(bar + 3u, end, column), near, bar + 3u < end);
        distances = add_compensated(add_compensated(distances, a, p.zero), b, p.zero);
        distances = add_compensated(add_compensated(distances, c, p.zero), d, p.zero);
        squares = add_compensated(squares, (a * a + b * b) + (c * c + d * d), p.zero);
    }
    chunks[column * of_all + chunk] = vec4<f32>(near, distances.x, squares.x, distances.y);
}
