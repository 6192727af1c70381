// Backward pass: gradients with respect to the matrix products of a stack, for four rows an invocation, from the head down to the
// first layer. The grid is that of nn/tile/forward. Gradients of the LayerNorms' gains and offsets follow from those of the weights
// (nn/reduce). With a GRU an invocation processes the slots of a chunk in reverse order: da_n = dh' (1 - z) (1 - n^2), da_r = da_n s r
// (1 - r) with the state's part s of the candidate, da_z = dh' (h - n) z (1 - z), ds = da_n r.

import package::constants::{WG, TILE, COLUMNS};
import package::lib::backward::{stacks, grads, Row, Below, below_of, normed_input, store_gradient, pass_norm};
@if(recurrent) import package::lib::backward::{row_of_sequence, cell};
import package::lib::network::{Layer, place};
import package::lib::product::{tile, add, add_spread};
import package::lib::quad::of_quad;
@if(recurrent) import package::lib::sequences::sequences;
import package::lib::slots::batch;
import package::lib::weights::weight;
@if(recurrent) import package::network::GATES_OF_STATE;

// Two sums over a row that the derivative of a LayerNorm needs: of the gradient of the normalised input, and of that gradient times
// the normalised input.
struct Sums {
    plain: vec4<f32>,
    normed: vec4<f32>,
}

fn take(below: Below, k: u32, dn: vec4<f32>, sums: Sums) -> Sums {
    store_gradient(below, k, dn);
    return Sums(sums.plain + dn, sums.normed + dn * normed_input(below, k));
}

// Adds one output's gradient times its weights.
@if(!subgroup_broadcast)
fn accumulate_output(at: u32, w: u32) {
    let dz = of_quad(grads[at]);
    for (var j = 0u; j < COLUMNS / 4u; j++) {
        add(j, dz, weight(w + j));
    }
}

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

// All layers for one quad of rows. `net` is the first vec4 of its network's working weights.
fn run_stack(at: Row, stack: u32, net: u32, lane: u32) {
    for (var l = stacks[stack].layers - 1u; l > 0u; l--) {
        let layer = stacks[stack].layer[l];
        let above = place(at.row, batch.grads) + layer.grad * TILE;
        let below = below_of(at, layer);
        @if(recurrent) if (layer.kind == GATES_OF_STATE) {
            cell(at, layer, 0u, 1u);
        }
        let sums = product(layer, net + layer.transposed, above, below, lane);
        if (below.norm) {
            let average = sums.plain / f32(layer.inputs);
            let average_normed = sums.normed / f32(layer.inputs);
            for (var k = 0u; k < layer.inputs; k++) {
                pass_norm(below, k, average, average_normed);
            }
        }
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @if(subgroup_broadcast) @builtin(subgroup_invocation_id) lane: u32,
) {
    @if(!subgroup_broadcast) let lane = 0u;
    let index = group.x * WG + local;
    @if(recurrent) let count = sequences();
    @if(!recurrent) let count = batch.rows;
    @if(!subgroup_broadcast) if (index >= count) {
        return;
    }
    let stack = batch.forward.first_stack + group.y;
    let agent = (min(index, count - 1u) % (batch.agents * batch.quads)) / batch.quads;
    let net = stacks[stack].working + agent * stacks[stack].working_stride;
    // All invocations of a subgroup take part: those past the end repeat the last row and store nothing.
    @if(!recurrent) run_stack(Row(min(index, batch.rows - 1u), index < batch.rows), stack, net, lane);
    @if(recurrent) for (var back = 0u; back < batch.recurrent.length; back++) {
        run_stack(row_of_sequence(index, batch.recurrent.length - 1u - back), stack, net, lane);
    }
}
