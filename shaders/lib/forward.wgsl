// Shared parts of the forward passes that store activations: bindings, rows, and the inputs of layers.

import package::constants::TILE;
import package::lib::network::{NetworkStack, Layer, place};
import package::lib::quad::{Quad, of_quad};
import package::lib::slots::batch;
import package::network::{ALL, STATE};

// Bindings 0 and 6: lib/slots; 2: lib/weights or lib/cooperative; 5: lib/target; 7: of each kernel; 8: lib/gru.
@group(0) @binding(1) var<uniform> stacks: array<NetworkStack, 2>;
@group(0) @binding(3) var<storage, read> observations: array<Quad>;
@group(0) @binding(4) var<storage, read_write> acts: array<Quad>;

// A quad of rows.
struct Row {
    row: u32,
    slot: u32,
    stack: u32,
    agent: u32,
    // False past the last row, where that row is repeated and nothing is stored.
    exists: bool,
}

// The inputs of a layer for one quad of rows; `base` is the index of input 0 in the observations or the activations.
struct Inputs {
    observed: bool,
    base: u32,
    count: u32,
}

// Index of a quad's first input in the observations.
fn first_input(at: Row) -> u32 {
    let input_kind = stacks[at.stack].input_kind;
    let observed = at.slot * batch.agents + select(at.agent, 0u, input_kind == ALL);
    // The environments' own states follow the observations of all slots.
    let state = batch.first_state + at.slot * batch.state_dim * batch.quads;
    return select(observed * batch.obs_dim * batch.quads, state, input_kind == STATE) + at.row % batch.quads;
}

// The inputs of layer l; those of the first one are `observed`.
fn input_of_layer(observed: Inputs, at: Row, layer: Layer, l: u32) -> Inputs {
    if (l == 0u) {
        return observed;
    }
    return Inputs(false, place(at.row, batch.acts) + layer.input * TILE, layer.inputs);
}

fn observed_input(inputs: Inputs, k: u32) -> vec4<f32> {
    return of_quad(observations[inputs.base + k * batch.quads]);
}

fn layer_input(inputs: Inputs, k: u32) -> vec4<f32> {
    return of_quad(acts[inputs.base + k * TILE]);
}

fn input(inputs: Inputs, k: u32) -> vec4<f32> {
    if (inputs.observed) {
        return observed_input(inputs, k);
    }
    return layer_input(inputs, k);
}

// Input k; past the end the last one.
fn clamped_input(inputs: Inputs, k: u32) -> vec4<f32> {
    return input(inputs, min(k, inputs.count - 1u));
}
