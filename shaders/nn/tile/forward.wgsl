// Forward pass of a whole stack for four rows an invocation: LayerNorm, then dense layer, activation and LayerNorm for every hidden
// layer, then the head. One dispatch covers all agents and both networks: rows in x, stacks in y. Gain and offset of the LayerNorms
// are folded into the weights (nn/fold).
//
// With a GRU (lib/gru) after the hidden layers an invocation walks its rows through the slots of a chunk in order.

import package::constants::{WG, TILE};
import package::lib::dense::dense;
import package::lib::forward::{stacks, Row, Inputs, first_input, input_of_layer};
import package::lib::layer_norm::input_stats;
import package::lib::network::place;
import package::lib::slots::{batch, slot_of};
@if(recurrent) import package::lib::gru::{Share, load_state, gru_cell};
@if(recurrent) import package::lib::sequences::{sequences, row_in_time};
@if(recurrent) import package::network::GATES_OF_STATE;
import package::lib::target::target_of;

@group(0) @binding(7) var<storage, read_write> layer_norm_stats: array<vec4<f32>>;

// All layers for one quad of rows. `net` is the first vec4 of its network's working weights.
fn run_stack(at: Row, stack: u32, net: u32, lane: u32) {
    var inputs = Inputs(true, first_input(at), stacks[stack].layer[0].inputs);
    var stats = input_stats(inputs);
    let layers = stacks[stack].layers;
    for (var l = 0u; l < layers; l++) {
        let layer = stacks[stack].layer[l];
        var mean = vec4<f32>(0.0);
        var scale = vec4<f32>(1.0);
        inputs = input_of_layer(inputs, at, layer, l);
        if (layer.norm == 1u) {
            mean = stats.mean;
            scale = 1.0 / sqrt(stats.squares / stats.count + 1e-5);
            if (batch.forward.keep == 1u && at.exists) {
                layer_norm_stats[layer.layer_norm_stats * batch.stride + at.row] = mean;
                layer_norm_stats[(layer.layer_norm_stats + 1u) * batch.stride + at.row] = scale;
            }
        }
        let to = target_of(at, layer, l + 1u == layers);
        let bias = net + layer.bias + select(0u, at.agent * stacks[stack].agent_bias, l == 0u) * layer.stride;
        stats = dense(inputs, layer, net, bias, mean, scale, to, lane);
        @if(recurrent) if (layer.kind == GATES_OF_STATE) {
            let next = place(at.row, batch.acts) + stacks[stack].layer[l + 1u].input * TILE;
            stats = gru_cell(at, layer, next, Share(0u, 1u));
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
    var at: Row;
    let stack = batch.forward.first_stack + group.y;
    at.stack = stack;
    at.agent = (min(index, count - 1u) % (batch.agents * batch.quads)) / batch.quads;
    let net = stacks[stack].working + at.agent * stacks[stack].working_stride;
    // All invocations of a subgroup take part: those past the end repeat the last row and store nothing.
    @if(!recurrent) {
        at.row = min(index, batch.rows - 1u);
        at.exists = index < batch.rows;
        at.slot = slot_of(at.row);
        run_stack(at, stack, net, lane);
    }
    @if(recurrent) for (var t = 0u; t < batch.recurrent.length; t++) {
        let row = row_in_time(index, t);
        at.row = row.row;
        at.exists = row.exists;
        at.slot = slot_of(at.row);
        load_state(at, t, Share(0u, 1u));
        run_stack(at, stack, net, lane);
    }
}
