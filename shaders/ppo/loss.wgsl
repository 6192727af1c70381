// PPO losses and their gradients at both heads (lib/loss), for four rows an invocation.

import package::constants::WG;
import package::lib::loss::{ZERO, loss_row, policy_loss, value_loss, scalars, statistics};
import package::lib::slots::batch;
import package::scalars::STOPPED;

var<workgroup> sums: array<vec4<f32>, WG>;
var<workgroup> clipped: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    sums[lane] = ZERO;
    clipped[lane] = 0.0;
    if (id.x < batch.rows) {
        let row = loss_row(id.x, id.x, true);
        let policy = policy_loss(row);
        sums[lane] = vec4<f32>(policy.loss, value_loss(row), policy.entropy, policy.kl);
        clipped[lane] = policy.clipped;
    }
    workgroupBarrier();
    // Zeros after the stop of this rollout's updates (ppo/epoch).
    @if(agent_steps) let writes = batch.loss.update_factors == 0u;
    @if(!agent_steps) let writes = true;
    if (lane == 0u && writes) {
        var sum = ZERO;
        var sum_clipped = 0.0;
        for (var other = 0u; other < WG; other++) {
            sum += sums[other];
            sum_clipped += clipped[other];
        }
        // One place for every workgroup of a full micro-batch; the last micro-batch may have fewer workgroups.
        let places = (batch.stride + WG - 1u) / WG;
        let entry = (batch.loss.index * places + group.x) * 2u;
        let counts = scalars[STOPPED] != 1.0;
        statistics[entry] = select(ZERO, sum, vec4<bool>(counts));
        statistics[entry + 1u] = select(ZERO, vec4<f32>(sum_clipped, 0.0, 0.0, 0.0), vec4<bool>(counts));
    }
}
