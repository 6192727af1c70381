// The gradient of the PPO losses by the weights of both networks, a block of rows a workgroup: forward pass, losses, backward pass and
// the sums over the block's rows. A workgroup takes every num_workgroups-th block and adds their gradients to a partial sum of its own,
// in order; nn/reduce adds the partial sums. Neither activations nor gradients of a block outlive it. Blocks in x, stacks in y.

import package::constants::{WG, TILE, QUADS, WIDTH};
import package::lib::block::{DEPTH, GROUPS, PARTS, values, value_at, staged, sums, column_group, first_quad};
import package::lib::block_backward::{descend_layer, store_sums};
import package::lib::block_forward::{Moments, Row, stacks, acts, observations, row_of, run_layers, first_input, kept_moments};
import package::lib::heads::p;
import package::lib::loss::{loss_row, policy_loss, value_loss, scalars, statistics};
import package::lib::network::{Layer, place};
import package::lib::quad::of_quad;
import package::lib::slots::batch;
import package::scalars::STOPPED;

// `[workgroup][parameter]`.
@group(0) @binding(5) var<storage, read_write> partials: array<vec4<f32>>;

// Inputs that are staged at a time, as many as fit in the memory of the staged weights, and the invocations that share a column group.
const INPUTS: u32 = DEPTH * GROUPS / QUADS;
const SHARING: u32 = WG / GROUPS;

// Input k of a layer for a quad of rows, normalised; 0 past the last one.
fn layer_input(layer: Layer, l: u32, k: u32, base: u32, kept: u32, by: Moments) -> vec4<f32> {
    let at = min(k, layer.inputs - 1u);
    var input = vec4<f32>(0.0);
    if (l == 0u) {
        input = of_quad(observations[base + at * batch.quads]);
    } else {
        input = of_quad(acts[place(kept, batch.acts) + (layer.input + at) * TILE]);
    }
    return select(vec4<f32>(0.0), (input - by.mean) * by.scale, k < layer.inputs);
}

// Adds `sum` to four columns of a row of a matrix.
fn accumulate(layer: Layer, first: u32, k: u32, column: u32, sum: vec4<f32>) {
    if (k < layer.inputs && 4u * column < layer.outputs) {
        partials[first + layer.weights + k * layer.stride + column] += sum;
    }
}

// Adds the products of a layer's inputs with the gradients of its outputs, which are the values. Begins with a barrier.
fn accumulate_matrix(layer: Layer, l: u32, first: u32, base: u32, kept: u32, local: u32) {
    let c = column_group(local);
    let q = local % QUADS;
    let by = kept_moments(layer, kept);
    for (var start = 0u; start < layer.inputs; start += INPUTS) {
        workgroupBarrier();
        for (var k = local / QUADS; k < INPUTS; k += PARTS) {
            staged[k * QUADS + q] = layer_input(layer, l, start + k, base, kept, by);
        }
        workgroupBarrier();
        for (var k = local / GROUPS; k < INPUTS; k += 2u * SHARING) {
            var s = vec4<f32>(0.0);
            var t = vec4<f32>(0.0);
            for (var i = 0u; i < QUADS; i++) {
                // A row vector times this matrix sums over the four rows, for four outputs at once.
                let g = mat4x4<f32>(
                    values[value_at(4u * c, i)],
                    values[value_at(4u * c + 1u, i)],
                    values[value_at(4u * c + 2u, i)],
                    values[value_at(4u * c + 3u, i)],
                );
                s += staged[k * QUADS + i] * g;
                t += staged[(k + SHARING) * QUADS + i] * g;
            }
            accumulate(layer, first, start + k, c, s);
            accumulate(layer, first, start + k + SHARING, c, t);
        }
    }
}

// Adds the sums of the gradients alone; in the first layer of a shared network every agent may have a bias of its own.
fn accumulate_bias(layer: Layer, first: u32, start: u32, by_agent: u32, local: u32) {
    if (local >= GROUPS || 4u * local >= layer.outputs) {
        return;
    }
    for (var i = 0u; i < QUADS; i++) {
        let agent = row_of(start + i, 0u, false).agent * by_agent;
        let ones = vec4<f32>(1.0);
        let sum = vec4<f32>(
            dot(ones, values[value_at(4u * local, i)]),
            dot(ones, values[value_at(4u * local + 1u, i)]),
            dot(ones, values[value_at(4u * local + 2u, i)]),
            dot(ones, values[value_at(4u * local + 3u, i)]),
        );
        partials[first + layer.bias + agent * layer.stride + local] += sum;
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let stack = group.y;
    let slice = group.x * p.parameters;
    let end = select(p.parameters, stacks[1].params, stack == 0u);
    if (batch.starts_sum == 1u) {
        for (var i = stacks[stack].params + local; i < end; i += WG) {
            partials[slice + i] = vec4<f32>(0.0);
        }
        storageBarrier();
    }
    let q = local % QUADS;
    let kept = group.x * QUADS + q;
    let layers = stacks[stack].layers;
    let head = stacks[stack].layer[layers - 1u];
    var terms = vec4<f32>(0.0);
    var clipped = 0.0;
    for (var start = group.x * QUADS; start < batch.rows; start += count.x * QUADS) {
        // If every agent has its own network, blocks do not straddle agents.
        let agent = row_of(start, 0u, false).agent;
        let net = stacks[stack].working + agent * stacks[stack].working_stride;
        let first = slice + stacks[stack].params + agent * stacks[stack].net_stride;
        let own = row_of(start + q, kept, true);
        let two = first_quad(local);
        let rows = array<Row, 2>(
            row_of(start + two, group.x * QUADS + two, true),
            row_of(start + two + 1u, group.x * QUADS + two + 1u, true),
        );
        run_layers(stack, net, own, rows, local);
        store_sums(head.outputs, local);
        if (local < QUADS) {
            let row = loss_row(own.row, q, own.exists);
            if (stack == 0u) {
                let policy = policy_loss(row);
                terms += vec4<f32>(policy.loss, 0.0, policy.entropy, policy.kl);
                clipped += policy.clipped;
            } else {
                terms.y += value_loss(row);
            }
        }
        // Other invocations wrote the activations that this one reads.
        storageBarrier();
        let base = first_input(own, stacks[stack].input_kind);
        for (var l = layers; l > 0u; l--) {
            let layer = stacks[stack].layer[l - 1u];
            accumulate_matrix(layer, l - 1u, first, base, kept, local);
            accumulate_bias(layer, first, start, select(0u, stacks[stack].agent_bias, l == 1u), local);
            if (l > 1u) {
                descend_layer(layer, net, kept, local);
            }
        }
        // The next block overwrites values and activations.
        workgroupBarrier();
        storageBarrier();
    }
    workgroupBarrier();
    staged[local] = terms;
    values[local] = vec4<f32>(clipped, 0.0, 0.0, 0.0);
    workgroupBarrier();
    if (local == 0u) {
        var sum = vec4<f32>(0.0);
        var sum_clipped = vec4<f32>(0.0);
        for (var i = 0u; i < QUADS; i++) {
            sum += staged[i];
            sum_clipped += values[i];
        }
        // Zeros after the stop of this rollout's updates.
        let counts = vec4<bool>(scalars[STOPPED] != 1.0);
        let entry = ((batch.loss.index * 2u + stack) * p.partial_sums + group.x) * 2u;
        statistics[entry] = select(vec4<f32>(0.0), sum, counts);
        statistics[entry + 1u] = select(vec4<f32>(0.0), sum_clipped, counts);
    }
}
