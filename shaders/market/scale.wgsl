// Scales every feature of every instrument by its mean and standard deviation. An invocation takes BARS bars of a column; neighbours
// take neighbouring columns.

import package::constants::{BARS, ROW, WG};
import package::lib::numeric::is_finite;
import package::lib::scaling::{Scaling, is_mark};

@group(0) @binding(0) var<uniform> p: Scaling;
// [column][mean, standard deviation].
@group(0) @binding(1) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> data: array<f32>;

// Past the end the last bar is read again.
fn value(bar: u32, column: u32) -> f32 {
    return data[min(bar, p.bars - 1u) * p.columns + column];
}

// Writes one scaled value; `deviation` is 0 for a column that is constant in training.
fn write(bar: u32, end: u32, column: u32, value: f32, mean: f32, deviation: f32) {
    if (bar >= end) {
        return;
    }
    let scaled = clamp((value - mean) / deviation, -p.limit, p.limit);
    data[bar * p.columns + column] = select(0.0, scaled, deviation > 0.0 && is_finite(value));
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = id.y * ROW + id.x;
    let column = index % p.columns;
    let start = index / p.columns * BARS;
    if (start >= p.bars || is_mark(column, p.marked)) {
        return;
    }
    let statistic = statistics[column];
    // A column that is constant but for rounding errors becomes zero instead of amplified noise.
    let useful = statistic.y > 1e-6 * abs(statistic.x) && statistic.y > 1e-20;
    let mean = statistic.x;
    let deviation = select(0.0, statistic.y, useful);
    let end = min(start + BARS, p.bars);
    // Four loads before the first store, so that they wait for memory together.
    for (var bar = start; bar < end; bar += 4u) {
        let a = value(bar, column);
        let b = value(bar + 1u, column);
        let c = value(bar + 2u, column);
        let d = value(bar + 3u, column);
        write(bar, end, column, a, mean, deviation);
        write(bar + 1u, end, column, b, mean, deviation);
        write(bar + 2u, end, column, c, mean, deviation);
        write(bar + 3u, end, column, d, mean, deviation);
    }
}
