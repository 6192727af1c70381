// Running mean and deviation of every feature of observations and states: the statistics of a rollout are joined to those of all
// rollouts before it with the formula of Chan, Golub and LeVeque. A workgroup takes one feature of the observations, over the agents
// that share it, or of the environments' own states, in a fixed order. Inactive agents and non-finite values are left out.

import package::constants::{GROUPS, WG};
import package::lib::numeric::{add_compensated, is_finite};

struct RunningMeanStd {
    steps: u32,
    agents: u32,
    obs_dim: u32,
    state_dim: u32,
    quads: u32,
    // First quad of the states, and of the masks.
    first_state: u32,
    masks: u32,
    // 1: every agent has networks and statistics of its own.
    separate: u32,
    // 0: see add_compensated.
    zero: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: RunningMeanStd;
@group(0) @binding(1) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dones_and_masks: array<vec4<u32>>;
// One entry a column: mean, its rounding error, sum of the squared deviations, count.
@group(0) @binding(3) var<storage, read_write> moments: array<vec4<f32>>;

struct Column {
    // Agents that share the column, and the feature's number in their observations or in a state.
    first_agent: u32,
    agents: u32,
    number: u32,
    of_state: bool,
}

var<workgroup> lanes: array<vec2<f32>, WG>;

fn total(lane: u32, mine: vec2<f32>) -> vec2<f32> {
    lanes[lane] = mine;
    workgroupBarrier();
    var sum = vec2<f32>(0.0);
    for (var other = 0u; other < WG; other++) {
        sum += lanes[other];
    }
    workgroupBarrier();
    return sum;
}

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

// Sum of the distances from `centre`, and the number of values.
fn distances(column: Column, k: u32, end: u32, centre: f32) -> vec2<f32> {
    let quads = take(column, k, end);
    return vec2<f32>(dot(quads.x - centre, quads.counts), dot(vec4<f32>(1.0), quads.counts));
}

// Sums of squared distances and of distances.
fn squares(column: Column, k: u32, end: u32, centre: f32) -> vec2<f32> {
    let quads = take(column, k, end);
    let d = (quads.x - centre) * quads.counts;
    return vec2<f32>(dot(d, d), dot(d, vec4<f32>(1.0)));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let which = group.y * GROUPS + group.x;
    let kinds = select(1u, p.agents, p.separate == 1u);
    let observed = kinds * p.obs_dim;
    if (which >= observed + p.state_dim) {
        return;
    }
    var column = Column(0u, 1u, which - observed, true);
    if (which < observed) {
        column = Column(which / p.obs_dim, p.agents / kinds, which % p.obs_dim, false);
    }
    let first_agent = select(column.first_agent, p.agents, column.of_state);
    let first_column = first_agent * p.obs_dim + column.number;
    let before = moments[first_column];
    let end = p.steps * column.agents * p.quads;
    // Distances from the mean so far, then from that of the rollout: sums of values far from 0 would lose their differences.
    var sums = vec2<f32>(0.0);
    // Unrolled by two: llvmpipe stops loops after 65,535 iterations.
    for (var k = lane; k < end; k += 2u * WG) {
        sums += distances(column, k, end, before.x);
        sums += distances(column, k + WG, end, before.x);
    }
    sums = total(lane, sums);
    let number = sums.y;
    // Rounded to f32 behind an exclusive or, so that compilers do not reassociate the sum (see add_compensated).
    let rounded = before.x + sums.x / max(number, 1.0);
    let centre = bitcast<f32>(bitcast<u32>(rounded) ^ p.zero);
    var spread = vec2<f32>(0.0);
    for (var k = lane; k < end; k += 2u * WG) {
        spread += squares(column, k, end, centre);
        spread += squares(column, k + WG, end, centre);
    }
    spread = total(lane, spread);
    // Distance of the exact mean from the rounded centre.
    let off = spread.y / max(number, 1.0);
    let own = max(spread.x - off * spread.y, 0.0);
    let all = before.w + number;
    let apart = centre - before.x - before.y + off;
    let joined = before.z + own + apart * apart * (before.w * (number / max(all, 1.0)));
    // The first rollout's mean is stored directly; later changes are much smaller and are added with compensation.
    let known = before.w > 0.0;
    let start = select(vec2<f32>(centre, 0.0), before.xy, known);
    let mean = add_compensated(start, select(off, apart * (number / max(all, 1.0)), known), p.zero);
    if (lane > 0u || number == 0.0 || !is_finite(joined) || !is_finite(mean.x)) {
        return;
    }
    let moment = vec4<f32>(mean, joined, all);
    for (var agent = 0u; agent < column.agents; agent++) {
        moments[first_column + agent * p.obs_dim] = moment;
    }
}
