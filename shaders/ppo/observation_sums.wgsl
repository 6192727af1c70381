// Sums of every feature of observations and states over a rollout, from which ppo/running_mean_std updates the running statistics. A
// workgroup takes a part of one feature of the observations, over the agents that share it, or of the environments' own states, in a
// fixed order. Inactive agents and non-finite values are left out.

import package::constants::{GROUPS, WG};
import package::lib::numeric::is_finite;
import package::lib::observation_stats::{Column, RunningMeanStd, column_of, first_entry, observed_columns};
import package::lib::total::total;

@group(0) @binding(0) var<uniform> p: RunningMeanStd;
@group(0) @binding(1) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dones_and_masks: array<vec4<u32>>;
// The running statistics; see ppo/running_mean_std.
@group(0) @binding(3) var<storage, read> moments: array<vec4<f32>>;
// [column][part]: a number near the mean, the sums of the distances from it and of their squares, the number of values.
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;

struct Quads {
    x: vec4<f32>,
    // 1 for a value that counts.
    counts: vec4<f32>,
}

// Quad k of the column; past the end the last one with a count of 0.
fn take(column: Column, k: u32, end: u32) -> Quads {
    let i = min(k, end - 1u);
    let q = i % p.quads;
    let agent = column.first_agent + i / p.quads % column.agents;
    let slot = i / p.quads / column.agents;
    let row = slot * p.agents + agent;
    let seen = (row * p.obs_dim + column.number) * p.quads + q;
    let own = p.first_state + (slot * p.state_dim + column.number) * p.quads + q;
    let x = raw[select(seen, own, column.of_state)];
    let acts = (dones_and_masks[p.masks + row * p.quads + q] != vec4<u32>(0u)) | vec4<bool>(column.of_state);
    let finite = vec4<bool>(is_finite(x.x), is_finite(x.y), is_finite(x.z), is_finite(x.w));
    let counts = acts & finite & vec4<bool>(k < end);
    return Quads(select(vec4<f32>(0.0), x, counts), select(vec4<f32>(0.0), vec4<f32>(1.0), counts));
}

// Sum of the distances from `near`, of their squares, and the number of values.
fn distances(column: Column, k: u32, end: u32, near: f32) -> vec4<f32> {
    let quads = take(column, k, end);
    let d = (quads.x - near) * quads.counts;
    return vec4<f32>(dot(d, vec4<f32>(1.0)), dot(d, d), dot(quads.counts, vec4<f32>(1.0)), 0.0);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group.y * GROUPS + group.x;
    let which = index / p.parts;
    let part = index % p.parts;
    if (which >= observed_columns(p.agents, p.obs_dim, p.separate) + p.state_dim) {
        return;
    }
    let column = column_of(which, p.agents, p.obs_dim, p.separate);
    let all = p.steps * column.agents * p.quads;
    let length = (all + p.parts - 1u) / p.parts;
    let start = min(part * length, all);
    let end = min(start + length, all);
    // Distances from the mean so far, then from that of the part: sums of values far from 0 would lose their differences.
    let before = moments[first_entry(column, p.agents, p.obs_dim)].x;
    var first = vec4<f32>(0.0);
    for (var k = start + lane; k < end; k += 2u * WG) {
        first += distances(column, k, end, before);
        first += distances(column, k + WG, end, before);
    }
    first = total(lane, first);
    // Rounded to f32 behind an exclusive or, so that compilers do not reassociate the sum (see add_compensated).
    let rounded = before + first.x / max(first.z, 1.0);
    let near = bitcast<f32>(bitcast<u32>(rounded) ^ p.zero);
    var apart = vec4<f32>(0.0);
    for (var k = start + lane; k < end; k += 2u * WG) {
        apart += distances(column, k, end, near);
        apart += distances(column, k + WG, end, near);
    }
    apart = total(lane, apart);
    if (lane == 0u) {
        sums[which * p.parts + part] = vec4<f32>(near, apart.xyz);
    }
}
