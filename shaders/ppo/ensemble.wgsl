// Moves the outputs of an ensemble's first policy towards those of another one: mean += (x - mean) weight. With the weights 1/2, 1/3, ..
// for the second, third, .. policy the result is the mean of all, and that of equal outputs is exactly the output. One invocation takes
// an output of four environments of one agent.

import package::constants::{ROW, WG};

struct Ensemble {
    // Quads of rows.
    rows: u32,
    outputs: u32,
    // vec4s from one output of a row to the next, of the mean and of the other policy.
    stride: u32,
    other_stride: u32,
    weight: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Ensemble;
@group(0) @binding(1) var<storage, read> other: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> mean: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = id.y * ROW + id.x;
    if (index >= p.rows * p.outputs) {
        return;
    }
    let row = index % p.rows;
    let output = index / p.rows;
    let at = output * p.stride + row;
    let so_far = mean[at];
    mean[at] = so_far + (other[output * p.other_stride + row] - so_far) * p.weight;
}
