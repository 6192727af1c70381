// Gradients with respect to the matrix products of a stack, from the head down to the first layer, for a block of rows a workgroup. The
// gradients of a layer stay in workgroup memory for the layer below; they are stored for the gradients of the weights only. Training
// runs ppo/gradient instead, which is made of the same functions: this kernel is for tests and measurements of them.

import package::constants::{WG, TILE, QUADS};
import package::lib::block::{PARTS, values, value_at};
import package::lib::block_backward::descend_layer;
import package::lib::block_forward::{stacks, row_of};
import package::lib::network::place;
import package::lib::quad::{Quad, to_quad, of_quad};
import package::lib::slots::batch;

@group(0) @binding(5) var<storage, read_write> grads: array<Quad>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let stack = batch.forward.first_stack + group.y;
    let top = stacks[stack].layers - 1u;
    let q = local % QUADS;
    let at = row_of(group.x * QUADS + q, 0u, false);
    // If every agent has its own network, blocks do not straddle agents.
    let agent = row_of(group.x * QUADS, 0u, false).agent;
    let net = stacks[stack].working + agent * stacks[stack].working_stride;
    let grads0 = place(at.row, batch.grads);

    let head = stacks[stack].layer[top];
    for (var c = local / QUADS; c < (head.outputs + 3u) / 4u * 4u; c += PARTS) {
        let dz = of_quad(grads[grads0 + (head.grad + min(c, head.outputs - 1u)) * TILE]);
        values[value_at(c, q)] = select(vec4<f32>(0.0), dz, c < head.outputs);
    }
    for (var l = top; l > 0u; l--) {
        let layer = stacks[stack].layer[l];
        descend_layer(layer, net, at.row, local);
        if (at.exists) {
            for (var k = local / QUADS; k < layer.inputs; k += PARTS) {
                grads[grads0 + (layer.below + k) * TILE] = to_quad(values[value_at(k, q)]);
            }
        }
    }
}
