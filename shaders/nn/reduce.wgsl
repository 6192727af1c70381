// Sums the splits of nn/weight_gradient_* in order and adds them to the accumulated gradient.

import package::constants::{ROW, WG};

struct Reduce {
    // vec4s of the parameter buffer, and splits.
    length: u32,
    splits: u32,
    // 1: the first micro-batch of an update, which overwrites.
    first: u32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> reduce: Reduce;
@group(0) @binding(1) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> gradient: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * ROW + id.x;
    if (i >= reduce.length) {
        return;
    }
    var sum = vec4<f32>(0.0);
    for (var split_index = 0u; split_index < reduce.splits; split_index++) {
        sum += partials[split_index * reduce.length + i];
    }
    if (reduce.first == 0u) {
        sum += gradient[i];
    }
    gradient[i] = sum;
}
