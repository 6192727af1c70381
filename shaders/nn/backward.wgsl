// Gradients with respect to all activations of a stack, for four rows an invocation, from the gradient at the head
// down to the input LayerNorm. The grid is that of nn/forward.

import package::constants::{WG, TANH};
import package::lib::network::{Batch, Role, Layer, MAX_LAYERS};

@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<uniform> roles: array<Role, 2>;
@group(0) @binding(2) var<storage, read> params: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> acts: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> grads: array<vec4<f32>>;

// Derivative of the activation, from its value.
fn slope(a: vec4<f32>) -> vec4<f32> {
    if (TANH == 1u) {
        return 1.0 - a * a;
    }
    return select(vec4<f32>(0.0), vec4<f32>(1.0), a > vec4<f32>(0.0));
}

struct Sums {
    grad: vec4<f32>,
    grad_normed: vec4<f32>,
}

// Stores the gradient of LayerNorm output k and adds its share to the sums that the LayerNorm's own gradient needs.
fn take(role: u32, l: u32, net: u32, row: u32, k: u32, dy: vec4<f32>, mean: vec4<f32>, inverse: vec4<f32>, sums: Sums) -> Sums {
    let s = batch.stride;
    if (k >= roles[role].layer[l].inputs) {
        return sums;
    }
    grads[(roles[role].layer[l].grad_normed + k) * s + row] = dy;
    let g = dy * params[net + roles[role].layer[l].gain + k / 4u][k % 4u];
    let normed = (acts[(roles[role].layer[l].before + k) * s + row] - mean) * inverse;
    return Sums(sums.grad + g, sums.grad_normed + g * normed);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= batch.rows) {
        return;
    }
    let role = batch.first_role + id.y;
    let s = batch.stride;
    let per_slot = batch.agents * batch.quads;
    let agent = (row % per_slot) / batch.quads;
    let net = roles[role].params + agent * roles[role].net_stride;

    for (var step = 0u; step < roles[role].layers; step++) {
        let l = roles[role].layers - 1u - step;
        let inputs = roles[role].layer[l].inputs;
        let outputs = roles[role].layer[l].outputs;
        let stride = roles[role].layer[l].stride;
        let w0 = net + roles[role].layer[l].weights;
        let dz0 = roles[role].layer[l].grad_product * s + row;
        let moments = roles[role].layer[l].moments * s + row;
        let mean = acts[moments];
        let inverse = acts[moments + s];
        var sums = Sums(vec4<f32>(0.0), vec4<f32>(0.0));
        for (var k = 0u; k < inputs; k += 8u) {
            var d0 = vec4<f32>(0.0); var d1 = vec4<f32>(0.0); var d2 = vec4<f32>(0.0); var d3 = vec4<f32>(0.0);
            var d4 = vec4<f32>(0.0); var d5 = vec4<f32>(0.0); var d6 = vec4<f32>(0.0); var d7 = vec4<f32>(0.0);
            for (var c = 0u; c < outputs; c += 4u) {
                let z = dz0 + c * s;
                // Columns: the four gradients; a row vector of weights times it sums over the outputs.
                let z0 = grads[z];
                let z1 = grads[z + s];
                let z2 = grads[z + 2u * s];
                let z3 = grads[z + 3u * s];
                let w = w0 + k * stride + c / 4u;
                let w_0 = params[w];
                let w_1 = params[w + stride];
                let w_2 = params[w + 2u * stride];
                let w_3 = params[w + 3u * stride];
                let w_4 = params[w + 4u * stride];
                let w_5 = params[w + 5u * stride];
                let w_6 = params[w + 6u * stride];
                let w_7 = params[w + 7u * stride];
                d0 += z0 * w_0.x + z1 * w_0.y + z2 * w_0.z + z3 * w_0.w;
                d1 += z0 * w_1.x + z1 * w_1.y + z2 * w_1.z + z3 * w_1.w;
                d2 += z0 * w_2.x + z1 * w_2.y + z2 * w_2.z + z3 * w_2.w;
                d3 += z0 * w_3.x + z1 * w_3.y + z2 * w_3.z + z3 * w_3.w;
                d4 += z0 * w_4.x + z1 * w_4.y + z2 * w_4.z + z3 * w_4.w;
                d5 += z0 * w_5.x + z1 * w_5.y + z2 * w_5.z + z3 * w_5.w;
                d6 += z0 * w_6.x + z1 * w_6.y + z2 * w_6.z + z3 * w_6.w;
                d7 += z0 * w_7.x + z1 * w_7.y + z2 * w_7.z + z3 * w_7.w;
            }
            sums = take(role, l, net, row, k, d0, mean, inverse, sums);
            sums = take(role, l, net, row, k + 1u, d1, mean, inverse, sums);
            sums = take(role, l, net, row, k + 2u, d2, mean, inverse, sums);
            sums = take(role, l, net, row, k + 3u, d3, mean, inverse, sums);
            sums = take(role, l, net, row, k + 4u, d4, mean, inverse, sums);
            sums = take(role, l, net, row, k + 5u, d5, mean, inverse, sums);
            sums = take(role, l, net, row, k + 6u, d6, mean, inverse, sums);
            sums = take(role, l, net, row, k + 7u, d7, mean, inverse, sums);
        }
        if (l > 0u) {
            let average = sums.grad / f32(inputs);
            let slope_normed = sums.grad_normed / f32(inputs);
            let before = roles[role].layer[l].before * s + row;
            let dy0 = roles[role].layer[l].grad_normed * s + row;
            let below = roles[role].layer[l - 1u].grad_product * s + row;
            let gain = net + roles[role].layer[l].gain;
            // Rows past the width, up to a multiple of four, are read as part of a quad of columns: zero.
            for (var k = 0u; k < (inputs + 3u) / 4u * 4u; k++) {
                var dz = vec4<f32>(0.0);
                if (k < inputs) {
                    let a = acts[before + k * s];
                    let g = grads[dy0 + k * s] * params[gain + k / 4u][k % 4u];
                    dz = inverse * (g - average - (a - mean) * inverse * slope_normed) * slope(a);
                }
                grads[below + k * s] = dz;
            }
        }
    }
}
