// Running mean and deviation of every feature of observations and states: the statistics of a rollout are joined to those of all
// rollouts before it with the formula of Chan, Golub and LeVeque. A workgroup joins the sums of one column (ppo/observation_sums), in a
// fixed order.

import package::constants::{GROUPS, WG};
import package::lib::numeric::{add_compensated, is_finite};
import package::lib::observation_stats::{RunningMeanStd, column_of, first_entry, observed_columns};
import package::lib::total::total;

@group(0) @binding(0) var<uniform> p: RunningMeanStd;
// See ppo/observation_sums.
@group(0) @binding(1) var<storage, read> sums: array<vec4<f32>>;
// One entry a column: mean, its rounding error, sum of the squared deviations, count.
@group(0) @binding(2) var<storage, read_write> moments: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let which = group.y * GROUPS + group.x;
    if (which >= observed_columns(p.agents, p.obs_dim, p.separate) + p.state_dim) {
        return;
    }
    let column = column_of(which, p.agents, p.obs_dim, p.separate);
    let first_column = first_entry(column, p.agents, p.obs_dim);
    let before = moments[first_column];
    // Distances from the mean so far, then from that of the rollout.
    var found = vec4<f32>(0.0);
    for (var part = lane; part < p.parts; part += WG) {
        let one = sums[which * p.parts + part];
        found += vec4<f32>((one.x - before.x) * one.w + one.y, one.w, 0.0, 0.0);
    }
    found = total(lane, found);
    let number = found.y;
    // Rounded to f32 behind an exclusive or, so that compilers do not reassociate the sum (see add_compensated).
    let rounded = before.x + found.x / max(number, 1.0);
    let centre = bitcast<f32>(bitcast<u32>(rounded) ^ p.zero);
    var apart_sums = vec4<f32>(0.0);
    for (var part = lane; part < p.parts; part += WG) {
        let one = sums[which * p.parts + part];
        let away = one.x - centre;
        let moved = one.w * away;
        apart_sums += vec4<f32>(one.z + away * (2.0 * one.y + moved), one.y + moved, 0.0, 0.0);
    }
    let spread = total(lane, apart_sums).xy;
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
