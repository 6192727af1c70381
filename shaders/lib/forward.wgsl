// Shared parts of nn/forward: bindings, rows, and the inputs of layers.

import package::constants::TILE;
import package::lib::network::{Batch, NetworkStack};
import package::lib::quad::{Quad, of_quad};

// Binding 2: lib/weights or lib/cooperative; 5: lib/dense; 6: nn/forward; 8: lib/gru.
@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<uniform> stacks: array<NetworkStack, 2>;
@group(0) @binding(3) var<storage, read> observations: array<Quad>;
@group(0) @binding(4) var<storage, read_write> acts: array<Quad>;
@group(0) @binding(7) var<storage, read> dones_and_masks: array<vec4<u32>>;

// Slot of a row. Places after the last step of a shuffled sequence repeat that step; the loss ignores them.
fn slot_of(row: u32) -> u32 {
    let slot = batch.first_slot + row / (batch.agents * batch.quads);
    if (batch.order == 0u) {
        return slot;
    }
    let listed = slot * batch.quads + row % batch.quads;
    return min(dones_and_masks[batch.order + listed / 4u][listed % 4u], batch.recurrent.steps - 1u);
}

// A quad of rows and its invocation.
struct Row {
    row: u32,
    slot: u32,
    stack: u32,
    agent: u32,
    // First vec4 of the working weights of the row's network, and of the network of the workgroup's block of rows.
    net: u32,
    block_net: u32,
    // False for an invocation past the last row, which repeats that row and stores nothing.
    exists: bool,
    local: u32,
    subgroup: u32,
    lane: u32,
}

// The inputs of a layer for one quad of rows; `base` is the index of input 0 in the observations or the activations.
struct Inputs {
    observed: bool,
    base: u32,
    count: u32,
}

fn input(inputs: Inputs, k: u32) -> vec4<f32> {
    if (inputs.observed) {
        return of_quad(observations[inputs.base + k * batch.quads]);
    }
    return of_quad(acts[inputs.base + k * TILE]);
}

// Input k; past the end the last one.
fn clamped_input(inputs: Inputs, k: u32) -> vec4<f32> {
    return input(inputs, min(k, inputs.count - 1u));
}
