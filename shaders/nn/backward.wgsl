// Backward pass: gradients with respect to the matrix products of a stack, for four rows an invocation, from the head down to the
// first layer. The grid is that of nn/forward. Gradients of the LayerNorms' gains and offsets follow from those of the weights
// (nn/reduce). With a GRU an invocation processes the slots of a chunk in reverse order: da_n = dh' (1 - z) (1 - n^2), da_r = da_n s r
// (1 - r) with the state's part s of the candidate, da_z = dh' (h - n) z (1 - z), ds = da_n r.

import package::constants::{WG, TILE, COLUMNS};
import package::lib::network::{NetworkStack, Layer, place};
@if(recurrent) import package::network::{GATES_OF_STATE, AFTER_CELL};
import package::lib::quad::{Quad, to_quad, of_quad};
import package::lib::slots::batch;
@if(recurrent) import package::lib::slots::{dones_and_masks, slot_of};
import package::lib::activation::slope;
import package::lib::product::{tile, add, add_spread};
@if(!cooperative) import package::lib::weights::weight;
@if(cooperative) import package::lib::cooperative::{clear, stage, multiply, drain, sum_of, DEPTH, WIDTH};
@if(cooperative) import package::constants::{SIZE, SUBGROUP};

@group(0) @binding(1) var<uniform> stacks: array<NetworkStack, 2>;
// Bindings 0 and, with a GRU, 6: lib/slots; 2: lib/weights or lib/cooperative.
@group(0) @binding(3) var<storage, read> acts: array<Quad>;
@group(0) @binding(4) var<storage, read> layer_norm_stats: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> grads: array<Quad>;

// Two sums over a row that the derivative of a LayerNorm needs: of the gradient of the normalised input, and of that gradient times
// the normalised input.
struct Sums {
    plain: vec4<f32>,
    normed: vec4<f32>,
}

// Destination of the gradients of a layer's normalised inputs.
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

// Derivative of the activation function that produced an input from `made_from`.
fn derivative(below: Below, made_from: vec4<f32>) -> vec4<f32> {
    var d = slope(made_from);
    @if(recurrent) {
        d = select(d, vec4<f32>(1.0), below.kind == AFTER_CELL || below.kind == GATES_OF_STATE);
    }
    return d;
}

fn take(below: Below, k: u32, dn: vec4<f32>, sums: Sums) -> Sums {
    let normed = (of_quad(acts[below.input + k * TILE]) - below.mean) * below.scale;
    if (below.exists) {
        if (below.norm) {
            grads[below.grads + k * TILE] = to_quad(dn);
        } else {
            let made_from = of_quad(acts[below.product + k * TILE]);
            var handed = vec4<f32>(0.0);
            // The part of the state's gradient that bypasses the gates.
            @if(recurrent) {
                handed = select(handed, of_quad(grads[below.grads + k * TILE]), below.kind == GATES_OF_STATE);
            }
            grads[below.grads + k * TILE] = to_quad(dn * derivative(below, made_from) + handed);
        }
    }
    return Sums(sums.plain + dn, sums.normed + dn * normed);
}

@if(cooperative) const PARTS: u32 = WG / TILE;
@if(cooperative) var<workgroup> parts: array<Sums, WG>;

// The sums of all invocations of a quad.
@if(cooperative)
fn gather(mine: Sums, local: u32) -> Sums {
    parts[local] = mine;
    workgroupBarrier();
    let q = local % TILE;
    var all = parts[q];
    for (var p = 1u; p < PARTS; p++) {
        let other = parts[p * TILE + q];
        all = Sums(all.plain + other.plain, all.normed + other.normed);
    }
    workgroupBarrier();
    return all;
}

// Gradients of all inputs of a layer, for a whole block of rows. PARTS invocations share a quad of rows.
@if(cooperative)
fn product_block(layer: Layer, w0: u32, above: u32, below: Below, local: u32, subgroup: u32) -> Sums {
    let q = local % TILE;
    let part = local / TILE;
    var sums = Sums(vec4<f32>(0.0), vec4<f32>(0.0));
    for (var k = 0u; k < layer.inputs; k += WIDTH) {
        clear();
        for (var c = 0u; c < layer.outputs; c += DEPTH) {
            for (var i = part; i < DEPTH; i += PARTS) {
                let dz = of_quad(grads[above + min(c + i, layer.outputs - 1u) * TILE]);
                stage(q, i, select(vec4<f32>(0.0), dz, c + i < layer.outputs));
            }
            workgroupBarrier();
            let w = 4u * (w0 + c * layer.transposed_stride) + k;
            multiply(subgroup, w, 4u * layer.transposed_stride, min(DEPTH, layer.outputs - c), layer.inputs - k);
            workgroupBarrier();
        }
        for (var j = 0u; j < 4u; j++) {
            let start = k + j * SIZE;
            if (start < layer.inputs) {
                drain(subgroup, j);
                workgroupBarrier();
                for (var i = part; i < min(SIZE, layer.inputs - start); i += PARTS) {
                    sums = take(below, start + i, sum_of(q, i), sums);
                }
                workgroupBarrier();
            }
        }
    }
    return gather(sums, local);
}

// Adds one output's gradient times its weights.
@if(!subgroup_broadcast && !cooperative)
fn accumulate_output(at: u32, w: u32) {
    let dz = of_quad(grads[at]);
    for (var j = 0u; j < COLUMNS / 4u; j++) {
        add(j, dz, weight(w + j));
    }
}

@if(!cooperative)
fn product(layer: Layer, w0: u32, above: u32, below: Below, lane: u32) -> Sums {
    var sums = Sums(vec4<f32>(0.0), vec4<f32>(0.0));
    for (var k = 0u; k < layer.inputs; k += COLUMNS) {
        for (var j = 0u; j < COLUMNS; j++) {
            tile[j] = vec4<f32>(0.0);
        }
        // One or two outputs an iteration; weights past the outputs are 0.
        @if(subgroup_broadcast || unrolled) for (var c = 0u; c < layer.outputs; c += 2u) {
            let w = w0 + c * layer.transposed_stride + k / 4u;
            let after = above + min(c + 1u, layer.outputs - 1u) * TILE;
            @if(subgroup_broadcast) {
                let v = w + layer.transposed_stride + lane;
                add_spread(of_quad(grads[above + c * TILE]), weight(w + lane), of_quad(grads[after]), weight(v));
            }
            @if(!subgroup_broadcast) {
                accumulate_output(above + c * TILE, w);
                accumulate_output(after, w + layer.transposed_stride);
            }
        }
        @if(!subgroup_broadcast && !unrolled) for (var c = 0u; c < layer.outputs; c++) {
            accumulate_output(above + c * TILE, w0 + c * layer.transposed_stride + k / 4u);
        }
        for (var j = 0u; j < COLUMNS; j++) {
            if (k + j < layer.inputs) {
                sums = take(below, k + j, tile[j], sums);
            }
        }
    }
    return sums;
}

// A quad of rows and its invocation.
struct Row {
    row: u32,
    stack: u32,
    net: u32,
    exists: bool,
    // Whether the next slot continues from this one's state, and the index of its flag in dones_and_masks.
    @if(recurrent) goes_on: bool,
    @if(recurrent) signal: u32,
    local: u32,
    subgroup: u32,
    lane: u32,
}

// Computes the gradients of the gates, and the direct part of the old state's gradient, from the gradient of the new state. The
// gradient from the next slot is dropped where an episode ended.
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

// All layers for one quad of rows.
//
// `stack` is an argument of its own because WGSL treats all fields of a structure as non-uniform if one is, and barriers need loops of
// uniform length.
fn run_stack(at: Row, stack: u32) {
    let row = at.row;
    let acts0 = place(row, batch.acts);
    let grads0 = place(row, batch.grads);
    // First input and step of this invocation in the second pass over the inputs of a LayerNorm.
    @if(cooperative) let first = at.local / TILE;
    @if(!cooperative) let first = 0u;
    @if(cooperative) let step = PARTS;
    @if(!cooperative) let step = 1u;

    for (var l = stacks[stack].layers - 1u; l > 0u; l--) {
        let layer = stacks[stack].layer[l];
        let above = grads0 + layer.grad * TILE;
        var below: Below;
        below.grads = grads0 + layer.below * TILE;
        below.input = acts0 + layer.input * TILE;
        below.product = acts0 + layer.product * TILE;
        below.norm = layer.norm == 1u;
        below.exists = at.exists;
        below.mean = vec4<f32>(0.0);
        below.scale = vec4<f32>(1.0);
        @if(recurrent) below.kind = layer.kind;
        if (below.norm) {
            below.mean = layer_norm_stats[layer.layer_norm_stats * batch.stride + row];
            below.scale = layer_norm_stats[(layer.layer_norm_stats + 1u) * batch.stride + row];
        }
        @if(recurrent) if (layer.kind == GATES_OF_STATE) {
            cell(at, layer, first, step);
            @if(cooperative) storageBarrier();
        }
        @if(!cooperative) let sums = product(layer, at.net + layer.transposed, above, below, at.lane);
        @if(cooperative) let sums = product_block(layer, at.net + layer.transposed, above, below, at.local, at.subgroup);
        // This invocation reads inputs that other invocations of the quad wrote.
        @if(cooperative) storageBarrier();
        if (below.norm) {
            let average = sums.plain / f32(layer.inputs);
            let average_normed = sums.normed / f32(layer.inputs);
            for (var k = first; k < layer.inputs; k += step) {
                let dn = of_quad(grads[below.grads + k * TILE]);
                let a = of_quad(acts[below.input + k * TILE]);
                @if(relu || tanh) let made_from = a;
                @if(gelu || silu) let made_from = of_quad(acts[below.product + k * TILE]);
                let normed = (a - below.mean) * below.scale;
                let dz = below.scale * (dn - average - normed * average_normed) * derivative(below, made_from);
                if (at.exists) {
                    grads[below.grads + k * TILE] = to_quad(dz);
                }
            }
        }
        // The next layer reads the gradients that all invocations of the quad wrote.
        @if(cooperative) storageBarrier();
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @if(subgroup_broadcast) @builtin(subgroup_invocation_id) lane: u32,
) {
    @if(!subgroup_broadcast) let lane = 0u;
    @if(cooperative) let subgroup = local / SUBGROUP;
    @if(!cooperative) let subgroup = 0u;
    @if(cooperative) let index = group.x * TILE + local % TILE;
    @if(!cooperative) let index = group.x * WG + local;
    let per_slot = batch.agents * batch.quads;
    @if(recurrent) let count = (batch.rows / per_slot + batch.recurrent.length - 1u) / batch.recurrent.length * per_slot;
    @if(!recurrent) let count = batch.rows;
    @if(!subgroup_broadcast && !cooperative) if (index >= count) {
        return;
    }
    var at: Row;
    at.local = local;
    at.subgroup = subgroup;
    at.lane = lane;
    let stack = batch.forward.first_stack + group.y;
    at.stack = stack;
    // If every agent has its own network, blocks do not straddle agents.
    @if(cooperative) let agent = (group.x * TILE % per_slot) / batch.quads;
    @if(!cooperative) let agent = (min(index, count - 1u) % per_slot) / batch.quads;
    at.net = stacks[at.stack].working + agent * stacks[at.stack].working_stride;
    // All invocations of a subgroup or workgroup take part: those past the end repeat the last row and store nothing.
    @if(!recurrent) {
        at.row = min(index, batch.rows - 1u);
        at.exists = index < batch.rows;
        run_stack(at, stack);
    }
    @if(recurrent) for (var back = 0u; back < batch.recurrent.length; back++) {
        let t = batch.recurrent.length - 1u - back;
        let row = (min(index, count - 1u) / per_slot * batch.recurrent.length + t) * per_slot + index % per_slot;
        at.row = select(batch.rows - per_slot + index % per_slot, row, row < batch.rows);
        at.exists = index < count && row < batch.rows;
        at.goes_on = t + 1u < batch.recurrent.length && row + per_slot < batch.rows;
        at.signal = slot_of(at.row) * batch.quads + at.row % batch.quads;
        run_stack(at, stack);
    }
}
