// Shared parts of the backward passes that store gradients: bindings, the gradients that a layer hands down, and the GRU's cell.

import package::constants::TILE;
import package::lib::activation::slope;
import package::lib::network::{NetworkStack, Layer, place};
import package::lib::quad::{Quad, to_quad, of_quad};
import package::lib::slots::batch;
@if(recurrent) import package::lib::sequences::row_in_time;
@if(recurrent) import package::lib::slots::{dones_and_masks, slot_of};
@if(recurrent) import package::network::{GATES_OF_STATE, AFTER_CELL};

// Bindings 0 and, with a GRU, 6: lib/slots; 2: lib/weights or lib/cooperative.
@group(0) @binding(1) var<uniform> stacks: array<NetworkStack, 2>;
@group(0) @binding(3) var<storage, read> acts: array<Quad>;
@group(0) @binding(4) var<storage, read> layer_norm_stats: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> grads: array<Quad>;

// A quad of rows.
struct Row {
    row: u32,
    // False past the last row, where that row is repeated and nothing is stored.
    exists: bool,
    // Whether the next slot continues from this one's state, and the index of its flag in dones_and_masks.
    @if(recurrent) goes_on: bool,
    @if(recurrent) signal: u32,
}

// The gradients of a layer's normalised inputs, for one quad of rows.
struct Below {
    grads: u32,
    input: u32,
    product: u32,
    norm: bool,
    exists: bool,
    mean: vec4<f32>,
    scale: vec4<f32>,
    // The layer's kind: the input of the head after a GRU and of the state's gates is a state, without activation function.
    @if(recurrent) kind: u32,
}

fn below_of(at: Row, layer: Layer) -> Below {
    let acts0 = place(at.row, batch.acts);
    var below: Below;
    below.grads = place(at.row, batch.grads) + layer.below * TILE;
    below.input = acts0 + layer.input * TILE;
    below.product = acts0 + layer.product * TILE;
    below.norm = layer.norm == 1u;
    below.exists = at.exists;
    below.mean = vec4<f32>(0.0);
    below.scale = vec4<f32>(1.0);
    @if(recurrent) below.kind = layer.kind;
    if (below.norm) {
        below.mean = layer_norm_stats[layer.layer_norm_stats * batch.stride + at.row];
        below.scale = layer_norm_stats[(layer.layer_norm_stats + 1u) * batch.stride + at.row];
    }
    return below;
}

// Derivative of the activation function that produced an input from `made_from`.
fn derivative(below: Below, made_from: vec4<f32>) -> vec4<f32> {
    var d = slope(made_from);
    @if(recurrent) {
        d = select(d, vec4<f32>(1.0), below.kind == AFTER_CELL || below.kind == GATES_OF_STATE);
    }
    return d;
}

// Input k, normalised.
fn normed_input(below: Below, k: u32) -> vec4<f32> {
    return (of_quad(acts[below.input + k * TILE]) - below.mean) * below.scale;
}

// Stores the gradient of a normalised input, for `pass_norm`; without a LayerNorm, that of the product below.
fn store_gradient(below: Below, k: u32, dn: vec4<f32>) {
    if (!below.exists) {
        return;
    }
    if (below.norm) {
        grads[below.grads + k * TILE] = to_quad(dn);
        return;
    }
    let made_from = of_quad(acts[below.product + k * TILE]);
    var handed = vec4<f32>(0.0);
    // The part of the state's gradient that bypasses the gates.
    @if(recurrent) {
        handed = select(handed, of_quad(grads[below.grads + k * TILE]), below.kind == GATES_OF_STATE);
    }
    grads[below.grads + k * TILE] = to_quad(dn * derivative(below, made_from) + handed);
}

// Passes the gradient of a normalised input on to the product below, with the averages over all inputs of that gradient, and of it times
// the input.
fn pass_norm(below: Below, k: u32, average: vec4<f32>, average_normed: vec4<f32>) {
    let dn = of_quad(grads[below.grads + k * TILE]);
    let a = of_quad(acts[below.input + k * TILE]);
    @if(relu || tanh) let made_from = a;
    @if(gelu || silu) let made_from = of_quad(acts[below.product + k * TILE]);
    let normed = (a - below.mean) * below.scale;
    let dz = below.scale * (dn - average - normed * average_normed) * derivative(below, made_from);
    if (below.exists) {
        grads[below.grads + k * TILE] = to_quad(dz);
    }
}

// The row of sequence `index` in the `t`-th slot of its chunk.
@if(recurrent)
fn row_of_sequence(index: u32, t: u32) -> Row {
    let at = row_in_time(index, t);
    let next = at.row + batch.agents * batch.quads;
    let goes_on = at.exists && t + 1u < batch.recurrent.length && next < batch.rows;
    return Row(at.row, at.exists, goes_on, slot_of(at.row) * batch.quads + at.row % batch.quads);
}

// Computes the gradients of the gates, and the direct part of the old state's gradient, from the gradient of the new state, for every
// `step`-th entry from `first` on. The gradient from the next slot is dropped where an episode ended.
@if(recurrent)
fn cell(at: Row, layer: Layer, first: u32, step: u32) {
    let acts0 = place(at.row, batch.acts);
    let grads0 = place(at.row, batch.grads);
    let size = layer.inputs;
    let gates = acts0 + (layer.output - size) * TILE;
    let dgates = grads0 + (layer.grad - size) * TILE;
    let per_slot = batch.agents * batch.quads;
    let next = place(select(at.row, at.row + per_slot, at.goes_on), batch.grads);
    let live = (dones_and_masks[at.signal] == vec4<u32>(0u)) & vec4<bool>(at.goes_on);
    for (var j = first; j < size; j += step) {
        let i = gates + j * TILE;
        let n = of_quad(acts[i]);
        let r = of_quad(acts[i + size * TILE]);
        let z = of_quad(acts[i + 2u * size * TILE]);
        let share = of_quad(acts[i + 3u * size * TILE]);
        let h = of_quad(acts[acts0 + (layer.input + j) * TILE]);
        let back = select(vec4<f32>(0.0), of_quad(grads[next + (layer.below + j) * TILE]), live);
        let dh = of_quad(grads[grads0 + (layer.below + j) * TILE]) + back;
        let dn = dh * (1.0 - z) * (1.0 - n * n);
        if (at.exists) {
            let o = dgates + j * TILE;
            grads[o] = to_quad(dn);
            grads[o + size * TILE] = to_quad(dn * share * r * (1.0 - r));
            grads[o + 2u * size * TILE] = to_quad(dh * (h - n) * z * (1.0 - z));
            grads[o + 3u * size * TILE] = to_quad(dn * r);
            grads[grads0 + (layer.below + j) * TILE] = to_quad(dh * z);
        }
    }
}
