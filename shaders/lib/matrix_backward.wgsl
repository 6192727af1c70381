// The layers of nn/stream/backward with matrix units: lib/cooperative multiplies four matrices of inputs at a time.

import package::constants::{WG, TILE, QUADS, SIZE};
import package::lib::backward::{grads, Row, below_of, store_gradient};
import package::lib::cooperative::{clear, stage, multiply, drain, sum_of, DEPTH, WIDTH};
import package::lib::network::Layer;
import package::lib::quad::of_quad;

// Invocations that share a quad of rows.
const PARTS: u32 = WG / QUADS;

var<workgroup> parts: array<vec4<f32>, WG>;

// The sum of all invocations' parts of a quad. Begins with a barrier.
fn sum_of_parts(mine: vec4<f32>, local: u32) -> vec4<f32> {
    workgroupBarrier();
    parts[local] = mine;
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var p = 0u; p < PARTS; p++) {
        sum += parts[p * QUADS + local % QUADS];
    }
    return sum;
}

// Gradients of all normalised inputs of a layer, as in lib/lanes_backward; the first of `rows` is the own one.
fn product(layer: Layer, w0: u32, above: u32, rows: array<Row, 2>, local: u32, subgroup: u32) {
    let q = local % QUADS;
    let part = local / QUADS;
    let below = below_of(rows[0], layer);
    for (var k = 0u; k < layer.inputs; k += WIDTH) {
        clear();
        for (var c = 0u; c < layer.outputs; c += DEPTH) {
            for (var i = part; i < DEPTH; i += PARTS) {
                let dz = of_quad(grads[above + min(c + i, layer.outputs - 1u) * TILE]);
                stage(q, i, select(vec4<f32>(0.0), dz, c + i < layer.outputs));
            }
            workgroupBarrier();
            let w = 4u * (w0 + c * layer.transposed_stride) + k;
            multiply(subgroup, w, 4u * layer.transposed_stride, min(DEPTH, layer.outputs - c), layer.inputs - k);
            workgroupBarrier();
        }
        for (var j = 0u; j < 4u; j++) {
            let start = k + j * SIZE;
            if (start < layer.inputs) {
                drain(subgroup, j);
                workgroupBarrier();
                for (var i = part; i < min(SIZE, layer.inputs - start); i += PARTS) {
                    store_gradient(below, start + i, sum_of(q, i));
                }
                workgroupBarrier();
            }
        }
    }
}
