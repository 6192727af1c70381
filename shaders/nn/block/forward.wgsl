// Forward pass of a whole stack for a block of rows a workgroup: LayerNorm, then dense layer, activation and LayerNorm for every hidden
// layer, then the head. The activations of a block never leave workgroup memory, unless a backward pass will read them. One
// dispatch covers all agents and both networks: rows in x, stacks in y. Gain and offset of the LayerNorms are folded into the weights
// (nn/fold).

import package::constants::{WG, QUADS};
import package::lib::block::{sums, column_group, first_quad};
import package::lib::block_forward::{Row, stacks, row_of, run_layers};
import package::lib::network::Layer;
import package::lib::slots::batch;

@group(0) @binding(5) var<storage, read_write> head: array<vec4<f32>>;

fn end_head(layer: Layer, first: u32, rows: array<Row, 2>, local: u32) {
    let c = 4u * column_group(local);
    for (var i = 0u; i < 2u; i++) {
        for (var j = 0u; j < 4u; j++) {
            if (c + j < layer.outputs && rows[i].exists) {
                head[first + rows[i].row + (c + j) * batch.stride] = sums[4u * i + j];
            }
        }
    }
}

fn row_at(index: u32) -> Row {
    return row_of(index, min(index, batch.rows - 1u), batch.forward.keep == 1u && index < batch.rows);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let stack = batch.forward.first_stack + group.y;
    let start = group.x * QUADS;
    // If every agent has its own network, blocks do not straddle agents.
    let net = stacks[stack].working + row_at(start).agent * stacks[stack].working_stride;
    let first = start + first_quad(local);
    let rows = array<Row, 2>(row_at(first), row_at(first + 1u));
    run_layers(stack, net, row_at(start + local % QUADS), rows, local);
    let head_of_stack = select(batch.forward.head_actor, batch.forward.head_critic, stack == 1u);
    end_head(stacks[stack].layer[stacks[stack].layers - 1u], head_of_stack, rows, local);
}
