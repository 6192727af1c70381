// Shared parts of nn/forward: bindings, rows, and the inputs of layers.

import package::constants::TILE;
import package::lib::network::NetworkStack;
import package::lib::quad::{Quad, of_quad};
import package::lib::slots::batch;

// Bindings 0 and 6: lib/slots; 2: lib/weights or lib/cooperative; 5: lib/dense; 7: nn/forward; 8: lib/gru.
@group(0) @binding(1) var<uniform> stacks: array<NetworkStack, 2>;
@group(0) @binding(3) var<storage, read> observations: array<Quad>;
@group(0) @binding(4) var<storage, read_write> acts: array<Quad>;

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
