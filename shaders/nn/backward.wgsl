// Gradients with respect to the matrix products of a stack, for four rows an invocation, from the head down to the first
// layer. The grid is that of nn/forward. What the LayerNorms' gains and offsets need follows later from the weights'
// gradient (nn/unfold).

import package::constants::{WG, TILE, COLUMNS, TEXTURE_ROW};
import package::lib::network::{Batch, Role, Layer, MAX_LAYERS, place};
import package::lib::quad::{Quad, to_quad, of_quad};
import package::lib::activation::slope;
import package::lib::product::{tile, add, add_spread};

@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<uniform> roles: array<Role, 2>;
@if(texture) @group(0) @binding(2) var weights: texture_2d<f32>;
@if(!texture) @group(0) @binding(2) var<storage, read> weights: array<Quad>;
@group(0) @binding(3) var<storage, read> acts: array<Quad>;
@group(0) @binding(4) var<storage, read> moments: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> grads: array<Quad>;

@if(texture)
fn weight(i: u32) -> vec4<f32> {
    return textureLoad(weights, vec2<u32>(i % TEXTURE_ROW, i / TEXTURE_ROW), 0);
}

@if(!texture)
fn weight(i: u32) -> vec4<f32> {
    return of_quad(weights[i]);
}

fn turn(at: u32, w: u32, lane: u32) {
    let dz = of_quad(grads[at]);
    @if(spread) add_spread(dz, weight(w + lane));
    @if(!spread) for (var j = 0u; j < COLUMNS / 4u; j++) {
        add(j, dz, weight(w + j));
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @if(spread) @builtin(subgroup_invocation_id) lane: u32,
) {
    @if(!spread) let lane = 0u;
    @if(!spread) if (id.x >= batch.rows) {
        return;
    }
    // A subgroup works together: rows past the end take what they find in the last one, and store nothing.
    let row = min(id.x, batch.rows - 1u);
    let exists = id.x < batch.rows;
    let role = batch.first_role + id.y;
    let per_slot = batch.agents * batch.quads;
    let agent = (row % per_slot) / batch.quads;
    let net = roles[role].working + agent * roles[role].working_stride;
    let acts0 = place(row, batch.acts);
    let grads0 = place(row, batch.grads);

    for (var l = roles[role].layers - 1u; l > 0u; l--) {
        let layer = roles[role].layer[l];
        let below = grads0 + roles[role].layer[l - 1u].grad * TILE;
        let above = grads0 + layer.grad * TILE;
        let input = acts0 + layer.input * TILE;
        let product = acts0 + layer.product * TILE;
        var mean = vec4<f32>(0.0);
        var scale = vec4<f32>(1.0);
        if (layer.norm == 1u) {
            mean = moments[layer.moments * batch.stride + row];
            scale = moments[(layer.moments + 1u) * batch.stride + row];
        }
        // Sums of the gradient of the normalised input, and of it times the normalised input.
        var sum = vec4<f32>(0.0);
        var sum_normed = vec4<f32>(0.0);
        let w0 = net + layer.transposed;
        for (var k = 0u; k < layer.inputs; k += COLUMNS) {
            for (var j = 0u; j < COLUMNS; j++) {
                tile[j] = vec4<f32>(0.0);
            }
            // Two outputs a turn; past the outputs the weights are 0.
            @if(long) for (var c = 0u; c < layer.outputs; c += 2u) {
                let w = w0 + c * layer.transposed_stride + k / 4u;
                turn(above + c * TILE, w, lane);
                turn(above + min(c + 1u, layer.outputs - 1u) * TILE, w + layer.transposed_stride, lane);
            }
            @if(!long) for (var c = 0u; c < layer.outputs; c++) {
                turn(above + c * TILE, w0 + c * layer.transposed_stride + k / 4u, lane);
            }
            for (var j = 0u; j < COLUMNS; j++) {
                if (k + j < layer.inputs) {
                    let dn = tile[j];
                    let normed = (of_quad(acts[input + (k + j) * TILE]) - mean) * scale;
                    sum += dn;
                    sum_normed += dn * normed;
                    if (exists) {
                        if (layer.norm == 1u) {
                            grads[below + (k + j) * TILE] = to_quad(dn);
                        } else {
                            let made_from = of_quad(acts[product + (k + j) * TILE]);
                            grads[below + (k + j) * TILE] = to_quad(dn * slope(made_from));
                        }
                    }
                }
            }
        }
        if (layer.norm == 1u) {
            let average = sum / f32(layer.inputs);
            let average_normed = sum_normed / f32(layer.inputs);
            for (var k = 0u; k < layer.inputs; k++) {
                let dn = of_quad(grads[below + k * TILE]);
                let a = of_quad(acts[input + k * TILE]);
                @if(relu || tanh) let made_from = a;
                @if(gelu || silu) let made_from = of_quad(acts[product + k * TILE]);
                let dz = scale * (dn - average - (a - mean) * scale * average_normed) * slope(made_from);
                if (exists) {
                    grads[below + k * TILE] = to_quad(dz);
                }
            }
        }
    }
}
