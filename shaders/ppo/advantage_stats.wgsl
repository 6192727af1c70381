// Mean and deviation of the advantages of active agents, mean and mean square of all returns, and how many rows count, over the
// whole rollout and over every minibatch, by one workgroup in a fixed order.

import package::constants::WG;

struct AdvantageStats {
    // f32s of one section of the targets.
    size: u32,
    agents: u32,
    envs: u32,
    // Where the masks begin, in u32s of the dones_and_masks.
    masks: u32,
    // 1: every agent has networks of its own, whose losses are means over its own rows.
    separate: u32,
    // The steps are cut into so many, in whole chunks of so many steps.
    minibatches: u32,
    chunk: u32,
    // What advantages are normalised over: 0 the rollout, 1 the minibatch, 2 nothing.
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

// An agent that may do nothing is not active. Past the end the last row is read, and nothing counts: no branches.
fn counts(i: u32, end: u32) -> bool {
    return (i < end) & (dones_and_masks[p.masks + min(i, p.size - 1u)] != 0u);
}

// Advantage, return and its square, and whether the row counts.
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

// Rows come in groups that have networks together: all agents, or each by itself. Row k of a group.
fn mine(group: u32, k: u32, end: u32) -> f32 {
    if (k >= end) {
        return 0.0;
    }
    let groups = select(1u, p.agents, p.separate == 1u);
    let width = p.agents * p.envs / groups;
    return select(0.0, 1.0, counts((k / width * groups + group) * width + k % width, p.size));
}

// Of rows `start` to `end` of a group, those of this lane that count.
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

struct Found {
    // Sums of advantages, returns and their squares, and rows.
    sums: vec4<f32>,
    mean: f32,
    // Sum of the squared deviations from it.
    squares: f32,
}

// Of rows `start` to `end`.
fn moments_of(start: u32, end: u32, lane: u32) -> Found {
    var sums = vec4<f32>(0.0);
    // Eight a turn, each spelled out: a processor that plays a GPU ends loops after 65,535 turns.
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
    return Found(all, mean, total(lane, vec4<f32>(squares, 0.0, 0.0, 0.0)).x);
}

// What advantages lose, and what they are multiplied by afterwards.
fn scaling(found: Found) -> vec2<f32> {
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
    // After the rows' shares: what advantages lose, their factor, mean and mean square of the returns.
    let own_moments = 16u + p.minibatches * p.agents;
    var all = Found(vec4<f32>(0.0), 0.0, 0.0);
    for (var m = 0u; m < p.minibatches; m++) {
        let start = first_step(m, steps) * row;
        let end = first_step(m + 1u, steps) * row;
        let found = moments_of(start, end, lane);
        // Joined as Chan, Golub and LeVeque do.
        let apart = found.mean - all.mean;
        let count = max(all.sums.w + found.sums.w, 1.0);
        all.squares += found.squares + apart * apart * (all.sums.w * found.sums.w / count);
        all.mean += apart * (found.sums.w / count);
        all.sums += found.sums;
        if (lane == 0u) {
            let scales = scaling(found);
            scalars[own_moments + 4u * m] = scales.x;
            scalars[own_moments + 4u * m + 1u] = scales.y;
            scalars[own_moments + 4u * m + 2u] = found.sums.y / f32(end - start);
            scalars[own_moments + 4u * m + 3u] = found.sums.z / f32(end - start);
        }
    }
    let acting = max(all.sums.w, 1.0);
    if (lane == 0u) {
        let scales = scaling(all);
        scalars[5] = scales.x;
        scalars[6] = scales.y;
        scalars[7] = all.sums.y / f32(p.size);
        scalars[8] = all.sums.z / f32(p.size);
        scalars[14] = 1.0 / acting;
        // Epochs of this rollout (ppo/epoch).
        scalars[13] = 0.0;
        for (var m = 0u; m < select(p.minibatches, 0u, p.over == 1u); m++) {
            scalars[own_moments + 4u * m] = scales.x;
            scalars[own_moments + 4u * m + 1u] = scales.y;
        }
    }
    let groups = select(1u, p.agents, p.separate == 1u);
    let per_step = p.size / steps / groups;
    // One group in one minibatch is everything, and that was counted above.
    let everything = groups == 1u && p.minibatches == 1u;
    for (var m = 0u; m < p.minibatches; m++) {
        let start = first_step(m, steps) * per_step;
        let end = select(first_step(m + 1u, steps) * per_step, start, everything);
        for (var group = 0u; group < groups; group++) {
            let counted = total(lane, vec4<f32>(own(group, start, end, lane), 0.0, 0.0, 0.0)).x;
            let rows = select(counted, all.sums.w, everything);
            if (lane == 0u) {
                // Every agent of the group; counted by a uniform number, which FXC wants of a loop around barriers.
                for (var n = 0u; n < p.agents / groups; n++) {
                    scalars[16u + m * p.agents + group + n * groups] = 1.0 / max(rows, 1.0);
                }
            }
        }
    }
}
