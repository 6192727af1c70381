// What was seen, by the running moments of it, as networks take it: (x - mean) / deviation within a few deviations. An invocation
// takes a quad: one number of four environments. The environments' own states follow the observations, as they do where they
// come from.

import package::constants::{ROW, WG};
import package::lib::quad::{Quad, to_quad};
import package::lib::numeric::is_nan;

struct Normalize {
    first_slot: u32,
    slots: u32,
    quads: u32,
    // Numbers of a slot's observations, agent by agent, and of a state.
    observed: u32,
    state_dim: u32,
    // First quad of the states.
    first_state: u32,
    limit: f32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> p: Normalize;
@group(0) @binding(1) var<storage, read> raw: array<vec4<f32>>;
// By column, observations before states: mean, 1 / deviation, and what ppo/running needs.
@group(0) @binding(2) var<storage, read> moments: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> normalized: array<Quad>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let index = id.y * ROW + id.x;
    let columns = p.observed + p.state_dim;
    if (index >= p.slots * columns * p.quads) {
        return;
    }
    let q = index % p.quads;
    let column = index / p.quads % columns;
    let slot = p.first_slot + index / p.quads / columns;
    let seen = (slot * p.observed + column) * p.quads;
    let own = p.first_state + (slot * p.state_dim + column - p.observed) * p.quads;
    let at = select(own, seen, column < p.observed) + q;
    let moment = moments[column];
    let x = (raw[at] - moment.x) * moment.y;
    let near = clamp(x, vec4<f32>(-p.limit), vec4<f32>(p.limit));
    // What is no number stays so: a clamp may make something of it.
    let broken = vec4<bool>(is_nan(x.x), is_nan(x.y), is_nan(x.z), is_nan(x.w));
    normalized[at] = to_quad(select(near, x, broken));
}
