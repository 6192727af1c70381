// Mean and deviation of the advantages of active agents, mean and mean square of all returns, and the number of active rows, of the
// whole rollout and of every minibatch, for each group of agents that share networks. One workgroup, fixed order.

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
    for (var other = 0u; other < WG; other++) {
        sum += lanes[other];
    }
    workgroupBarrier();
    return sum;
}

// Row k of a group.
fn row_of(group: u32, k: u32) -> u32 {
    let groups = select(1u, p.agents, p.separate == 1u);
    let width = p.agents * p.envs / groups;
    // Past the end the last row is read instead of a branch.
    return min((k / width * groups + group) * width + k % width, p.size - 1u);
}

// Advantage, return, squared return, and 1 if the row is active: an agent without allowed actions is not.
fn terms(group: u32, k: u32, end: u32) -> vec4<f32> {
    let row = row_of(group, k);
    let exists = k < end;
    let r = select(0.0, targets[2u * p.size + row], exists);
    let a = vec2<f32>(targets[p.size + row], 1.0);
    let active_row = select(vec2<f32>(0.0), a, exists & (dones_and_masks[p.masks + row] != 0u));
    return vec4<f32>(active_row.x, r, r * r, active_row.y);
}

fn deviation(group: u32, k: u32, end: u32, mean: f32) -> f32 {
    let row = row_of(group, k);
    let d = targets[p.size + row] - mean;
    return select(0.0, d * d, (k < end) & (dones_and_masks[p.masks + row] != 0u));
}

struct Stats {
    // Sums of advantages, returns and squared returns, and the number of active rows.
    sums: vec4<f32>,
    mean: f32,
    // Sum of the squared deviations from the mean.
    squares: f32,
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
    var squares = 0.0;
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
    return Stats(all, mean, total(lane, vec4<f32>(squares, 0.0, 0.0, 0.0)).x);
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
fn main(@builtin(local_invocation_index) lane: u32) {
    let steps = p.size / (p.agents * p.envs);
    let groups = select(1u, p.agents, p.separate == 1u);
    let row = p.agents * p.envs / groups;
    let shares = groups * GROUP;
    // First scalar of the minibatches' own statistics: mean and factor of the advantages, mean and mean square of the returns.
    let own_stats = shares + p.minibatches * p.agents;
    var acting = 0.0;
    for (var group = 0u; group < groups; group++) {
        var all = Stats(vec4<f32>(0.0), 0.0, 0.0);
        for (var m = 0u; m < p.minibatches; m++) {
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
                scalars[own + 2u] = found.sums.y / f32(end - start);
                scalars[own + 3u] = found.sums.z / f32(end - start);
                for (var n = 0u; n < p.agents / groups; n++) {
                    scalars[shares + m * p.agents + group + n * groups] = 1.0 / max(found.sums.w, 1.0);
                }
            }
        }
        acting += all.sums.w;
        if (lane == 0u) {
            let scales = scaling(all);
            let rows = f32(p.size / groups);
            let own = group * GROUP;
            scalars[own + ADVANTAGE_MEAN] = scales.x;
            scalars[own + ADVANTAGE_SCALE] = scales.y;
            scalars[own + RETURN_MEAN] = all.sums.y / rows;
            scalars[own + RETURN_SQUARE] = all.sums.z / rows;
            for (var m = 0u; m < select(p.minibatches, 0u, p.over == 1u); m++) {
                scalars[own_stats + 4u * (m * groups + group)] = scales.x;
                scalars[own_stats + 4u * (m * groups + group) + 1u] = scales.y;
            }
        }
    }
    if (lane == 0u) {
        // 0.5: without an active row the share is 2, by which ppo/write_metrics tells it from one row.
        scalars[ROW_SHARE] = 1.0 / max(acting, 0.5);
        // No epochs of this rollout so far (ppo/epoch).
        scalars[EPOCHS] = 0.0;
    }
}
