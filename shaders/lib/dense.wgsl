// Dense layers of nn/forward: matrix product, bias and activation for four rows, with the statistics of the result for the next
// LayerNorm.

import package::constants::{WG, TILE, COLUMNS};
import package::lib::activation::activate;
import package::lib::forward::{acts, Inputs, input, clamped_input};
import package::lib::slots::batch;
import package::lib::layer_norm::{Stats, no_stats, stats_of_one, join, PARTS};
import package::lib::network::Layer;
@if(recurrent) import package::network::{GATES_OF_INPUT, GATES_OF_STATE};
import package::lib::product::{tile, narrow, add, add_narrow, add_spread};
import package::lib::quad::{to_quad, of_quad};
@if(!cooperative) import package::lib::weights::weight;
@if(cooperative) import package::lib::cooperative::{weights, clear, stage, multiply, drain, sum_of, DEPTH, WIDTH};
@if(cooperative) import package::constants::SIZE;

@group(0) @binding(5) var<storage, read_write> head: array<vec4<f32>>;

// Destination of a dense layer.
struct Target {
    // Index of column 0 in the head buffer or in the activations, and of its value before the activation function.
    index: u32,
    product: u32,
    is_head: bool,
    exists: bool,
    @if(recurrent) kind: u32,
    // Number of columns that are added to the row's present values.
    @if(recurrent) added: u32,
}

// Stores one column and returns it as it was stored.
fn put(to: Target, column: u32, value: vec4<f32>) -> vec4<f32> {
    if (to.is_head) {
        if (to.exists) {
            head[to.index + column * batch.stride] = value;
        }
        return value;
    }
    @if(recurrent) if (to.kind == GATES_OF_INPUT || to.kind == GATES_OF_STATE) {
        if (to.exists) {
            let at = to.index + column * TILE;
            acts[at] = to_quad(value + select(vec4<f32>(0.0), of_quad(acts[at]), column < to.added));
        }
        return value;
    }
    let q = to_quad(activate(value));
    if (to.exists) {
        // Read by the backward pass only. Beyond these bounds the derivative is 0 or 1, which infinity would turn into NaN.
        @if(gelu || silu) if (batch.forward.keep == 1u) {
            acts[to.product + column * TILE] = to_quad(clamp(value, vec4<f32>(-6e4), vec4<f32>(6e4)));
        }
        acts[to.index + column * TILE] = q;
    }
    return of_quad(q);
}

// Adds x times the weights of one input.
@if(!subgroup_broadcast && !cooperative)
fn accumulate_input(x: vec4<f32>, w: u32) {
    for (var j = 0u; j < COLUMNS / 4u; j++) {
        add(j, x, weight(w + j));
    }
}

// Accumulates all inputs of one tile of columns, one or two an iteration; weights past the inputs are 0.
@if(!cooperative)
fn accumulate(inputs: Inputs, count: u32, mean: vec4<f32>, scale: vec4<f32>, w0: u32, stride: u32, lane: u32) {
    @if(subgroup_broadcast) for (var k = 0u; k < count; k += 2u) {
        let w = w0 + k * stride + lane;
        let x = (input(inputs, k) - mean) * scale;
        let y = (clamped_input(inputs, k + 1u) - mean) * scale;
        add_spread(x, weight(w), y, weight(w + stride));
    }
    @if(!subgroup_broadcast && unrolled) for (var k = 0u; k < count; k += 2u) {
        let w = w0 + k * stride;
        accumulate_input((input(inputs, k) - mean) * scale, w);
        accumulate_input((clamped_input(inputs, k + 1u) - mean) * scale, w + stride);
    }
    @if(!subgroup_broadcast && !unrolled) for (var k = 0u; k < count; k++) {
        accumulate_input((input(inputs, k) - mean) * scale, w0 + k * stride);
    }
}

fn accumulate_narrow(inputs: Inputs, k: u32, mean: vec4<f32>, scale: vec4<f32>, w: vec4<f32>) {
    // Weights past the inputs are 0.
    add_narrow((clamped_input(inputs, k) - mean) * scale, w);
}

// `dense` for a whole block of rows. `first` is the network of the block, `bias` belongs to the invocation's own row.
@if(cooperative)
fn dense_block(inputs: Inputs, layer: Layer, first: u32, bias: u32, mean: vec4<f32>, scale: vec4<f32>, to: Target, local: u32, subgroup: u32) -> Stats {
    let q = local % TILE;
    let part = local / TILE;
    var all = no_stats();
    for (var c = 0u; c < layer.outputs; c += WIDTH) {
        clear();
        for (var k = 0u; k < layer.inputs; k += DEPTH) {
            for (var i = part; i < DEPTH; i += PARTS) {
                let exists = k + i < layer.inputs;
                stage(q, i, select(vec4<f32>(0.0), (clamped_input(inputs, k + i) - mean) * scale, exists));
            }
            workgroupBarrier();
            let w = 4u * (first + layer.weights + k * layer.stride) + c;
            multiply(subgroup, w, 4u * layer.stride, min(DEPTH, layer.inputs - k), layer.outputs - c);
            workgroupBarrier();
        }
        for (var j = 0u; j < 4u; j++) {
            let start = c + j * SIZE;
            if (start < layer.outputs) {
                drain(subgroup, j);
                workgroupBarrier();
                for (var i = part; i < min(SIZE, layer.outputs - start); i += PARTS) {
                    let column = start + i;
                    let value = sum_of(q, i) + f32(weights[4u * bias + column]);
                    all = join(all, stats_of_one(put(to, column, value)));
                }
                workgroupBarrier();
            }
        }
    }
    return all;
}

// Product, bias, activation and stores of one layer. Returns the statistics of the result.
@if(!cooperative)
fn dense(inputs: Inputs, layer: Layer, net: u32, bias: u32, mean: vec4<f32>, scale: vec4<f32>, to: Target, lane: u32) -> Stats {
    var all = no_stats();
    let w0 = net + layer.weights;
    var c = 0u;
    while (c < layer.outputs) {
        let left = layer.outputs - c;
        if (left > 4u) {
            for (var j = 0u; j < COLUMNS; j += 4u) {
                let b = weight(bias + (c + j) / 4u);
                tile[j] = vec4<f32>(b.x);
                tile[j + 1u] = vec4<f32>(b.y);
                tile[j + 2u] = vec4<f32>(b.z);
                tile[j + 3u] = vec4<f32>(b.w);
            }
            accumulate(inputs, layer.inputs, mean, scale, w0 + c / 4u, layer.stride, lane);
            var sum = vec4<f32>(0.0);
            for (var j = 0u; j < COLUMNS; j++) {
                if (j < left) {
                    tile[j] = put(to, c + j, tile[j]);
                    sum += tile[j];
                }
            }
            let count = f32(min(COLUMNS, left));
            let average = sum / count;
            var squares = vec4<f32>(0.0);
            for (var j = 0u; j < COLUMNS; j++) {
                let d = tile[j] - average;
                squares += select(vec4<f32>(0.0), d * d, j < left);
            }
            all = join(all, Stats(count, average, squares));
            c += COLUMNS;
        } else {
            let b = weight(bias + c / 4u);
            narrow[0] = vec4<f32>(b.x);
            narrow[1] = vec4<f32>(b.y);
            narrow[2] = vec4<f32>(b.z);
            narrow[3] = vec4<f32>(b.w);
            let w1 = w0 + c / 4u;
            @if(subgroup_broadcast) for (var k = 0u; k < layer.inputs; k += 8u) {
                let w = weight(w1 + (k + lane) * layer.stride);
                accumulate_narrow(inputs, k, mean, scale, subgroupBroadcast(w, 0u));
                accumulate_narrow(inputs, k + 1u, mean, scale, subgroupBroadcast(w, 1u));
                accumulate_narrow(inputs, k + 2u, mean, scale, subgroupBroadcast(w, 2u));
                accumulate_narrow(inputs, k + 3u, mean, scale, subgroupBroadcast(w, 3u));
                accumulate_narrow(inputs, k + 4u, mean, scale, subgroupBroadcast(w, 4u));
                accumulate_narrow(inputs, k + 5u, mean, scale, subgroupBroadcast(w, 5u));
                accumulate_narrow(inputs, k + 6u, mean, scale, subgroupBroadcast(w, 6u));
                accumulate_narrow(inputs, k + 7u, mean, scale, subgroupBroadcast(w, 7u));
            }
            @if(!subgroup_broadcast) for (var k = 0u; k < layer.inputs; k++) {
                accumulate_narrow(inputs, k, mean, scale, weight(w1 + k * layer.stride));
            }
            var sum = vec4<f32>(0.0);
            for (var j = 0u; j < 4u; j++) {
                if (j < left) {
                    narrow[j] = put(to, c + j, narrow[j]);
                    sum += narrow[j];
                }
            }
            let count = f32(left);
            let average = sum / count;
            var squares = vec4<f32>(0.0);
            for (var j = 0u; j < 4u; j++) {
                let d = narrow[j] - average;
                squares += select(vec4<f32>(0.0), d * d, j < left);
            }
            all = join(all, Stats(count, average, squares));
            c += 4u;
        }
    }
    return all;
}
