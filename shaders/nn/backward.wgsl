// Gradients with respect to the matrix products of a stack, for four rows an invocation, from the head down to the first
// layer. The grid is that of nn/forward. What the LayerNorms' gains and offsets need follows later from the weights'
// gradient (nn/unfold).

import package::constants::{WG, TILE, COLUMNS, TEXTURE_ROW};
import package::lib::network::{Batch, Role, Layer, MAX_LAYERS, place};
import package::lib::quad::{Quad, to_quad, of_quad};
import package::lib::activation::slope;
import package::lib::product::{tile, add, add_spread};
@if(cooperative) import package::lib::cooperative::{weights, clear, stage, multiply, drain, sum_of, DEPTH, WIDTH};
@if(cooperative) import package::constants::{SIZE, SUBGROUP};

@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<uniform> roles: array<Role, 2>;
@if(texture) @group(0) @binding(2) var weights: texture_2d<f32>;
@if(!texture && !cooperative) @group(0) @binding(2) var<storage, read> weights: array<Quad>;
@group(0) @binding(3) var<storage, read> acts: array<Quad>;
@group(0) @binding(4) var<storage, read> moments: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> grads: array<Quad>;

@if(texture)
fn weight(i: u32) -> vec4<f32> {
    return textureLoad(weights, vec2<u32>(i % TEXTURE_ROW, i / TEXTURE_ROW), 0);
}

@if(!texture && !cooperative)
fn weight(i: u32) -> vec4<f32> {
    return of_quad(weights[i]);
}

// The two sums over a row that LayerNorm's derivative takes: of the gradient of the normalised input, and of it times the
// normalised input.
struct Sums {
    plain: vec4<f32>,
    normed: vec4<f32>,
}

// What becomes of the gradient of one normalised input.
struct Below {
    grads: u32,
    input: u32,
    product: u32,
    norm: bool,
    exists: bool,
    mean: vec4<f32>,
    scale: vec4<f32>,
}

fn take(below: Below, k: u32, dn: vec4<f32>, sums: Sums) -> Sums {
    let normed = (of_quad(acts[below.input + k * TILE]) - below.mean) * below.scale;
    if (below.exists) {
        if (below.norm) {
            grads[below.grads + k * TILE] = to_quad(dn);
        } else {
            let made_from = of_quad(acts[below.product + k * TILE]);
            grads[below.grads + k * TILE] = to_quad(dn * slope(made_from));
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

// The gradients of all inputs of a layer, for a whole block. PARTS invocations share a quad of rows.
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

@if(!cooperative)
fn turn(at: u32, w: u32, lane: u32) {
    let dz = of_quad(grads[at]);
    @if(spread) add_spread(dz, weight(w + lane));
    @if(!spread) for (var j = 0u; j < COLUMNS / 4u; j++) {
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
                sums = take(below, k + j, tile[j], sums);
            }
        }
    }
    return sums;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @if(spread) @builtin(subgroup_invocation_id) lane: u32,
) {
    @if(!spread) let lane = 0u;
    @if(cooperative) let subgroup = local / SUBGROUP;
    @if(cooperative) let index = group.x * TILE + local % TILE;
    @if(!cooperative) let index = group.x * WG + local;
    @if(!spread && !cooperative) if (index >= batch.rows) {
        return;
    }
    // A subgroup works together: rows past the end take what they find in the last one, and store nothing.
    let row = min(index, batch.rows - 1u);
    let exists = index < batch.rows;
    let role = batch.first_role + group.y;
    let per_slot = batch.agents * batch.quads;
    // Networks of one per agent come in whole blocks.
    @if(cooperative) let agent = (group.x * TILE % per_slot) / batch.quads;
    @if(!cooperative) let agent = (row % per_slot) / batch.quads;
    let net = roles[role].working + agent * roles[role].working_stride;
    let acts0 = place(row, batch.acts);
    let grads0 = place(row, batch.grads);
    // Which inputs are left to this invocation when LayerNorm needs them once more.
    @if(cooperative) let first = local / TILE;
    @if(!cooperative) let first = 0u;
    @if(cooperative) let step = PARTS;
    @if(!cooperative) let step = 1u;

    for (var l = roles[role].layers - 1u; l > 0u; l--) {
        let layer = roles[role].layer[l];
        let above = grads0 + layer.grad * TILE;
        var below = Below(
            grads0 + roles[role].layer[l - 1u].grad * TILE,
            acts0 + layer.input * TILE,
            acts0 + layer.product * TILE,
            layer.norm == 1u,
            exists,
            vec4<f32>(0.0),
            vec4<f32>(1.0),
        );
        if (below.norm) {
            below.mean = moments[layer.moments * batch.stride + row];
            below.scale = moments[(layer.moments + 1u) * batch.stride + row];
        }
        @if(!cooperative) let sums = product(layer, net + layer.transposed, above, below, lane);
        @if(cooperative) let sums = product_block(layer, net + layer.transposed, above, below, local, subgroup);
        // Another invocation of the quad may have brought the input that this one takes up.
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
                let dz = below.scale * (dn - average - normed * average_normed) * slope(made_from);
                if (exists) {
                    grads[below.grads + k * TILE] = to_quad(dz);
                }
            }
        }
        // The next layer reads what the other invocations of the quad wrote.
        @if(cooperative) storageBarrier();
    }
}
