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
    var number = 0u;
    // The loads of an iteration wait for memory together.
    for (; number + 8u <= reduce.splits; number += 8u) {
        let at = number * reduce.length + i;
        let a = partials[at];
        let b = partials[at + reduce.length];
        let c = partials[at + 2u * reduce.length];
        let d = partials[at + 3u * reduce.length];
        let e = partials[at + 4u * reduce.length];
        let f = partials[at + 5u * reduce.length];
        let g = partials[at + 6u * reduce.length];
        let h = partials[at + 7u * reduce.length];
        sum = sum + a + b + c + d + e + f + g + h;
    }
    for (; number < reduce.splits; number++) {
        sum += partials[number * reduce.length + i];
    }
    if (reduce.first == 0u) {
        sum += gradient[i];
    }
    gradient[i] = sum;
}
