// Mean and deviation of the advantages of active agents, mean and mean square of all returns, and the number of active rows, of the
// whole rollout and of every minibatch, for each group of agents that share networks. One workgroup, fixed order. In a shuffled
// epoch, those of the minibatches alone, with a workgroup for each.

import package::constants::WG;
import package::scalars::{ADVANTAGE_MEAN, ADVANTAGE_SCALE, RETURN_MEAN, RETURN_SQUARE, EPOCHS, ROW_SHARE, GROUP};

struct AdvantageStats {
    // f32s of one section of the targets.
    size: u32,
    agents: u32,
    envs: u32,
    // First u32 of the masks in dones_and_masks.
    masks: u32,
    // 1: every agent has networks of its own and is a group.
    separate: u32,
    // Number of minibatches of steps, and the steps of a chunk, which minibatches do not cut.
    minibatches: u32,
    chunk: u32,
    // Advantages are normalised over 0: the rollout, 1: the minibatch; 2: not at all.
    over: u32,
    // First u32 of the order in dones_and_masks (ppo/shuffle); 0: minibatches are consecutive steps.
    order: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: AdvantageStats;
@group(0) @binding(1) var<storage, read> targets: array<f32>;
@group(0) @binding(2) var<storage, read_write> scalars: array<f32>;
@group(0) @binding(3) var<storage, read> dones_and_masks: array<u32>;

var<workgroup> lanes: array<vec4<f32>, WG>;

fn total(lane: u32, mine: vec4<f32>) -> vec4<f32> {
    lanes[lane] = mine;
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    // In order, eight an iteration: with an agent's networks each, this loop runs for every agent and minibatch.
    for (var other = 0u; other < WG; other += 8u) {
        sum += lanes[other];
        sum += lanes[other + 1u];
        sum += lanes[other + 2u];
        sum += lanes[other + 3u];
        sum += lanes[other + 4u];
        sum += lanes[other + 5u];
        sum += lanes[other + 6u];
        sum += lanes[other + 7u];
    }
    workgroupBarrier();
    return sum;
}

// Row k of a group; in a shuffled epoch, row k of the order, at least p.size where a sequence lists steps after the last one. Past the
// end, the row before the end.
fn row_of(group: u32, k: u32, end: u32) -> u32 {
    let groups = select(1u, p.agents, p.separate == 1u);
    let width = p.agents * p.envs / groups;
    let inside = min(k, end - 1u);
    let column = group * width + inside % width;
    var step = inside / width;
    if (p.order > 0u) {
        step = dones_and_masks[p.order + step * (p.envs / 4u) + column % p.envs / 4u];
    }
    return step * (groups * width) + column;
}

// Advantage, return, squared return, and 1 if the row is active: an agent without allowed actions is not.
fn terms(group: u32, k: u32, end: u32) -> vec4<f32> {
    let listed = row_of(group, k, end);
    let row = min(listed, p.size - 1u);
    let exists = (k < end) & (listed < p.size);
    let r = select(0.0, targets[2u * p.size + row], exists);
    let a = vec2<f32>(targets[p.size + row], 1.0);
    let active_row = select(vec2<f32>(0.0), a, exists & (dones_and_masks[p.masks + row] != 0u));
    return vec4<f32>(active_row.x, r, r * r, active_row.y);
}

// Squared deviation of the advantage if the row is active, and 1 if the row exists.
fn deviation(group: u32, k: u32, end: u32, mean: f32) -> vec2<f32> {
    let listed = row_of(group, k, end);
    let row = min(listed, p.size - 1u);
    let exists = (k < end) & (listed < p.size);
    let d = targets[p.size + row] - mean;
    let counts = vec2<bool>(exists & (dones_and_masks[p.masks + row] != 0u), exists);
    return select(vec2<f32>(0.0), vec2<f32>(d * d, 1.0), counts);
}

struct Stats {
    // Sums of advantages, returns and squared returns, and the number of active rows.
    sums: vec4<f32>,
    mean: f32,
    // Sum of the squared deviations from the mean.
    squares: f32,
    // Number of rows.
    rows: f32,
}

// Statistics of rows `start` to `end` of a group.
fn stats_of(group: u32, start: u32, end: u32, lane: u32) -> Stats {
    var sums = vec4<f32>(0.0);
    // Unrolled by eight: llvmpipe stops loops after 65,535 iterations.
    for (var k = start + lane; k < end; k += 8u * WG) {
        sums += terms(group, k, end);
        sums += terms(group, k + 1u * WG, end);
        sums += terms(group, k + 2u * WG, end);
        sums += terms(group, k + 3u * WG, end);
        sums += terms(group, k + 4u * WG, end);
        sums += terms(group, k + 5u * WG, end);
        sums += terms(group, k + 6u * WG, end);
        sums += terms(group, k + 7u * WG, end);
    }
    let all = total(lane, sums);
    let mean = all.x / max(all.w, 1.0);
    var squares = vec2<f32>(0.0);
    for (var k = start + lane; k < end; k += 8u * WG) {
        squares += deviation(group, k, end, mean);
        squares += deviation(group, k + 1u * WG, end, mean);
        squares += deviation(group, k + 2u * WG, end, mean);
        squares += deviation(group, k + 3u * WG, end, mean);
        squares += deviation(group, k + 4u * WG, end, mean);
        squares += deviation(group, k + 5u * WG, end, mean);
        squares += deviation(group, k + 6u * WG, end, mean);
        squares += deviation(group, k + 7u * WG, end, mean);
    }
    let found = total(lane, vec4<f32>(squares, 0.0, 0.0));
    return Stats(all, mean, found.x, select(found.y, f32(end - start), p.order == 0u));
}

// Mean that is subtracted from the advantages, and the factor applied afterwards.
fn scaling(found: Stats) -> vec2<f32> {
    let scale = 1.0 / (sqrt(found.squares / max(found.sums.w, 1.0)) + 1e-5);
    return select(vec2<f32>(found.mean, scale), vec2<f32>(0.0, 1.0), p.over == 2u);
}

// First step of a minibatch.
fn first_step(m: u32, steps: u32) -> u32 {
    return min(m * ((steps + p.chunk - 1u) / p.chunk) / p.minibatches * p.chunk, steps);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let shuffled = p.order > 0u;
    // Steps, or places of the order: whole sequences.
    let taken = p.size / (p.agents * p.envs);
    let steps = select(taken, (taken + p.chunk - 1u) / p.chunk * p.chunk, shuffled);
    let first = select(0u, group_id.x, shuffled);
    let last = select(p.minibatches, group_id.x + 1u, shuffled);
    let groups = select(1u, p.agents, p.separate == 1u);
    let row = p.agents * p.envs / groups;
    let shares = groups * GROUP;
    // First scalar of the minibatches' own statistics: mean and factor of the advantages, mean and mean square of the returns.
    let own_stats = shares + p.minibatches * p.agents;
    var acting = 0.0;
    for (var group = 0u; group < groups; group++) {
        var all = Stats(vec4<f32>(0.0), 0.0, 0.0, 0.0);
        for (var m = first; m < last; m++) {
            let start = first_step(m, steps) * row;
            let end = first_step(m + 1u, steps) * row;
            let found = stats_of(group, start, end, lane);
            // Joined with the formula of Chan, Golub and LeVeque.
            let apart = found.mean - all.mean;
            let count = max(all.sums.w + found.sums.w, 1.0);
            all.squares += found.squares + apart * apart * (all.sums.w * found.sums.w / count);
            all.mean += apart * (found.sums.w / count);
            all.sums += found.sums;
            if (lane == 0u) {
                let scales = scaling(found);
                let own = own_stats + 4u * (m * groups + group);
                scalars[own] = scales.x;
                scalars[own + 1u] = scales.y;
                scalars[own + 2u] = found.sums.y / found.rows;
                scalars[own + 3u] = found.sums.z / found.rows;
                for (var n = 0u; n < p.agents / groups; n++) {
                    scalars[shares + m * p.agents + group + n * groups] = 1.0 / max(found.sums.w, 1.0);
                }
            }
        }
        acting += all.sums.w;
        if (lane == 0u && !shuffled) {
            let scales = scaling(all);
            let rows = f32(p.size / groups);
            let own = group * GROUP;
            scalars[own + ADVANTAGE_MEAN] = scales.x;
            scalars[own + ADVANTAGE_SCALE] = scales.y;
            scalars[own + RETURN_MEAN] = all.sums.y / rows;
            scalars[own + RETURN_SQUARE] = all.sums.z / rows;
        }
        if (lane == 0u && p.over != 1u) {
            // The rollout's, which a shuffled epoch does not change.
            for (var m = first; m < last; m++) {
                scalars[own_stats + 4u * (m * groups + group)] = scalars[group * GROUP + ADVANTAGE_MEAN];
                scalars[own_stats + 4u * (m * groups + group) + 1u] = scalars[group * GROUP + ADVANTAGE_SCALE];
            }
        }
    }
    if (lane == 0u && !shuffled) {
        // 0.5: without an active row the share is 2, by which ppo/write_metrics tells it from one row.
        scalars[ROW_SHARE] = 1.0 / max(acting, 0.5);
        // No epochs of this rollout so far (ppo/epoch).
        scalars[EPOCHS] = 0.0;
    }
}
