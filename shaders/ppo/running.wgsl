// Running mean and deviation of what is seen, number by number, over everything seen so far: those of a rollout are joined to
// those of all before it as Chan, Golub and LeVeque do. A workgroup takes one number of the observations, over the agents
// that have it in common, or one of the environments' own states, in a fixed order. Agents that may do nothing do not count,
// nor does what is not finite.

import package::constants::WG;
import package::lib::numeric::is_finite;

struct Running {
    steps: u32,
    agents: u32,
    obs_dim: u32,
    state_dim: u32,
    quads: u32,
    // First quad of the states, and of the masks.
    first_state: u32,
    masks: u32,
    // 1: every agent has networks, and moments, of its own.
    separate: u32,
}

@group(0) @binding(0) var<uniform> p: Running;
@group(0) @binding(1) var<storage, read> raw: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> signals: array<vec4<u32>>;
// By column: mean, 1 / deviation (0 of what never changes), sum of the squared deviations, how many.
@group(0) @binding(3) var<storage, read_write> moments: array<vec4<f32>>;

struct Column {
    // Of which agents, and what number of theirs; of a state the number alone.
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
    // 1 where it counts.
    counts: vec4<f32>,
}

// Quad k of the column's; past the end the last one, which does not count again.
fn take(column: Column, k: u32, end: u32) -> Quads {
    let i = min(k, end - 1u);
    let q = i % p.quads;
    let agent = column.first_agent + i / p.quads % column.agents;
    let slot = i / p.quads / column.agents;
    let row = slot * p.agents + agent;
    let seen = (row * p.obs_dim + column.number) * p.quads + q;
    let own = p.first_state + (slot * p.state_dim + column.number) * p.quads + q;
    let x = raw[select(seen, own, column.of_state)];
    let acts = (signals[p.masks + row * p.quads + q] != vec4<u32>(0u)) | vec4<bool>(column.of_state);
    let finite = vec4<bool>(is_finite(x.x), is_finite(x.y), is_finite(x.z), is_finite(x.w));
    let counts = acts & finite & vec4<bool>(k < end);
    return Quads(select(vec4<f32>(0.0), x, counts), select(vec4<f32>(0.0), vec4<f32>(1.0), counts));
}

// Sum of the distances from `centre`, and how many.
fn distances(column: Column, k: u32, end: u32, centre: f32) -> vec2<f32> {
    let quads = take(column, k, end);
    return vec2<f32>(dot(quads.x - centre, quads.counts), dot(vec4<f32>(1.0), quads.counts));
}

fn squares(column: Column, k: u32, end: u32, mean: f32) -> f32 {
    let quads = take(column, k, end);
    let d = (quads.x - mean) * quads.counts;
    return dot(d, d);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let kinds = select(1u, p.agents, p.separate == 1u);
    let observed = kinds * p.obs_dim;
    var column = Column(0u, 1u, group.x - observed, true);
    if (group.x < observed) {
        column = Column(group.x / p.obs_dim, p.agents / kinds, group.x % p.obs_dim, false);
    }
    let first_agent = select(column.first_agent, p.agents, column.of_state);
    let first_column = first_agent * p.obs_dim + column.number;
    let before = moments[first_column];
    let end = p.steps * column.agents * p.quads;
    // Near all of them: sums of what is far from 0 would lose what they differ in.
    let first = take(column, 0u, end);
    let centre = select(first.x.x, before.x, before.w > 0.0);
    var sums = vec2<f32>(0.0);
    // Two quads a turn: a processor that plays a GPU ends loops after 65,535 turns.
    for (var k = lane; k < end; k += 2u * WG) {
        sums += distances(column, k, end, centre);
        sums += distances(column, k + WG, end, centre);
    }
    sums = total(lane, sums);
    let number = sums.y;
    let mean = centre + sums.x / max(number, 1.0);
    var spread = 0.0;
    for (var k = lane; k < end; k += 2u * WG) {
        spread += squares(column, k, end, mean);
        spread += squares(column, k + WG, end, mean);
    }
    spread = total(lane, vec2<f32>(spread, 0.0)).x;
    let all = before.w + number;
    let apart = mean - before.x;
    let joined_mean = select(mean, before.x + apart * (number / all), before.w > 0.0);
    let joined = before.z + spread + select(0.0, apart * apart * (before.w * (number / all)), before.w > 0.0);
    if (lane > 0u || number == 0.0 || !is_finite(joined) || !is_finite(joined_mean)) {
        return;
    }
    let deviation = sqrt(joined / all);
    // What never changes says nothing: zero, not noise blown up.
    let useful = deviation > 1e-6 * abs(joined_mean) && deviation > 1e-20;
    let moment = vec4<f32>(joined_mean, select(0.0, 1.0 / deviation, useful), joined, all);
    for (var agent = 0u; agent < column.agents; agent++) {
        moments[first_column + agent * p.obs_dim] = moment;
    }
}
