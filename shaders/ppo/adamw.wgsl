// AdamW (Loshchilov and Hutter, arXiv 1711.05101, as in PyTorch) over the flat parameter buffer: parameters in x and
// y, networks in z. The first invocation of all moves the loss scale on.

import package::constants::{ROW, WG};

struct NetworkSlice {
    first: u32,
    length: u32,
    rate: f32,
    agent: u32,
}

struct AdamW {
    beta1: f32,
    beta2: f32,
    // 1 - beta, exact in f32 where beta itself is not.
    weight1: f32,
    weight2: f32,
    epsilon: f32,
    decay: f32,
    nets: u32,
    // The dynamic loss scale: factors after a number of good steps in a row (0: it stays), and after a bad one.
    interval: f32,
    growth: f32,
    backoff: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> p: AdamW;
@group(0) @binding(1) var<storage, read> nets: array<NetworkSlice>;
@group(0) @binding(2) var<storage, read> optimizer: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> first: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> second: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> params: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> scalars: array<f32>;

// Halved when a gradient was not finite, doubled after many good steps in a row, as torch.amp.GradScaler does.
fn move_scale() {
    var good = true;
    for (var net = 0u; net < p.nets; net++) {
        good = good && optimizer[net * 2u + 1u].z != 0.0;
    }
    var scale = scalars[9];
    var steps = scalars[10] + 1.0;
    if (!good) {
        // Never zero: it is divided by.
        scale = max(scale * p.backoff, 1e-30);
        steps = 0.0;
    } else if (steps >= p.interval) {
        // Not into infinity.
        scale = select(scale, scale * p.growth, scale * p.growth < 3e38);
        steps = 0.0;
    }
    scalars[9] = scale;
    scalars[10] = steps;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    // Nothing moves once the updates on a rollout have stopped (ppo/epoch).
    if (scalars[12] == 1.0) {
        return;
    }
    if (all(id == vec3<u32>(0u)) && p.interval > 0.0) {
        move_scale();
    }
    let net = nets[id.z];
    let at = id.y * ROW + id.x;
    if (at >= net.length) {
        return;
    }
    let state = optimizer[id.z * 2u];
    let bias = optimizer[id.z * 2u + 1u];
    // Skipped, or not its turn.
    if (bias.z != 1.0) {
        return;
    }
    let i = net.first + at;
    let g = gradient[i] * state.z;
    let m = p.beta1 * first[i] + p.weight1 * g;
    let v = p.beta2 * second[i] + p.weight2 * g * g;
    first[i] = m;
    second[i] = v;
    let rate = state.w;
    let decayed = params[i] - rate * p.decay * params[i];
    params[i] = decayed - rate * (m / bias.x) / (sqrt(v / bias.y) + p.epsilon);
}
