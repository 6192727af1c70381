// Backward pass: gradients with respect to the matrix products of a stack, for a block of rows a workgroup, from the head down to the
// first layer; gradients lie in buffers, and pass through workgroup memory part by part. Otherwise as nn/tile/backward; the grid is that of
// nn/stream/forward.

import package::constants::{WG, TILE, QUADS};
import package::lib::backward::{stacks, grads, Row, below_of, normed_input, pass_norm};
@if(recurrent) import package::lib::backward::{row_of_sequence, cell};
@if(!cooperative) import package::lib::block::{first_quad, sum_of_parts};
@if(!cooperative) import package::lib::lanes_backward::product;
@if(cooperative) import package::lib::matrix_backward::{product, sum_of_parts};
import package::lib::network::{Layer, place};
import package::lib::quad::of_quad;
import package::lib::slots::batch;
@if(recurrent) import package::constants::PHASE;
@if(recurrent) import package::network::{GATES_OF_STATE, WHOLE, BEFORE_CELL, RECURRENCE, HEAD};
@if(cooperative) import package::constants::SUBGROUP;

// Invocations that share a quad of rows.
const PARTS: u32 = WG / QUADS;

// Passes the gradients of normalised inputs on to the product below. Contains barriers.
fn layer_norm_backward(own: Row, layer: Layer, local: u32) {
    let below = below_of(own, layer);
    let part = local / QUADS;
    var sum = vec4<f32>(0.0);
    var normed = vec4<f32>(0.0);
    for (var k = part; k < layer.inputs; k += PARTS) {
        let dn = of_quad(grads[below.grads + k * TILE]);
        sum += dn;
        normed += dn * normed_input(below, k);
    }
    let average = sum_of_parts(sum, local) / f32(layer.inputs);
    let average_normed = sum_of_parts(normed, local) / f32(layer.inputs);
    for (var k = part; k < layer.inputs; k += PARTS) {
        pass_norm(below, k, average, average_normed);
    }
}

// The layers (below, top] of this dispatch.
struct Layers {
    top: u32,
    below: u32,
}

@if(!recurrent)
fn layers_of(stack: u32) -> Layers {
    return Layers(stacks[stack].layers - 1u, 0u);
}

@if(recurrent)
fn layers_of(stack: u32) -> Layers {
    let head = stacks[stack].layers - 1u;
    let top = select(select(head, head - 1u, PHASE == RECURRENCE), head - 2u, PHASE == BEFORE_CELL);
    let below = select(select(0u, head - 2u, PHASE == RECURRENCE), head - 1u, PHASE == HEAD);
    return Layers(top, below);
}

// The layers of this dispatch. `own` is the quad that the invocation loads a part of, `rows` are those of the inputs that it computes gradients of.
//
// `stack` is an argument of its own because WGSL treats all fields of a structure as non-uniform if one is, and barriers need loops of
// uniform length.
fn run_stack(own: Row, rows: array<Row, 2>, stack: u32, net: u32, local: u32, subgroup: u32) {
    let layers = layers_of(stack);
    for (var l = layers.top; l > layers.below; l--) {
        let layer = stacks[stack].layer[l];
        @if(recurrent) if (layer.kind == GATES_OF_STATE) {
            cell(own, layer, local / QUADS, PARTS);
            storageBarrier();
        }
        let above = place(own.row, batch.grads) + layer.grad * TILE;
        product(layer, net + layer.transposed, above, rows, local, subgroup);
        // The invocations of a quad read what the others wrote.
        storageBarrier();
        if (layer.norm == 1u) {
            layer_norm_backward(own, layer, local);
            storageBarrier();
        }
    }
}

fn row_at(index: u32) -> Row {
    var at: Row;
    at.row = min(index, batch.rows - 1u);
    at.exists = index < batch.rows;
    return at;
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
        for (var back = 0u; back < batch.recurrent.length; back++) {
            let t = batch.recurrent.length - 1u - back;
            let rows = array<Row, 2>(row_of_sequence(first, t), row_of_sequence(first + 1u, t));
            run_stack(row_of_sequence(own, t), rows, stack, net, local, subgroup);
        }
        return;
    }
    run_stack(row_at(own), array<Row, 2>(row_at(first), row_at(first + 1u)), stack, net, local, subgroup);
}
