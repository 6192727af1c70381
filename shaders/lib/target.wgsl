// Destination of a layer's outputs in the forward passes that store activations.

import package::constants::TILE;
import package::lib::activation::activate;
import package::lib::forward::{acts, Row};
import package::lib::network::{Layer, place};
import package::lib::quad::{to_quad, of_quad};
import package::lib::slots::batch;
@if(recurrent) import package::network::{GATES_OF_INPUT, GATES_OF_STATE};

@group(0) @binding(5) var<storage, read_write> head: array<vec4<f32>>;

// The outputs of a layer for one quad of rows.
struct Target {
    // Index of column 0 in the head buffer or in the activations, and of its value before the activation function.
    index: u32,
    product: u32,
    is_head: bool,
    exists: bool,
    @if(recurrent) kind: u32,
    // Number of columns that are added to the row's present values.
    @if(recurrent) added: u32,
}

fn target_of(at: Row, layer: Layer, is_head: bool) -> Target {
    let acts0 = place(at.row, batch.acts);
    var to: Target;
    to.is_head = is_head;
    to.exists = at.exists;
    to.index = acts0 + layer.output * TILE;
    to.product = acts0 + layer.made_from * TILE;
    @if(recurrent) to.kind = layer.kind;
    @if(recurrent) to.added = select(0u, 2u * layer.inputs, layer.kind == GATES_OF_STATE);
    if (is_head) {
        to.index = select(batch.forward.head_actor, batch.forward.head_critic, at.stack == 1u) + at.row;
    }
    return to;
}

// Stores one column and returns it as it was stored.
fn put(to: Target, column: u32, value: vec4<f32>) -> vec4<f32> {
    if (to.is_head) {
        if (to.exists) {
            head[to.index + column * batch.stride] = value;
        }
        return value;
    }
    @if(recurrent) if (to.kind == GATES_OF_INPUT || to.kind == GATES_OF_STATE) {
        if (to.exists) {
            let at = to.index + column * TILE;
            acts[at] = to_quad(value + select(vec4<f32>(0.0), of_quad(acts[at]), column < to.added));
        }
        return value;
    }
    let q = to_quad(activate(value));
    if (to.exists) {
        // Read by the backward pass only. Beyond these bounds the derivative is 0 or 1, which infinity would turn into NaN.
        @if(gelu || silu) if (batch.forward.keep == 1u) {
            acts[to.product + column * TILE] = to_quad(clamp(value, vec4<f32>(-6e4), vec4<f32>(6e4)));
        }
        acts[to.index + column * TILE] = q;
    }
    return of_quad(q);
}
