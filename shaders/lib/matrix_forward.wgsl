// The layers of nn/stream/forward with matrix units: lib/cooperative multiplies four matrices of columns at a time.

import package::constants::{WG, QUADS, SIZE};
import package::lib::cooperative::{weights, clear, stage, multiply, drain, sum_of, DEPTH, WIDTH};
import package::lib::forward::{Row, Inputs, input, clamped_input};
import package::lib::layer_norm::{Stats, no_stats, stats_of_one, join};
import package::lib::network::Layer;
import package::lib::target::{target_of, put};

// Invocations that share a quad of rows.
const PARTS: u32 = WG / QUADS;

var<workgroup> parts: array<Stats, WG>;

struct Moments {
    mean: vec4<f32>,
    scale: vec4<f32>,
}

fn no_moments() -> Moments {
    return Moments(vec4<f32>(0.0), vec4<f32>(1.0));
}

// Mean and inverse deviation of a quad's inputs. Contains barriers.
fn moments_of(inputs: Inputs, count: u32, local: u32) -> Moments {
    var mine = no_stats();
    for (var k = local / QUADS; k < count; k += PARTS) {
        mine = join(mine, stats_of_one(input(inputs, k)));
    }
    parts[local] = mine;
    workgroupBarrier();
    let q = local % QUADS;
    var all = parts[q];
    for (var p = 1u; p < PARTS; p++) {
        let other = parts[p * QUADS + q];
        if (other.count > 0.0) {
            all = join(all, other);
        }
    }
    workgroupBarrier();
    return Moments(all.mean, 1.0 / sqrt(all.squares / all.count + 1e-5));
}

// Product, bias, activation and stores of one layer.
fn dense(
    inputs: Inputs,
    by: Moments,
    layer: Layer,
    net: u32,
    agent_bias: u32,
    own: Row,
    rows: array<Row, 2>,
    is_head: bool,
    local: u32,
    subgroup: u32,
) {
    let q = local % QUADS;
    let part = local / QUADS;
    let bias = 4u * (net + layer.bias + own.agent * agent_bias * layer.stride);
    let to = target_of(own, layer, is_head);
    for (var c = 0u; c < layer.outputs; c += WIDTH) {
        clear();
        for (var k = 0u; k < layer.inputs; k += DEPTH) {
            for (var i = part; i < DEPTH; i += PARTS) {
                let value = (clamped_input(inputs, k + i) - by.mean) * by.scale;
                stage(q, i, select(vec4<f32>(0.0), value, k + i < layer.inputs));
            }
            workgroupBarrier();
            let w = 4u * (net + layer.weights + k * layer.stride) + c;
            multiply(subgroup, w, 4u * layer.stride, min(DEPTH, layer.inputs - k), layer.outputs - c);
            workgroupBarrier();
        }
        for (var j = 0u; j < 4u; j++) {
            let start = c + j * SIZE;
            if (start < layer.outputs) {
                drain(subgroup, j);
                workgroupBarrier();
                for (var i = part; i < min(SIZE, layer.outputs - start); i += PARTS) {
                    let column = start + i;
                    _ = put(to, column, sum_of(q, i) + f32(weights[bias + column]));
                }
                workgroupBarrier();
            }
        }
    }
}
