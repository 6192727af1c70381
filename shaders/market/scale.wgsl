// Scales every feature of every instrument by mean and deviation of the training bars: one invocation per column.

import package::constants::WG;
import package::lib::numeric::{add_compensated, is_finite};

struct Scale {
    bars: u32,
    columns: u32,
    // Training bars, used when `fit` is 1; otherwise the statistics are given.
    first: u32,
    end: u32,
    fit: u32,
    limit: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> p: Scale;
// Mean and deviation, column by column.
@group(0) @binding(1) var<storage, read_write> statistics: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> data: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = id.x;
    if (column >= p.columns) {
        return;
    }
    var statistic = statistics[column];
    if (p.fit == 1u) {
        let count = f32(p.end - p.first);
        var sum = vec2<f32>(0.0);
        for (var bar = p.first; bar < p.end; bar++) {
            sum = add_compensated(sum, data[bar * p.columns + column]);
        }
        let mean = sum.x / count;
        var squares = vec2<f32>(0.0);
        for (var bar = p.first; bar < p.end; bar++) {
            let d = data[bar * p.columns + column] - mean;
            squares = add_compensated(squares, d * d);
        }
        statistic = vec2<f32>(mean, sqrt(squares.x / count));
        statistics[column] = statistic;
    }
    // A column that never moves says nothing: zero, not noise blown up.
    let useful = statistic.y > 1e-6 * abs(statistic.x) && statistic.y > 1e-20;
    for (var bar = 0u; bar < p.bars; bar++) {
        let at = bar * p.columns + column;
        let scaled = (data[at] - statistic.x) / statistic.y;
        data[at] = select(0.0, clamp(scaled, -p.limit, p.limit), useful && is_finite(data[at]));
    }
}
