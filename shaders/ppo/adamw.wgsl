// AdamW (Loshchilov and Hutter, arXiv 1711.05101, as in PyTorch) over the flat parameter buffer: parameters in x and y, networks in z.
// The first invocation of the dispatch updates the loss scale.

import package::constants::{ROW, WG};
import package::lib::optimizer_step::{APPLIED, is_skipped};
import package::scalars::{LOSS_SCALE, GOOD_STEPS, STOPPED};

struct NetworkSlice {
    first: u32,
    length: u32,
    rate: f32,
    agent: u32,
}

struct AdamW {
    beta1: f32,
    beta2: f32,
    // 1 - beta, computed in f64: 1 minus the f32 of beta would be inexact.
    weight1: f32,
    weight2: f32,
    epsilon: f32,
    decay: f32,
    nets: u32,
    // Dynamic loss scale: number of finite steps in a row before it grows (0: it is constant), and the factors of growth and backoff.
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
fn update_loss_scale() {
    var good = true;
    for (var net = 0u; net < p.nets; net++) {
        good = good && !is_skipped(optimizer[net * 2u + 1u].z);
    }
    var scale = scalars[LOSS_SCALE];
    var steps = scalars[GOOD_STEPS] + 1.0;
    if (!good) {
        // Above zero, because gradients are divided by it.
        scale = max(scale * p.backoff, 1e-30);
        steps = 0.0;
    } else if (steps >= p.interval) {
        // No growth to infinity.
        scale = select(scale, scale * p.growth, scale * p.growth < 3e38);
        steps = 0.0;
    }
    scalars[LOSS_SCALE] = scale;
    scalars[GOOD_STEPS] = steps;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    // No update after the stop of this rollout's updates (ppo/epoch).
    if (scalars[STOPPED] == 1.0) {
        return;
    }
    if (all(id == vec3<u32>(0u)) && p.interval > 0.0) {
        update_loss_scale();
    }
    let net = nets[id.z];
    let at = id.y * ROW + id.x;
    if (at >= net.length) {
        return;
    }
    let state = optimizer[id.z * 2u];
    let bias = optimizer[id.z * 2u + 1u];
    // The step is skipped, or another agent is trained (HAPPO).
    if (bias.z != APPLIED) {
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
