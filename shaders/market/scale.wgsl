// Scales every feature of every instrument by its mean and standard deviation over the training bars. One invocation per
// column.

import package::constants::WG;
import package::lib::numeric::{add_compensated, is_finite};

struct Scale {
    bars: u32,
    columns: u32,
    // Range of the training bars, read only if `fit` is 1; if it is 0, the statistics are given.
    first: u32,
    end: u32,
    fit: u32,
    limit: f32,
    // Always 0; `add_compensated` explains why it is not a constant.
    zero: u32,
    // Features per instrument if the last one marks filled bars and stays as it is; 0 if none does.
    marked: u32,
}

@group(0) @binding(0) var<uniform> p: Scale;
// [column][mean, standard deviation].
@group(0) @binding(1) var<storage, read_write> statistics: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> data: array<f32>;

// The sum including a bar, if it is a training bar.
fn add(sum: vec2<f32>, bar: u32, column: u32) -> vec2<f32> {
    if (bar >= p.end) {
        return sum;
    }
    return add_compensated(sum, data[bar * p.columns + column], p.zero);
}

// The sum of squared deviations including a bar, if it is a training bar.
fn add_square(squares: vec2<f32>, bar: u32, column: u32, mean: f32) -> vec2<f32> {
    if (bar >= p.end) {
        return squares;
    }
    let d = data[bar * p.columns + column] - mean;
    return add_compensated(squares, d * d, p.zero);
}

// Scales one value; `deviation` is 0 for a column that is constant in training.
fn scale(bar: u32, column: u32, mean: f32, deviation: f32) {
    if (bar >= p.bars) {
        return;
    }
    let at = bar * p.columns + column;
    let scaled = clamp((data[at] - mean) / deviation, -p.limit, p.limit);
    data[at] = select(0.0, scaled, deviation > 0.0 && is_finite(data[at]));
}

// Loops process eight bars per iteration, because llvmpipe counts the iterations of an invocation and silently stops its
// loops after 65,535.
@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = id.x;
    if (column >= p.columns) {
        return;
    }
    if (p.marked > 0u && (column + 1u) % p.marked == 0u) {
        statistics[column] = vec2<f32>(0.0, 1.0);
        return;
    }
    var statistic = statistics[column];
    if (p.fit == 1u) {
        let count = f32(p.end - p.first);
        var sum = vec2<f32>(0.0);
        for (var bar = p.first; bar < p.end; bar += 8u) {
            sum = add(add(add(add(sum, bar, column), bar + 1u, column), bar + 2u, column), bar + 3u, column);
            sum = add(add(add(add(sum, bar + 4u, column), bar + 5u, column), bar + 6u, column), bar + 7u, column);
        }
        let mean = sum.x / count;
        var squares = vec2<f32>(0.0);
        for (var bar = p.first; bar < p.end; bar += 8u) {
            squares = add_square(squares, bar, column, mean);
            squares = add_square(squares, bar + 1u, column, mean);
            squares = add_square(squares, bar + 2u, column, mean);
            squares = add_square(squares, bar + 3u, column, mean);
            squares = add_square(squares, bar + 4u, column, mean);
            squares = add_square(squares, bar + 5u, column, mean);
            squares = add_square(squares, bar + 6u, column, mean);
            squares = add_square(squares, bar + 7u, column, mean);
        }
        statistic = vec2<f32>(mean, sqrt(squares.x / count));
        statistics[column] = statistic;
    }
    // A column that is constant but for rounding errors becomes zero instead of amplified noise.
    let useful = statistic.y > 1e-6 * abs(statistic.x) && statistic.y > 1e-20;
    let deviation = select(0.0, statistic.y, useful);
    for (var bar = 0u; bar < p.bars; bar += 8u) {
        scale(bar, column, statistic.x, deviation);
        scale(bar + 1u, column, statistic.x, deviation);
        scale(bar + 2u, column, statistic.x, deviation);
        scale(bar + 3u, column, statistic.x, deviation);
        scale(bar + 4u, column, statistic.x, deviation);
        scale(bar + 5u, column, statistic.x, deviation);
        scale(bar + 6u, column, statistic.x, deviation);
        scale(bar + 7u, column, statistic.x, deviation);
    }
}
