// Global gradient norm of every network without the loss scale, and the factors that AdamW derives from it. One workgroup a network,
// fixed order.

import package::constants::WG;
import package::lib::numeric::{expm1, is_finite};
import package::lib::optimizer_step::{APPLIED, skipped, skipped_in_a_row, waiting};
import package::scalars::{LOSS_SCALE, STOPPED};

struct NetworkSlice {
    // First vec4 and number of vec4s.
    first: u32,
    length: u32,
    // Learning rate at iteration 0.
    rate: f32,
    // Number of the agent it belongs to, counted from 1; 0: all agents.
    agent: u32,
}

struct Clip {
    max_norm: f32,
    log_beta1: f32,
    log_beta2: f32,
    // 1 / iterations over which the learning rate falls to zero; 0 keeps it.
    decay: f32,
    // HAPPO: number of the agent that is trained, counted from 1; 0: all agents.
    agent_step: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: Clip;
@group(0) @binding(1) var<storage, read> nets: array<NetworkSlice>;
@group(0) @binding(2) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> iteration: array<u32>;
// Two vec4s a network: (steps taken, norm, factor on the scaled gradient, learning rate), (1 - beta1^t, 1 - beta2^t, state of the
// step, steps skipped so far): lib/optimizer_step has the states.
@group(0) @binding(4) var<storage, read_write> optimizer: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> scalars: array<f32>;

var<workgroup> lanes: array<f32, WG>;

// Past the end the last one is read again: without branches between them, the loads of an iteration wait for memory together.
fn square(net: NetworkSlice, i: u32) -> f32 {
    let g = gradient[net.first + min(i, net.length - 1u)];
    return select(0.0, dot(g, g), i < net.length);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let net = nets[group.x];
    let waits = p.agent_step > 0u && net.agent != p.agent_step;
    let length = select(net.length, 0u, waits);
    var sum = 0.0;
    // Unrolled by eight: llvmpipe stops loops after 65,535 iterations.
    for (var i = lane; i < length; i += 8u * WG) {
        sum += square(net, i);
        sum += square(net, i + 1u * WG);
        sum += square(net, i + 2u * WG);
        sum += square(net, i + 3u * WG);
        sum += square(net, i + 4u * WG);
        sum += square(net, i + 5u * WG);
        sum += square(net, i + 6u * WG);
        sum += square(net, i + 7u * WG);
    }
    lanes[lane] = sum;
    workgroupBarrier();
    // No update after the stop of this rollout's updates (ppo/epoch).
    if (lane != 0u || scalars[STOPPED] == 1.0) {
        return;
    }
    let own = optimizer[group.x * 2u + 1u];
    let in_a_row = skipped_in_a_row(own.z);
    if (waits) {
        optimizer[group.x * 2u + 1u].z = waiting(in_a_row);
        return;
    }
    var squares = 0.0;
    for (var other = 0u; other < WG; other++) {
        squares += lanes[other];
    }
    let unscale = 1.0 / scalars[LOSS_SCALE];
    let norm = sqrt(squares) * unscale;
    let before = optimizer[group.x * 2u];
    // A step with a non-finite gradient would destroy the weights: it is skipped and counted.
    let usable = is_finite(norm);
    let steps = before.x + select(0.0, 1.0, usable);
    let factor = select(1.0, min(1.0, p.max_norm / (norm + 1e-6)), p.max_norm > 0.0);
    let rate = net.rate * max(0.0, 1.0 - f32(iteration[0]) * p.decay);
    optimizer[group.x * 2u] = vec4<f32>(steps, norm, factor * unscale, rate);
    optimizer[group.x * 2u + 1u] = vec4<f32>(
        -expm1(steps * p.log_beta1),
        -expm1(steps * p.log_beta2),
        select(skipped(in_a_row + 1.0), APPLIED, usable),
        own.w + select(1.0, 0.0, usable),
    );
}
