// What was seen, by the running moments of it, as networks take it: (x - mean) / deviation within a few deviations. An invocation
// takes a quad: one number of four environments. The environments' own states follow the observations, as they do where they
// come from.

import package::constants::{ROW, WG};
import package::lib::quad::{Quad, to_quad};
import package::lib::numeric::{is_finite, nan};

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
// By column, observations before states, as ppo/running_mean_std leaves them.
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
    let deviation = sqrt(moment.z / max(moment.w, 1.0));
    // What never changes says nothing: zero, not noise blown up.
    let useful = deviation > 1e-6 * abs(moment.x) && deviation > 1e-20;
    let scale = select(0.0, 1.0 / deviation, useful);
    let x = raw[at];
    let near = clamp((x - moment.x - moment.y) * scale, vec4<f32>(-p.limit), vec4<f32>(p.limit));
    // What is not finite has to be seen: a clamp would make something of it.
    let fine = vec4<bool>(is_finite(x.x), is_finite(x.y), is_finite(x.z), is_finite(x.w));
    normalized[at] = to_quad(select(vec4<f32>(nan()), near, fine));
}
