// Mean and deviation of the advantages of active agents, mean and mean square of all returns, and the number of active rows, of the
// whole rollout and of every minibatch. One workgroup, fixed order.

import package::constants::WG;
import package::scalars::{ADVANTAGE_MEAN, ADVANTAGE_SCALE, RETURN_MEAN, RETURN_SQUARE, EPOCHS, ROW_SHARE, AGENTS};

struct AdvantageStats {
    // f32s of one section of the targets.
    size: u32,
    agents: u32,
    envs: u32,
    // First u32 of the masks in dones_and_masks.
    masks: u32,
    // 1: every agent has networks of its own, and their losses are means over its own rows.
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

// Whether row i is active: an agent without allowed actions is not. Past the end the last row is read instead of a branch.
fn counts(i: u32, end: u32) -> bool {
    return (i < end) & (dones_and_masks[p.masks + min(i, p.size - 1u)] != 0u);
}

// Advantage, return, squared return, and 1 if the row is active.
fn terms(i: u32, end: u32) -> vec4<f32> {
    let at = min(i, p.size - 1u);
    let r = select(0.0, targets[2u * p.size + at], i < end);
    let a = vec2<f32>(targets[p.size + at], 1.0);
    let active_row = select(vec2<f32>(0.0), a, counts(i, end));
    return vec4<f32>(active_row.x, r, r * r, active_row.y);
}

fn deviation(i: u32, end: u32, mean: f32) -> f32 {
    let d = targets[p.size + min(i, p.size - 1u)] - mean;
    return select(0.0, d * d, counts(i, end));
}

// 1 if row k of a group is active. A group consists of the agents that share networks: all of them, or one.
fn mine(group: u32, k: u32, end: u32) -> f32 {
    if (k >= end) {
        return 0.0;
    }
    let groups = select(1u, p.agents, p.separate == 1u);
    let width = p.agents * p.envs / groups;
    return select(0.0, 1.0, counts((k / width * groups + group) * width + k % width, p.size));
}

// Number of active rows of this lane among rows `start` to `end` of a group.
fn own(group: u32, start: u32, end: u32, lane: u32) -> f32 {
    var rows = 0.0;
    for (var k = start + lane; k < end; k += 8u * WG) {
        rows += mine(group, k, end);
        rows += mine(group, k + 1u * WG, end);
        rows += mine(group, k + 2u * WG, end);
        rows += mine(group, k + 3u * WG, end);
        rows += mine(group, k + 4u * WG, end);
        rows += mine(group, k + 5u * WG, end);
        rows += mine(group, k + 6u * WG, end);
        rows += mine(group, k + 7u * WG, end);
    }
    return rows;
}

struct Stats {
    // Sums of advantages, returns and squared returns, and the number of active rows.
    sums: vec4<f32>,
    mean: f32,
    // Sum of the squared deviations from the mean.
    squares: f32,
}

// Statistics of rows `start` to `end`.
fn stats_of(start: u32, end: u32, lane: u32) -> Stats {
    var sums = vec4<f32>(0.0);
    // Unrolled by eight: llvmpipe stops loops after 65,535 iterations.
    for (var i = start + lane; i < end; i += 8u * WG) {
        sums += terms(i, end);
        sums += terms(i + 1u * WG, end);
        sums += terms(i + 2u * WG, end);
        sums += terms(i + 3u * WG, end);
        sums += terms(i + 4u * WG, end);
        sums += terms(i + 5u * WG, end);
        sums += terms(i + 6u * WG, end);
        sums += terms(i + 7u * WG, end);
    }
    let all = total(lane, sums);
    let mean = all.x / max(all.w, 1.0);
    var squares = 0.0;
    for (var i = start + lane; i < end; i += 8u * WG) {
        squares += deviation(i, end, mean);
        squares += deviation(i + 1u * WG, end, mean);
        squares += deviation(i + 2u * WG, end, mean);
        squares += deviation(i + 3u * WG, end, mean);
        squares += deviation(i + 4u * WG, end, mean);
        squares += deviation(i + 5u * WG, end, mean);
        squares += deviation(i + 6u * WG, end, mean);
        squares += deviation(i + 7u * WG, end, mean);
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
    let row = p.agents * p.envs;
    // First scalar of the minibatches' own statistics: mean and factor of the advantages, mean and mean square of the returns.
    let own_stats = AGENTS + p.minibatches * p.agents;
    var all = Stats(vec4<f32>(0.0), 0.0, 0.0);
    for (var m = 0u; m < p.minibatches; m++) {
        let start = first_step(m, steps) * row;
        let end = first_step(m + 1u, steps) * row;
        let found = stats_of(start, end, lane);
        // Joined with the formula of Chan, Golub and LeVeque.
        let apart = found.mean - all.mean;
        let count = max(all.sums.w + found.sums.w, 1.0);
        all.squares += found.squares + apart * apart * (all.sums.w * found.sums.w / count);
        all.mean += apart * (found.sums.w / count);
        all.sums += found.sums;
        if (lane == 0u) {
            let scales = scaling(found);
            scalars[own_stats + 4u * m] = scales.x;
            scalars[own_stats + 4u * m + 1u] = scales.y;
            scalars[own_stats + 4u * m + 2u] = found.sums.y / f32(end - start);
            scalars[own_stats + 4u * m + 3u] = found.sums.z / f32(end - start);
        }
    }
    let acting = max(all.sums.w, 1.0);
    if (lane == 0u) {
        let scales = scaling(all);
        scalars[ADVANTAGE_MEAN] = scales.x;
        scalars[ADVANTAGE_SCALE] = scales.y;
        scalars[RETURN_MEAN] = all.sums.y / f32(p.size);
        scalars[RETURN_SQUARE] = all.sums.z / f32(p.size);
        scalars[ROW_SHARE] = 1.0 / acting;
        // No epochs of this rollout so far (ppo/epoch).
        scalars[EPOCHS] = 0.0;
        for (var m = 0u; m < select(p.minibatches, 0u, p.over == 1u); m++) {
            scalars[own_stats + 4u * m] = scales.x;
            scalars[own_stats + 4u * m + 1u] = scales.y;
        }
    }
    let groups = select(1u, p.agents, p.separate == 1u);
    let per_step = p.size / steps / groups;
    // One group in one minibatch is the whole rollout, which was counted above.
    let everything = groups == 1u && p.minibatches == 1u;
    for (var m = 0u; m < p.minibatches; m++) {
        let start = first_step(m, steps) * per_step;
        let end = select(first_step(m + 1u, steps) * per_step, start, everything);
        for (var group = 0u; group < groups; group++) {
            let counted = total(lane, vec4<f32>(own(group, start, end, lane), 0.0, 0.0, 0.0)).x;
            let rows = select(counted, all.sums.w, everything);
            if (lane == 0u) {
                // Every agent of the group. The uniform trip count is a demand of FXC on loops around barriers.
                for (var n = 0u; n < p.agents / groups; n++) {
                    scalars[AGENTS + m * p.agents + group + n * groups] = 1.0 / max(rows, 1.0);
                }
            }
        }
    }
}
