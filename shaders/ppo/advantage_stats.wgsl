// Mean and deviation of the advantages of active agents, mean and mean square of all returns, and the number of active rows, of the
// whole rollout and of every minibatch, from the sums of ppo/advantage_sums. A workgroup takes a group of agents that share networks,
// in a fixed order. In a shuffled epoch, those of the minibatches alone, with a workgroup for each.

import package::constants::WG;
import package::lib::advantages::{AdvantageStats, sums_at};
import package::lib::total::total;
import package::scalars::{ADVANTAGE_MEAN, ADVANTAGE_SCALE, RETURN_MEAN, RETURN_SQUARE, EPOCHS, ROW_SHARE, GROUP};

@group(0) @binding(0) var<uniform> p: AdvantageStats;
// See ppo/advantage_sums.
@group(0) @binding(1) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> scalars: array<f32>;

struct Stats {
    // Sums of advantages, returns and squared returns, and the number of active rows.
    sums: vec4<f32>,
    mean: f32,
    // Sum of the squared deviations from the mean.
    squares: f32,
    // Number of rows.
    rows: f32,
}

// Statistics of a minibatch of a group.
fn stats_of(m: u32, groups: u32, group: u32, lane: u32) -> Stats {
    var found = vec4<f32>(0.0);
    for (var part = lane; part < p.parts; part += WG) {
        found += sums[sums_at(m, groups, group, p.parts, part)];
    }
    found = total(lane, found);
    let mean = found.x / max(found.w, 1.0);
    // Distances from the mean, their squares, rows.
    var apart = vec3<f32>(0.0);
    for (var part = lane; part < p.parts; part += WG) {
        let at = sums_at(m, groups, group, p.parts, part);
        let one = sums[at + 1u];
        let off = one.x - mean;
        let moved = sums[at].w * off;
        apart += vec3<f32>(one.y + moved, one.z + off * (2.0 * one.y + moved), one.w);
    }
    let all = total(lane, vec4<f32>(apart, 0.0));
    // The sum of the distances is not 0, because the mean is rounded.
    let exact = all.y - all.x * (all.x / max(found.w, 1.0));
    return Stats(found, mean, select(exact, 0.0, exact <= 0.0), all.z);
}

// Mean that is subtracted from the advantages, and the factor applied afterwards.
fn scaling(found: Stats) -> vec2<f32> {
    let scale = 1.0 / (sqrt(found.squares / max(found.sums.w, 1.0)) + 1e-5);
    return select(vec2<f32>(found.mean, scale), vec2<f32>(0.0, 1.0), p.over == 2u);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let shuffled = p.order > 0u;
    let first = select(0u, group_id.x, shuffled);
    let last = select(p.minibatches, group_id.x + 1u, shuffled);
    let group = group_id.y;
    let groups = select(1u, p.agents, p.separate == 1u);
    let shares = groups * GROUP;
    // First scalar of the minibatches' own statistics: mean and factor of the advantages, mean and mean square of the returns.
    let own_stats = shares + p.minibatches * p.agents;
    var all = Stats(vec4<f32>(0.0), 0.0, 0.0, 0.0);
    for (var m = first; m < last; m++) {
        let found = stats_of(m, groups, group, lane);
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
    if (shuffled || group > 0u) {
        return;
    }
    // Active rows of all groups.
    var acting = 0.0;
    for (var part = lane; part < p.minibatches * groups * p.parts; part += WG) {
        acting += sums[2u * part].w;
    }
    acting = total(lane, vec4<f32>(acting, 0.0, 0.0, 0.0)).x;
    if (lane == 0u) {
        // 0.5: without an active row the share is 2, by which ppo/write_metrics tells it from one row.
        scalars[ROW_SHARE] = 1.0 / max(acting, 0.5);
        // No epochs of this rollout so far (ppo/epoch).
        scalars[EPOCHS] = 0.0;
    }
}
