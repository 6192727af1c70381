// Normalises observations and states with their running statistics: (x - mean) / deviation, clamped to a few deviations. One invocation
// takes a quad: one feature of four environments. States follow the observations, in the source and in the result.

import package::constants::{ROW, WG};
import package::lib::quad::{Quad, to_quad};
import package::lib::numeric::{is_finite, nan};

struct Normalize {
    first_slot: u32,
    slots: u32,
    quads: u32,
    // Features of all agents' observations of a slot, and of a state.
    observed: u32,
    state_dim: u32,
    // First quad of the states.
    first_state: u32,
    limit: f32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> p: Normalize;
@group(0) @binding(1) var<storage, read> raw: array<vec4<f32>>;
// One entry a column, observations before states, as ppo/running_mean_std writes them.
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
    // A column that is constant but for rounding errors becomes zero instead of amplified noise.
    let useful = deviation > 1e-6 * abs(moment.x) && deviation > 1e-20;
    let scale = select(0.0, 1.0 / deviation, useful);
    let x = raw[at];
    let near = clamp((x - moment.x - moment.y) * scale, vec4<f32>(-p.limit), vec4<f32>(p.limit));
    // Non-finite values become NaN; the clamp would hide them.
    let fine = vec4<bool>(is_finite(x.x), is_finite(x.y), is_finite(x.z), is_finite(x.w));
    normalized[at] = to_quad(select(vec4<f32>(nan()), near, fine));
}
