// Begins an epoch or a further minibatch of it. Updates ValueNorm of every group of agents that share networks (with HAPPO, of the
// trained agent) from the batch's statistics (ppo/advantage_stats). Sets the entropy coefficient and the learning rates' decay. Stops the
// updates on this rollout if the KL divergence exceeds its limit. One workgroup, fixed order.

import package::constants::WG;
import package::lib::total::total;
import package::scalars::{VALUE_NORM_MEAN, VALUE_NORM_SQUARE, VALUE_NORM_DEBIAS, MEAN, DEVIATION, ADVANTAGE_MEAN, RETURN_MEAN, RETURN_SQUARE, ENTROPY, STOPPED, EPOCHS, ROW_SHARE, RATE_SHARE, GROUP};

struct Epoch {
    // 1 - beta, computed in f64: 1 minus the f32 of beta would be inexact.
    weight: f32,
    floor: f32,
    // 0: values are not normalised.
    enabled: u32,
    // Epoch of this rollout, from 0.
    number: u32,
    // Number of the places of one epoch's statistics.
    places: u32,
    // KL divergence of the last epoch that stops the updates if exceeded; 0: no stop.
    target_kl: f32,
    // Entropy coefficient of iteration 0, its change per iteration, and the iterations over which it changes.
    entropy: f32,
    entropy_step: f32,
    iterations: u32,
    // 1: a further minibatch of the epoch.
    further: u32,
    // First scalar of the minibatch's own statistics, [group][4]; 0: the minibatch is the whole rollout.
    minibatch_stats: u32,
    // HAPPO: number of the agent that is trained, counted from 1; 0: all agents.
    agent_step: u32,
    agents: u32,
    minibatches: u32,
    // HAPPO: first place of the agent step's statistics.
    first_place: u32,
    // Groups of agents that share networks: 1, or one per agent.
    groups: u32,
    // 1 / iterations over which the learning rates fall to zero; 0 keeps them.
    rate_decay: f32,
    // 0: no minibatch begins (ppo/end_step).
    begins: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> p: Epoch;
@group(0) @binding(1) var<storage, read_write> scalars: array<f32>;
@group(0) @binding(2) var<storage, read> statistics: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> iteration: array<u32>;

// KL divergence in one place of the statistics of the epoch before. Past the end the last one is read again: without branches between
// them, the loads of an iteration wait for memory together.
fn divergence(i: u32) -> f32 {
    let place = p.first_place + (p.number - 1u) * p.places + min(i, p.places - 1u);
    return select(0.0, statistics[2u * place].w, i < p.places);
}

// 1 / active rows in an epoch.
fn share() -> f32 {
    if (p.agent_step == 0u) {
        return scalars[ROW_SHARE];
    }
    var rows = 0.0;
    for (var m = 0u; m < p.minibatches; m++) {
        rows += 1.0 / scalars[p.groups * GROUP + m * p.agents + p.agent_step - 1u];
    }
    return 1.0 / rows;
}

// `own` is the first scalar of a group.
fn update_value_norm(own: u32) {
    if (p.enabled == 0u) {
        scalars[own + MEAN] = 0.0;
        scalars[own + DEVIATION] = 1.0;
        return;
    }
    let old = vec3<f32>(scalars[own + VALUE_NORM_MEAN], scalars[own + VALUE_NORM_SQUARE], scalars[own + VALUE_NORM_DEBIAS]);
    let first = old.x + p.weight * (scalars[own + RETURN_MEAN] - old.x);
    let second = old.y + p.weight * (scalars[own + RETURN_SQUARE] - old.y);
    let debias = old.z + p.weight * (1.0 - old.z);
    scalars[own + VALUE_NORM_MEAN] = first;
    scalars[own + VALUE_NORM_SQUARE] = second;
    scalars[own + VALUE_NORM_DEBIAS] = debias;
    let scale = max(debias, 1e-5);
    let mean = first / scale;
    scalars[own + MEAN] = mean;
    scalars[own + DEVIATION] = sqrt(max(second / scale - mean * mean, p.floor));
}

// KL divergence of the epoch before, over all its rows. Has barriers.
fn mean_divergence(lane: u32) -> f32 {
    var sum = 0.0;
    // Unrolled by eight: llvmpipe stops loops after 65,535 iterations.
    for (var i = lane; i < p.places; i += 8u * WG) {
        sum += divergence(i);
        sum += divergence(i + 1u * WG);
        sum += divergence(i + 2u * WG);
        sum += divergence(i + 3u * WG);
        sum += divergence(i + 4u * WG);
        sum += divergence(i + 5u * WG);
        sum += divergence(i + 6u * WG);
        sum += divergence(i + 7u * WG);
    }
    return total(lane, vec4<f32>(sum)).x * share();
}

// May have barriers.
fn begin_minibatch(lane: u32) {
    var moved = 0.0;
    if (p.number > 0u && p.target_kl > 0.0 && p.further == 0u) {
        moved = mean_divergence(lane);
    }
    if (lane != 0u) {
        return;
    }
    if (p.number == 0u && p.further == 0u) {
        scalars[STOPPED] = 0.0;
    }
    if (p.target_kl > 0.0 && moved > p.target_kl) {
        scalars[STOPPED] = 1.0;
    }
    if (scalars[STOPPED] == 1.0) {
        return;
    }
    scalars[EPOCHS] += 1.0 - f32(p.further);
    scalars[ENTROPY] = p.entropy + p.entropy_step * f32(min(iteration[0], p.iterations));
    scalars[RATE_SHARE] = max(0.0, 1.0 - f32(iteration[0]) * p.rate_decay);
    let everyone = p.agent_step == 0u;
    let first_group = select((p.agent_step - 1u) % p.groups, 0u, everyone);
    let end_group = select(first_group + 1u, p.groups, everyone);
    for (var group = first_group; group < end_group; group++) {
        if (p.minibatch_stats > 0u) {
            for (var i = 0u; i < 4u; i++) {
                scalars[group * GROUP + ADVANTAGE_MEAN + i] = scalars[p.minibatch_stats + 4u * group + i];
            }
        }
        update_value_norm(group * GROUP);
    }
}
