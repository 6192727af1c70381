// Forward pass of a whole stack for a block of rows a workgroup, for layers that are wider than workgroup memory holds, and for GRUs:
// activations lie in buffers, and pass through workgroup memory part by part. Several invocations share a quad of rows. One dispatch
// covers all agents and both networks: rows in x, stacks in y. Gain and offset of the LayerNorms are folded into the weights (nn/fold).
//
// With a GRU (lib/gru) after the hidden layers a workgroup walks its rows through the slots of a chunk in order: through all layers, or in
// three dispatches through the state's gates alone, with the layers before and after them for all slots at once.

import package::constants::{WG, TILE, QUADS};
import package::lib::forward::{stacks, Row, Inputs, first_input, input_of_layer};
@if(!cooperative) import package::lib::block::first_quad;
@if(!cooperative) import package::lib::lanes_forward::{Moments, no_moments, moments_of, dense};
@if(cooperative) import package::lib::matrix_forward::{Moments, no_moments, moments_of, dense};
import package::lib::network::{Layer, place};
import package::lib::slots::{batch, slot_of};
@if(recurrent) import package::lib::gru::{Share, load_state, gru_cell};
@if(recurrent) import package::lib::sequences::{sequences, row_in_time};
@if(recurrent) import package::constants::PHASE;
@if(recurrent) import package::network::{GATES_OF_STATE, WHOLE, BEFORE_CELL, RECURRENCE, HEAD};
@if(cooperative) import package::constants::SUBGROUP;

@group(0) @binding(7) var<storage, read_write> layer_norm_stats: array<vec4<f32>>;

fn keep_moments(layer: Layer, at: Row, by: Moments, local: u32) {
    if (batch.forward.keep == 1u && at.exists && local < QUADS) {
        layer_norm_stats[layer.layer_norm_stats * batch.stride + at.row] = by.mean;
        layer_norm_stats[(layer.layer_norm_stats + 1u) * batch.stride + at.row] = by.scale;
    }
}

// The layers [first, end) of this dispatch.
struct Layers {
    first: u32,
    end: u32,
}

@if(!recurrent)
fn layers_of(stack: u32) -> Layers {
    return Layers(0u, stacks[stack].layers);
}

@if(recurrent)
fn layers_of(stack: u32) -> Layers {
    let layers = stacks[stack].layers;
    let head = layers - 1u;
    let first = select(select(0u, head - 1u, PHASE == RECURRENCE), head, PHASE == HEAD);
    let end = select(select(layers, head, PHASE == RECURRENCE), head - 1u, PHASE == BEFORE_CELL);
    return Layers(first, end);
}

// The layers of this dispatch. `own` is the quad that the invocation loads a part of, `rows` are the two whose columns it computes; with
// matrix units only the first counts, which is the own one.
//
// `stack` is an argument of its own because WGSL treats all fields of a structure as non-uniform if one is, and barriers and subgroup
// operations need loops of uniform length.
fn run_stack(own: Row, rows: array<Row, 2>, stack: u32, net: u32, local: u32, subgroup: u32) {
    var inputs = Inputs(true, first_input(own), stacks[stack].layer[0].inputs);
    let layers = layers_of(stack);
    for (var l = layers.first; l < layers.end; l++) {
        let layer = stacks[stack].layer[l];
        inputs = input_of_layer(inputs, own, layer, l);
        var by = no_moments();
        if (layer.norm == 1u) {
            by = moments_of(inputs, layer.inputs, local);
            keep_moments(layer, own, by, local);
        }
        let agent_bias = select(0u, stacks[stack].agent_bias, l == 0u);
        dense(inputs, by, layer, net, agent_bias, own, rows, l + 1u == stacks[stack].layers, local, subgroup);
        // The next layer reads the outputs of all invocations of the quad.
        storageBarrier();
        @if(recurrent) if (layer.kind == GATES_OF_STATE) {
            let next = place(own.row, batch.acts) + stacks[stack].layer[l + 1u].input * TILE;
            _ = gru_cell(own, layer, next, Share(local / QUADS, PARTS));
            storageBarrier();
        }
    }
}

// Invocations that share a quad of rows.
const PARTS: u32 = WG / QUADS;

// Quad `index` of the dispatch. Quads past the last one repeat the last row and store nothing: all invocations take part.
fn row_at(index: u32, stack: u32) -> Row {
    let row = min(index, batch.rows - 1u);
    let agent = row % (batch.agents * batch.quads) / batch.quads;
    return Row(row, slot_of(row), stack, agent, index < batch.rows);
}

// The row of sequence `index` in the `t`-th slot of its chunk.
@if(recurrent)
fn row_of_sequence(index: u32, stack: u32, t: u32) -> Row {
    let agent = min(index, sequences() - 1u) % (batch.agents * batch.quads) / batch.quads;
    let at = row_in_time(index, t);
    return Row(at.row, slot_of(at.row), stack, agent, at.exists);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let stack = batch.forward.first_stack + group.y;
    let start = group.x * QUADS;
    // If every agent has its own network, blocks do not straddle agents.
    let agent = start % (batch.agents * batch.quads) / batch.quads;
    let net = stacks[stack].working + agent * stacks[stack].working_stride;
    @if(cooperative) let subgroup = local / SUBGROUP;
    @if(!cooperative) let subgroup = 0u;
    let own = start + local % QUADS;
    @if(!cooperative) let first = start + first_quad(local);
    @if(cooperative) let first = own;
    @if(recurrent) if (PHASE == WHOLE || PHASE == RECURRENCE) {
        for (var t = 0u; t < batch.recurrent.length; t++) {
            let at = row_of_sequence(own, stack, t);
            load_state(at, t, Share(local / QUADS, PARTS));
            storageBarrier();
            let rows = array<Row, 2>(row_of_sequence(first, stack, t), row_of_sequence(first + 1u, stack, t));
            run_stack(at, rows, stack, net, local, subgroup);
        }
        return;
    }
    let rows = array<Row, 2>(row_at(first, stack), row_at(first + 1u, stack));
    run_stack(row_at(own, stack), rows, stack, net, local, subgroup);
}
