// Observation slots of the rows of a dispatch, in the kernels of networks.

import package::lib::network::Batch;

@if(!in_rollout) @group(0) @binding(0) var<uniform> batch: Batch;
@if(!in_rollout) @group(0) @binding(6) var<storage, read> dones_and_masks: array<vec4<u32>>;
@if(in_rollout) @group(0) @binding(24) var<uniform> batch: Batch;

// Slot of a row.
fn slot_of(row: u32) -> u32 {
    let slot = batch.first_slot + row / (batch.agents * batch.quads);
    @if(!in_rollout) return listed_slot(slot, row);
    @else return slot;
}

// Places after the last step of a shuffled sequence repeat that step; the loss ignores them.
@if(!in_rollout)
fn listed_slot(slot: u32, row: u32) -> u32 {
    if (batch.order == 0u) {
        return slot;
    }
    let listed = slot * batch.quads + row % batch.quads;
    return min(dones_and_masks[batch.order + listed / 4u][listed % 4u], batch.recurrent.steps - 1u);
}
