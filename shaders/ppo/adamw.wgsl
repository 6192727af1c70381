// AdamW (Loshchilov and Hutter, arXiv 1711.05101, as in PyTorch) over the flat parameter buffer: parameters in x, networks in z. Every
// workgroup computes the norm of its network's gradient without the loss scale, from the sums of nn/reduce in a fixed order, and
// what follows from it. The first one leaves the network's new optimizer state beside the old one, which the others read.

import package::constants::WG;
import package::lib::network::NetworkSlice;
import package::lib::numeric::{expm1, is_finite};
import package::lib::optimizer_step::{APPLIED, skipped, skipped_in_a_row, waiting};
import package::lib::total::total;
import package::optimizer::STATE;
import package::scalars::{LOSS_SCALE, STOPPED, RATE_SHARE};

struct AdamW {
    beta1: f32,
    beta2: f32,
    // 1 - beta, computed in f64: 1 minus the f32 of beta would be inexact.
    weight1: f32,
    weight2: f32,
    log_beta1: f32,
    log_beta2: f32,
    epsilon: f32,
    decay: f32,
    // Largest norm of the gradient; 0 does not clip.
    max_norm: f32,
    // Learning rates before their decay.
    actor_rate: f32,
    critic_rate: f32,
    // HAPPO: number of the agent that is trained, counted from 1; 0: all agents.
    agent_step: u32,
    // Place of the first tile's sum of squares.
    squares: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: AdamW;
@group(0) @binding(1) var<storage, read> nets: array<NetworkSlice>;
// STATE numbers a network.
@group(0) @binding(2) var<storage, read> optimizer: array<f32>;
// The state after this step, then the tiles' sums of squares.
@group(0) @binding(3) var<storage, read_write> step: array<f32>;
@group(0) @binding(4) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> first: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> second: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> params: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> scalars: array<f32>;

// Past the end the last one is read again: without branches between them, the loads of an iteration wait for memory together.
fn squares_of(net: NetworkSlice, tile: u32) -> f32 {
    let found = step[p.squares + net.first_tile + min(tile, net.tiles - 1u)];
    return select(0.0, found, tile < net.tiles);
}

// Sum of the squares of a network's gradient. Has barriers.
fn sum_squares(net: NetworkSlice, local: u32) -> f32 {
    var sum = 0.0;
    for (var tile = local; tile < net.tiles; tile += 4u * WG) {
        sum += squares_of(net, tile);
        sum += squares_of(net, tile + 1u * WG);
        sum += squares_of(net, tile + 2u * WG);
        sum += squares_of(net, tile + 3u * WG);
    }
    return total(local, vec4<f32>(sum)).x;
}

fn leave(at: u32, taken: vec4<f32>, others: vec4<f32>) {
    step[at] = taken.x;
    step[at + 1u] = taken.y;
    step[at + 2u] = taken.z;
    step[at + 3u] = taken.w;
    step[at + 4u] = others.x;
    step[at + 5u] = others.y;
    step[at + 6u] = others.z;
    step[at + 7u] = others.w;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    // No update after the stop of this rollout's updates (lib/minibatch).
    if (scalars[STOPPED] == 1.0) {
        return;
    }
    let net = nets[group.z];
    let own = group.z * STATE;
    let in_a_row = skipped_in_a_row(optimizer[own + 6u]);
    let leaves = group.x == 0u && local == 0u;
    // Another agent is trained.
    if (p.agent_step > 0u && net.agent != p.agent_step) {
        if (leaves) {
            let taken = vec4<f32>(optimizer[own], optimizer[own + 1u], optimizer[own + 2u], optimizer[own + 3u]);
            leave(own, taken, vec4<f32>(optimizer[own + 4u], optimizer[own + 5u], waiting(in_a_row), optimizer[own + 7u]));
        }
        return;
    }
    let unscale = 1.0 / scalars[LOSS_SCALE];
    let norm = sqrt(sum_squares(net, local)) * unscale;
    // A step with a non-finite gradient would destroy the weights: it is skipped and counted.
    let usable = is_finite(norm);
    let steps = optimizer[own] + select(0.0, 1.0, usable);
    let factor = select(1.0, min(1.0, p.max_norm / (norm + 1e-6)), p.max_norm > 0.0) * unscale;
    let rate = select(p.actor_rate, p.critic_rate, net.stack == 1u) * scalars[RATE_SHARE];
    let bias = vec2<f32>(-expm1(steps * p.log_beta1), -expm1(steps * p.log_beta2));
    if (leaves) {
        let state = select(skipped(in_a_row + 1.0), APPLIED, usable);
        let others = vec4<f32>(bias, state, optimizer[own + 7u] + select(1.0, 0.0, usable));
        leave(own, vec4<f32>(steps, norm, factor, rate), others);
    }
    if (!usable) {
        return;
    }
    for (var at = group.x * WG + local; at < net.length; at += count.x * WG) {
        let i = net.params + at;
        let g = gradient[i] * factor;
        let m = p.beta1 * first[i] + p.weight1 * g;
        let v = p.beta2 * second[i] + p.weight2 * g * g;
        first[i] = m;
        second[i] = v;
        let decayed = params[i] - rate * p.decay * params[i];
        params[i] = decayed - rate * (m / bias.x) / (sqrt(v / bias.y) + p.epsilon);
    }
}
