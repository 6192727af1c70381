// Sums over the rows of every minibatch of every group of agents that share networks, from which ppo/advantage_stats computes
// statistics. A workgroup takes a part of the rows, in a fixed order.

import package::constants::WG;
import package::lib::advantages::{AdvantageStats, sums_at};
import package::lib::total::total;

@group(0) @binding(0) var<uniform> p: AdvantageStats;
@group(0) @binding(1) var<storage, read> targets: array<f32>;
@group(0) @binding(2) var<storage, read> dones_and_masks: array<u32>;
// [minibatch][group][part][2]: sums of the advantages of active agents, of returns and of squared returns, and the number of active
// rows; a number near the mean of the advantages, the sums of the distances from it and of their squares, and the number of rows.
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>;

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

// Eight rows of a group, WG apart. They are found before any of them is read, so that all their loads wait for memory together.
struct Rows {
    a: vec4<u32>,
    b: vec4<u32>,
}

fn rows_of(group: u32, k: u32, end: u32) -> Rows {
    var found: Rows;
    found.a.x = row_of(group, k, end);
    found.a.y = row_of(group, k + 1u * WG, end);
    found.a.z = row_of(group, k + 2u * WG, end);
    found.a.w = row_of(group, k + 3u * WG, end);
    found.b.x = row_of(group, k + 4u * WG, end);
    found.b.y = row_of(group, k + 5u * WG, end);
    found.b.z = row_of(group, k + 6u * WG, end);
    found.b.w = row_of(group, k + 7u * WG, end);
    return found;
}

// Advantage, return, squared return, and 1 if the row is active: an agent without allowed actions is not.
fn terms(listed: u32, inside: bool) -> vec4<f32> {
    let row = min(listed, p.size - 1u);
    let exists = inside & (listed < p.size);
    let r = select(0.0, targets[2u * p.size + row], exists);
    let a = vec2<f32>(targets[p.size + row], 1.0);
    let active_row = select(vec2<f32>(0.0), a, exists & (dones_and_masks[p.masks + row] != 0u));
    return vec4<f32>(active_row.x, r, r * r, active_row.y);
}

// Distance of the advantage from `near` and its square if the row is active, and 1 if the row exists.
fn distances(listed: u32, inside: bool, near: f32) -> vec4<f32> {
    let row = min(listed, p.size - 1u);
    let exists = inside & (listed < p.size);
    let d = targets[p.size + row] - near;
    let counts = vec4<bool>(vec2<bool>(exists & (dones_and_masks[p.masks + row] != 0u)), exists, exists);
    return select(vec4<f32>(0.0), vec4<f32>(d, d * d, 1.0, 0.0), counts);
}

// First step of a minibatch.
fn first_step(m: u32, steps: u32) -> u32 {
    return min(m * ((steps + p.chunk - 1u) / p.chunk) / p.minibatches * p.chunk, steps);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let part = group_id.x;
    let m = group_id.y;
    let group = group_id.z;
    // Steps, or places of the order: whole sequences.
    let taken = p.size / (p.agents * p.envs);
    let steps = select(taken, (taken + p.chunk - 1u) / p.chunk * p.chunk, p.order > 0u);
    let groups = select(1u, p.agents, p.separate == 1u);
    let row = p.agents * p.envs / groups;
    let first = first_step(m, steps) * row;
    let last = first_step(m + 1u, steps) * row;
    let length = (last - first + p.parts - 1u) / p.parts;
    let start = min(first + part * length, last);
    let end = min(start + length, last);
    var found = vec4<f32>(0.0);
    for (var k = start + lane; k < end; k += 8u * WG) {
        let rows = rows_of(group, k, end);
        found += terms(rows.a.x, k < end);
        found += terms(rows.a.y, k + 1u * WG < end);
        found += terms(rows.a.z, k + 2u * WG < end);
        found += terms(rows.a.w, k + 3u * WG < end);
        found += terms(rows.b.x, k + 4u * WG < end);
        found += terms(rows.b.y, k + 5u * WG < end);
        found += terms(rows.b.z, k + 6u * WG < end);
        found += terms(rows.b.w, k + 7u * WG < end);
    }
    found = total(lane, found);
    let near = found.x / max(found.w, 1.0);
    var apart = vec4<f32>(0.0);
    for (var k = start + lane; k < end; k += 8u * WG) {
        let rows = rows_of(group, k, end);
        apart += distances(rows.a.x, k < end, near);
        apart += distances(rows.a.y, k + 1u * WG < end, near);
        apart += distances(rows.a.z, k + 2u * WG < end, near);
        apart += distances(rows.a.w, k + 3u * WG < end, near);
        apart += distances(rows.b.x, k + 4u * WG < end, near);
        apart += distances(rows.b.y, k + 5u * WG < end, near);
        apart += distances(rows.b.z, k + 6u * WG < end, near);
        apart += distances(rows.b.w, k + 7u * WG < end, near);
    }
    apart = total(lane, apart);
    if (lane == 0u) {
        let at = sums_at(m, groups, group, p.parts, part);
        sums[at] = found;
        sums[at + 1u] = vec4<f32>(near, apart.xyz);
    }
}
