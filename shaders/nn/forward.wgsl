// Forward pass of a whole stack for four rows an invocation: LayerNorm, then dense layer, activation and LayerNorm for every hidden
// layer, then the head. One dispatch covers all agents and both networks: rows in x, stacks in y. Gain and offset of the LayerNorms
// are folded into the weights (nn/fold).
//
// With a GRU (lib/gru) after the hidden layers an invocation walks its rows through the slots of a chunk in order.
//
// With cooperative matrices a workgroup owns a block of rows: PARTS invocations share a quad of rows, and each stores every PARTS-th
// column of the product.

import package::constants::{WG, TILE};
import package::lib::dense::{Target, dense, dense_block};
import package::lib::forward::{stacks, Row, Inputs};
import package::lib::slots::{batch, slot_of};
@if(recurrent) import package::lib::gru::{load_state, gru_cell};
@if(recurrent) import package::network::GATES_OF_STATE;
import package::lib::layer_norm::{input_stats, input_stats_part, gather};
import package::lib::network::place;
import package::network::{ALL, STATE};
@if(cooperative) import package::constants::SUBGROUP;

@group(0) @binding(7) var<storage, read_write> layer_norm_stats: array<vec4<f32>>;

// First quad of a slot's environment states in the observations' buffer.
fn first_state(slot: u32) -> u32 {
    return batch.first_state + slot * batch.state_dim * batch.quads;
}

// All layers for one quad of rows.
//
// `stack` is an argument of its own because WGSL treats all fields of a structure as non-uniform if one is, and barriers and subgroup
// operations need loops of uniform length.
fn run_stack(at: Row, stack: u32) {
    let row = at.row;
    let input_kind = stacks[stack].input_kind;
    let observed = at.slot * batch.agents + select(at.agent, 0u, input_kind == ALL);
    let first = select(observed * batch.obs_dim * batch.quads, first_state(at.slot), input_kind == STATE);
    let acts0 = place(row, batch.acts);
    var inputs = Inputs(true, first + row % batch.quads, stacks[stack].layer[0].inputs);
    @if(!cooperative) var stats = input_stats(inputs);
    @if(cooperative) var stats = gather(input_stats_part(inputs, at.local / TILE), at.local);
    let layers = stacks[stack].layers;
    for (var l = 0u; l < layers; l++) {
        let layer = stacks[stack].layer[l];
        var mean = vec4<f32>(0.0);
        var scale = vec4<f32>(1.0);
        @if(recurrent) if (layer.kind == GATES_OF_STATE) {
            inputs = Inputs(false, acts0 + layer.input * TILE, layer.inputs);
        }
        if (layer.norm == 1u) {
            mean = stats.mean;
            scale = 1.0 / sqrt(stats.squares / stats.count + 1e-5);
            @if(cooperative) let owner = at.local < TILE;
            @if(!cooperative) let owner = true;
            if (batch.forward.keep == 1u && at.exists && owner) {
                layer_norm_stats[layer.layer_norm_stats * batch.stride + row] = mean;
                layer_norm_stats[(layer.layer_norm_stats + 1u) * batch.stride + row] = scale;
            }
        }
        var to: Target;
        to.is_head = l + 1u == layers;
        to.exists = at.exists;
        to.index = acts0 + layer.output * TILE;
        to.product = acts0 + layer.made_from * TILE;
        @if(recurrent) to.kind = layer.kind;
        @if(recurrent) to.added = select(0u, 2u * layer.inputs, layer.kind == GATES_OF_STATE);
        if (to.is_head) {
            to.index = select(batch.forward.head_actor, batch.forward.head_critic, stack == 1u) + row;
        }
        let bias = at.net + layer.bias + select(0u, at.agent * stacks[stack].agent_bias, l == 0u) * layer.stride;
        @if(!cooperative) stats = dense(inputs, layer, at.net, bias, mean, scale, to, at.lane);
        @if(cooperative) {
            stats = dense_block(inputs, layer, at.block_net, bias, mean, scale, to, at.local, at.subgroup);
            stats = gather(stats, at.local);
            // The next layer reads the outputs of all invocations of the quad.
            storageBarrier();
        }
        inputs = Inputs(false, to.index, layer.outputs);
        @if(recurrent) if (layer.kind == GATES_OF_STATE) {
            to.index = acts0 + stacks[stack].layer[l + 1u].input * TILE;
            @if(!cooperative) stats = gru_cell(at, layer, to.index);
            @if(cooperative) {
                stats = gather(gru_cell(at, layer, to.index), at.local);
                storageBarrier();
            }
            inputs = Inputs(false, to.index, layer.inputs);
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
    @if(cooperative) let subgroup = local / SUBGROUP;
    @if(!cooperative) let subgroup = 0u;
    @if(cooperative) let index = group.x * TILE + local % TILE;
    @if(!cooperative) let index = group.x * WG + local;
    let per_slot = batch.agents * batch.quads;
    // Quads of sequences, or of rows without a GRU.
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
    at.agent = (min(index, count - 1u) % per_slot) / batch.quads;
    at.net = stacks[at.stack].working + at.agent * stacks[at.stack].working_stride;
    // If every agent has its own network, blocks do not straddle agents.
    at.block_net = stacks[at.stack].working + (group.x * TILE % per_slot) / batch.quads * stacks[at.stack].working_stride;
    // All invocations of a subgroup or workgroup take part: those past the end repeat the last row and store nothing.
    @if(!recurrent) {
        at.row = min(index, batch.rows - 1u);
        at.exists = index < batch.rows;
        at.slot = slot_of(at.row);
        run_stack(at, stack);
    }
    @if(recurrent) for (var t = 0u; t < batch.recurrent.length; t++) {
        let row = (min(index, count - 1u) / per_slot * batch.recurrent.length + t) * per_slot + index % per_slot;
        // In a shorter last chunk the last slot is repeated.
        at.row = select(batch.rows - per_slot + index % per_slot, row, row < batch.rows);
        at.exists = index < count && row < batch.rows;
        at.slot = slot_of(at.row);
        load_state(at, t);
        run_stack(at, stack);
        @if(cooperative) storageBarrier();
    }
}
