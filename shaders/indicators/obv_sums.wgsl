// Sums of the on-balance volume over chunks of every row, from which indicators/obv_starts computes the value before each. One
// invocation per chunk.

import package::constants::{ROW, WG};
import package::lib::numeric::{add_compensated, is_nan};
import package::lib::obv::{Parameters, difference};

@group(0) @binding(0) var<uniform> p: Parameters;
// As in indicators/panel.
@group(0) @binding(1) var<storage, read> candles: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> volumes: array<f32>;
// [row][chunk]: the sum, its rounding error, 1 if it restarts in the chunk, 1 if the chunk's last bar is complete.
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>;

fn is_complete(candle: vec4<f32>, volume: f32) -> bool {
    return !(is_nan(candle.x) || is_nan(candle.z) || is_nan(candle.w) || is_nan(volume));
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let lane = id.y * ROW + id.x;
    if (lane >= p.rows * p.chunks) {
        return;
    }
    let first = (lane / p.chunks % p.series) * p.stride * 4u;
    let chunk = lane % p.chunks;
    let begin = chunk * p.length * 4u;
    let end = min((chunk + 1u) * p.length, p.stride) * 4u;
    var before = vec2<f32>(0.0);
    var known = false;
    if (begin > 0u) {
        let candle = candles[first + begin - 1u];
        before = candle.xy;
        known = is_complete(candle, volumes[first + begin - 1u]);
    }
    var sum = vec2<f32>(0.0);
    var restarts = 0.0;
    for (var at = first + begin; at < first + end; at++) {
        let candle = candles[at];
        let volume = volumes[at];
        let complete = is_complete(candle, volume);
        if (complete && known) {
            sum = add_compensated(sum, sign(difference(candle.xy, before, p.zero)) * volume, p.zero);
        } else {
            sum = vec2<f32>(select(0.0, volume, complete), 0.0);
            restarts = 1.0;
        }
        before = candle.xy;
        known = complete;
    }
    sums[lane] = vec4<f32>(sum, restarts, select(0.0, 1.0, known));
}
