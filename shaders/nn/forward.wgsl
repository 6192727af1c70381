// A whole stack for four rows an invocation: LayerNorm, then (Linear, activation, LayerNorm) for every hidden layer,
// then the head. All agents and both networks travel in one dispatch: rows in x, the role in y.

import package::constants::{WG, TANH};
import package::lib::network::{Batch, Role, Layer, MAX_LAYERS};

@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<uniform> roles: array<Role, 2>;
@group(0) @binding(2) var<storage, read> params: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> observations: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> acts: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> head: array<vec4<f32>>;

fn activate(x: vec4<f32>) -> vec4<f32> {
    if (TANH == 1u) {
        // Some drivers return NaN for tanh of large arguments; from 9.02 on the result is 1 in f32 anyway. A NaN that
        // comes in must come out, which clamp does not promise.
        let bits = bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
        let bounded = tanh(clamp(x, vec4<f32>(-10.0), vec4<f32>(10.0)));
        return select(bounded, x, bits > vec4<u32>(0x7f800000u));
    }
    // Not max(x, 0), which may turn NaN into 0.
    return select(x, vec4<f32>(0.0), x < vec4<f32>(0.0));
}

// Normalises `before` into `after`.
fn layer_norm(role: u32, l: u32, net: u32, row: u32) {
    let s = batch.stride;
    let inputs = roles[role].layer[l].inputs;
    let before = roles[role].layer[l].before * s + row;
    let after = roles[role].layer[l].after * s + row;
    let gain = net + roles[role].layer[l].gain;
    let offset = net + roles[role].layer[l].offset;
    var sum = vec4<f32>(0.0);
    for (var k = 0u; k < inputs; k++) {
        sum += acts[before + k * s];
    }
    let mean = sum / f32(inputs);
    var squares = vec4<f32>(0.0);
    for (var k = 0u; k < inputs; k++) {
        let d = acts[before + k * s] - mean;
        squares += d * d;
    }
    let inverse = 1.0 / sqrt(squares / f32(inputs) + 1e-5);
    let moments = roles[role].layer[l].moments * s + row;
    acts[moments] = mean;
    acts[moments + s] = inverse;
    for (var k4 = 0u; k4 * 4u < inputs; k4++) {
        let g = params[gain + k4];
        let b = params[offset + k4];
        for (var j = 0u; j < min(4u, inputs - k4 * 4u); j++) {
            let k = k4 * 4u + j;
            acts[after + k * s] = (acts[before + k * s] - mean) * inverse * g[j] + b[j];
        }
    }
}

struct Target {
    index: u32,
    limit: u32,
    is_head: bool,
}

fn put(to: Target, column: u32, value: vec4<f32>) {
    if (column >= to.limit) {
        return;
    }
    if (to.is_head) {
        head[to.index + column * batch.stride] = value;
    } else {
        acts[to.index + column * batch.stride] = activate(value);
    }
}

// One matrix product, sixteen columns at a time while more than four are left.
fn linear(role: u32, l: u32, net: u32, bias_row: u32, row: u32, to: Target) {
    let s = batch.stride;
    let inputs = roles[role].layer[l].inputs;
    let outputs = roles[role].layer[l].outputs;
    let stride = roles[role].layer[l].stride;
    let x0 = roles[role].layer[l].after * s + row;
    let w0 = net + roles[role].layer[l].weights;
    let b0 = net + roles[role].layer[l].bias + bias_row * stride;
    var c = 0u;
    while (c < outputs) {
        let c4 = c / 4u;
        if (outputs - c > 4u) {
            let b_0 = params[b0 + c4];
            let b_1 = params[b0 + c4 + 1u];
            let b_2 = params[b0 + c4 + 2u];
            let b_3 = params[b0 + c4 + 3u];
            var y0 = vec4<f32>(b_0.x); var y1 = vec4<f32>(b_0.y); var y2 = vec4<f32>(b_0.z); var y3 = vec4<f32>(b_0.w);
            var y4 = vec4<f32>(b_1.x); var y5 = vec4<f32>(b_1.y); var y6 = vec4<f32>(b_1.z); var y7 = vec4<f32>(b_1.w);
            var y8 = vec4<f32>(b_2.x); var y9 = vec4<f32>(b_2.y); var ya = vec4<f32>(b_2.z); var yb = vec4<f32>(b_2.w);
            var yc = vec4<f32>(b_3.x); var yd = vec4<f32>(b_3.y); var ye = vec4<f32>(b_3.z); var yf = vec4<f32>(b_3.w);
            for (var k = 0u; k < inputs; k++) {
                let x = acts[x0 + k * s];
                let w = w0 + k * stride + c4;
                let w_0 = params[w];
                let w_1 = params[w + 1u];
                let w_2 = params[w + 2u];
                let w_3 = params[w + 3u];
                y0 += x * w_0.x; y1 += x * w_0.y; y2 += x * w_0.z; y3 += x * w_0.w;
                y4 += x * w_1.x; y5 += x * w_1.y; y6 += x * w_1.z; y7 += x * w_1.w;
                y8 += x * w_2.x; y9 += x * w_2.y; ya += x * w_2.z; yb += x * w_2.w;
                yc += x * w_3.x; yd += x * w_3.y; ye += x * w_3.z; yf += x * w_3.w;
            }
            put(to, c, y0); put(to, c + 1u, y1); put(to, c + 2u, y2); put(to, c + 3u, y3);
            put(to, c + 4u, y4); put(to, c + 5u, y5); put(to, c + 6u, y6); put(to, c + 7u, y7);
            put(to, c + 8u, y8); put(to, c + 9u, y9); put(to, c + 10u, ya); put(to, c + 11u, yb);
            put(to, c + 12u, yc); put(to, c + 13u, yd); put(to, c + 14u, ye); put(to, c + 15u, yf);
            c += 16u;
        } else {
            let b_0 = params[b0 + c4];
            var y0 = vec4<f32>(b_0.x); var y1 = vec4<f32>(b_0.y); var y2 = vec4<f32>(b_0.z); var y3 = vec4<f32>(b_0.w);
            for (var k = 0u; k < inputs; k++) {
                let x = acts[x0 + k * s];
                let w_0 = params[w0 + k * stride + c4];
                y0 += x * w_0.x; y1 += x * w_0.y; y2 += x * w_0.z; y3 += x * w_0.w;
            }
            put(to, c, y0); put(to, c + 1u, y1); put(to, c + 2u, y2); put(to, c + 3u, y3);
            c += 4u;
        }
    }
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
    let slot = batch.first_slot + row / per_slot;
    let agent = (row % per_slot) / batch.quads;
    let quad = row % batch.quads;
    let net = roles[role].params + agent * roles[role].net_stride;

    let before = roles[role].layer[0].before * s + row;
    if (roles[role].joint == 1u) {
        for (var other = 0u; other < batch.agents; other++) {
            for (var f = 0u; f < batch.obs_dim; f++) {
                let value = observations[((slot * batch.obs_dim + f) * batch.agents + other) * batch.quads + quad];
                acts[before + (other * batch.obs_dim + f) * s] = value;
            }
        }
    } else {
        for (var f = 0u; f < batch.obs_dim; f++) {
            let value = observations[((slot * batch.obs_dim + f) * batch.agents + agent) * batch.quads + quad];
            acts[before + f * s] = value;
        }
    }

    let layers = roles[role].layers;
    for (var l = 0u; l < layers; l++) {
        layer_norm(role, l, net, row);
        var to: Target;
        to.limit = roles[role].layer[l].outputs;
        to.is_head = l + 1u == layers;
        if (to.is_head) {
            to.index = select(batch.head_actor, batch.head_critic, role == 1u) + row;
        } else {
            to.index = roles[role].layer[l + 1u].before * s + row;
        }
        linear(role, l, net, select(0u, agent * roles[role].agent_bias, l == 0u), row, to);
    }
}
