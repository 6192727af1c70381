// Ends an iteration: gathers its statistics into one small record for the host, clears the episode counters and moves
// the iteration. One workgroup, fixed order.

import package::constants::WG;

struct WriteMetrics {
    // vec4 pairs that ppo/loss left in all epochs.
    statistics: u32,
    // f32s of the rewards.
    rewards: u32,
    envs: u32,
    nets: u32,
    actors: u32,
    // Agents that learn in turns; else 1.
    turns: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: WriteMetrics;
@group(0) @binding(1) var<storage, read> statistics: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> rewards: array<f32>;
@group(0) @binding(3) var<storage, read> optimizer: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> scalars: array<f32>;
// Four sections of one f32 an environment: sum of episode returns, episodes, steps in them, of these terminated.
@group(0) @binding(5) var<storage, read_write> episodes: array<f32>;
@group(0) @binding(6) var<storage, read_write> iteration: array<u32>;
@group(0) @binding(7) var<storage, read_write> record: array<f32>;

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

fn loss(i: u32) -> vec4<f32> {
    if (i >= p.statistics) {
        return vec4<f32>(0.0);
    }
    return statistics[2u * i];
}

fn clipped(i: u32) -> f32 {
    if (i >= p.statistics) {
        return 0.0;
    }
    return statistics[2u * i + 1u].x;
}

fn reward(i: u32) -> f32 {
    if (i >= p.rewards) {
        return 0.0;
    }
    return rewards[i];
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var losses = vec4<f32>(0.0);
    var others = vec4<f32>(0.0);
    // Eight a turn, each spelled out: a processor that plays a GPU ends loops after 65,535 turns.
    for (var i = lane; i < p.statistics; i += 8u * WG) {
        losses += loss(i);
        losses += loss(i + 1u * WG);
        losses += loss(i + 2u * WG);
        losses += loss(i + 3u * WG);
        losses += loss(i + 4u * WG);
        losses += loss(i + 5u * WG);
        losses += loss(i + 6u * WG);
        losses += loss(i + 7u * WG);
        others.x += clipped(i);
        others.x += clipped(i + 1u * WG);
        others.x += clipped(i + 2u * WG);
        others.x += clipped(i + 3u * WG);
        others.x += clipped(i + 4u * WG);
        others.x += clipped(i + 5u * WG);
        others.x += clipped(i + 6u * WG);
        others.x += clipped(i + 7u * WG);
    }
    for (var i = lane; i < p.rewards; i += 8u * WG) {
        others.y += reward(i);
        others.y += reward(i + 1u * WG);
        others.y += reward(i + 2u * WG);
        others.y += reward(i + 3u * WG);
        others.y += reward(i + 4u * WG);
        others.y += reward(i + 5u * WG);
        others.y += reward(i + 6u * WG);
        others.y += reward(i + 7u * WG);
    }
    var ended = vec4<f32>(0.0);
    for (var e = lane; e < p.envs; e += WG) {
        ended += vec4<f32>(episodes[e], episodes[p.envs + e], episodes[2u * p.envs + e], episodes[3u * p.envs + e]);
        episodes[e] = 0.0;
        episodes[p.envs + e] = 0.0;
        episodes[2u * p.envs + e] = 0.0;
        episodes[3u * p.envs + e] = 0.0;
    }
    // Epochs that moved the weights count; the others left zeros.
    let epochs = scalars[13] / f32(p.turns);
    let share = scalars[14] / epochs;
    losses = total(lane, losses) * share;
    others = total(lane, others);
    ended = total(lane, ended);
    if (lane != 0u) {
        return;
    }
    var actor_norm = 0.0;
    var critic_norm = 0.0;
    var skipped = 0.0;
    for (var net = 0u; net < p.nets; net++) {
        let norm = optimizer[net * 2u].y;
        if (net < p.actors) {
            actor_norm = max(actor_norm, norm);
        } else {
            critic_norm = max(critic_norm, norm);
        }
        skipped += optimizer[net * 2u + 1u].w;
    }
    record[0] = losses.x;
    record[1] = losses.y;
    record[2] = losses.z;
    record[3] = losses.w;
    record[4] = others.x * share;
    record[5] = actor_norm;
    record[6] = critic_norm;
    record[7] = optimizer[0].w;
    record[8] = others.y / f32(p.rewards);
    record[9] = ended.x;
    record[10] = ended.y;
    record[11] = ended.z;
    record[12] = ended.w;
    record[13] = skipped;
    record[14] = scalars[3];
    record[15] = scalars[4];
    record[16] = scalars[9];
    record[17] = epochs;
    iteration[0] += 1u;
}
