// Mean and deviation of the advantages, mean and mean square of the returns, over the whole rollout, by one workgroup in
// a fixed order.

import package::constants::WG;

struct Moments {
    // f32s of one section of the targets.
    size: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Moments;
@group(0) @binding(1) var<storage, read> targets: array<f32>;
@group(0) @binding(2) var<storage, read_write> scalars: array<f32>;

var<workgroup> lanes: array<vec4<f32>, WG>;

fn total(lane: u32, mine: vec4<f32>) -> vec4<f32> {
    lanes[lane] = mine;
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var other = 0u; other < WG; other++) {
        sum += lanes[other];
    }
    workgroupBarrier();
    return sum;
}

// Advantage, return and its square.
fn terms(i: u32) -> vec4<f32> {
    if (i >= p.size) {
        return vec4<f32>(0.0);
    }
    let r = targets[2u * p.size + i];
    return vec4<f32>(targets[p.size + i], r, r * r, 0.0);
}

fn deviation(i: u32, mean: f32) -> f32 {
    if (i >= p.size) {
        return 0.0;
    }
    let d = targets[p.size + i] - mean;
    return d * d;
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    let count = f32(p.size);
    var sums = vec4<f32>(0.0);
    // Eight a turn, each spelled out: a processor that plays a GPU ends loops after 65,535 turns.
    for (var i = lane; i < p.size; i += 8u * WG) {
        sums += terms(i);
        sums += terms(i + 1u * WG);
        sums += terms(i + 2u * WG);
        sums += terms(i + 3u * WG);
        sums += terms(i + 4u * WG);
        sums += terms(i + 5u * WG);
        sums += terms(i + 6u * WG);
        sums += terms(i + 7u * WG);
    }
    let means = total(lane, sums) / count;
    var squares = 0.0;
    for (var i = lane; i < p.size; i += 8u * WG) {
        squares += deviation(i, means.x);
        squares += deviation(i + 1u * WG, means.x);
        squares += deviation(i + 2u * WG, means.x);
        squares += deviation(i + 3u * WG, means.x);
        squares += deviation(i + 4u * WG, means.x);
        squares += deviation(i + 5u * WG, means.x);
        squares += deviation(i + 6u * WG, means.x);
        squares += deviation(i + 7u * WG, means.x);
    }
    let variance = total(lane, vec4<f32>(squares, 0.0, 0.0, 0.0)).x / count;
    if (lane == 0u) {
        scalars[5] = means.x;
        scalars[6] = 1.0 / (sqrt(variance) + 1e-5);
        scalars[7] = means.y;
        scalars[8] = means.z;
    }
}
