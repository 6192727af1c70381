// Sums of the metrics of an iteration, from which ppo/write_metrics writes the record, and clears the episode counters. A workgroup
// takes a part of the losses, of the rows and of the environments, in a fixed order.

import package::constants::WG;
import package::lib::metrics::{Spread, Sums, WriteMetrics};
import package::lib::total::total;

@group(0) @binding(0) var<uniform> p: WriteMetrics;
@group(0) @binding(1) var<storage, read> statistics: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> rewards: array<f32>;
// Log-probabilities, advantages, returns: a section of p.rewards f32s each.
@group(0) @binding(3) var<storage, read> targets: array<f32>;
// Four sections of one f32 an environment: sum of episode returns, episodes, steps in them, terminated episodes.
@group(0) @binding(4) var<storage, read_write> episodes: array<f32>;
@group(0) @binding(5) var<storage, read_write> sums: array<Sums>;

// Past the end the last ones are read again: without branches between them, the loads of an iteration wait for memory together.
fn loss(i: u32, end: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), statistics[2u * min(i, end - 1u)], i < end);
}

fn clipped(i: u32, end: u32) -> f32 {
    return select(0.0, statistics[2u * min(i, end - 1u) + 1u].x, i < end);
}

// Reward, advantage and return of a row, and 1 if it exists. A return minus its advantage is the critic's value.
fn row(i: u32, end: u32) -> vec4<f32> {
    let at = min(i, end - 1u);
    let found = vec4<f32>(rewards[at], targets[p.rewards + at], targets[2u * p.rewards + at], 1.0);
    return select(vec4<f32>(0.0), found, i < end);
}

// Distances of the advantage and of the return of a row from `near`, and their squares.
fn distances(i: u32, end: u32, near: vec2<f32>) -> vec4<f32> {
    let apart = row(i, end).yz - near;
    return select(vec4<f32>(0.0), vec4<f32>(apart, apart * apart), i < end);
}

// First of `count` things that part `part` takes.
fn first_of(part: u32, count: u32) -> u32 {
    let length = (count + p.parts - 1u) / p.parts;
    return min(part * length, count);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let part = group.x;
    var losses = vec4<f32>(0.0);
    var others = vec4<f32>(0.0);
    var end = first_of(part + 1u, p.statistics);
    // Unrolled by four, so that loads wait for memory together.
    for (var i = first_of(part, p.statistics) + lane; i < end; i += 4u * WG) {
        losses += loss(i, end);
        losses += loss(i + 1u * WG, end);
        losses += loss(i + 2u * WG, end);
        losses += loss(i + 3u * WG, end);
        others.x += clipped(i, end);
        others.x += clipped(i + 1u * WG, end);
        others.x += clipped(i + 2u * WG, end);
        others.x += clipped(i + 3u * WG, end);
    }
    var ended = vec4<f32>(0.0);
    end = first_of(part + 1u, p.envs);
    for (var e = first_of(part, p.envs) + lane; e < end; e += WG) {
        ended += vec4<f32>(episodes[e], episodes[p.envs + e], episodes[2u * p.envs + e], episodes[3u * p.envs + e]);
        episodes[e] = 0.0;
        episodes[p.envs + e] = 0.0;
        episodes[2u * p.envs + e] = 0.0;
        episodes[3u * p.envs + e] = 0.0;
    }
    let start = first_of(part, p.rewards);
    end = first_of(part + 1u, p.rewards);
    var rows = vec4<f32>(0.0);
    for (var i = start + lane; i < end; i += 4u * WG) {
        rows += row(i, end);
        rows += row(i + 1u * WG, end);
        rows += row(i + 2u * WG, end);
        rows += row(i + 3u * WG, end);
    }
    losses = total(lane, losses);
    ended = total(lane, ended);
    others = total(lane, others);
    rows = total(lane, rows);
    let near = rows.yz / max(rows.w, 1.0);
    var apart = vec4<f32>(0.0);
    for (var i = start + lane; i < end; i += 4u * WG) {
        apart += distances(i, end, near);
        apart += distances(i + 1u * WG, end, near);
        apart += distances(i + 2u * WG, end, near);
        apart += distances(i + 3u * WG, end, near);
    }
    apart = total(lane, apart);
    if (lane == 0u) {
        sums[part].losses = losses;
        sums[part].ended = ended;
        sums[part].others = vec4<f32>(others.x, rows.x, 0.0, 0.0);
        sums[part].advantages = Spread(near.x, apart.x, apart.z, rows.w);
        sums[part].returns = Spread(near.y, apart.y, apart.w, rows.w);
    }
}
