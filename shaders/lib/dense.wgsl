// Dense layers of nn/tile/forward: matrix product, bias and activation for four rows, with the statistics of the result for the next
// LayerNorm.

import package::constants::COLUMNS;
import package::lib::forward::{Inputs, input, clamped_input};
import package::lib::layer_norm::{Stats, no_stats, join};
import package::lib::network::Layer;
import package::lib::product::{tile, narrow, add, add_narrow, add_spread};
import package::lib::target::{Target, put};
import package::lib::weights::weight;

// Adds x times the weights of one input.
@if(!subgroup_broadcast)
fn accumulate_input(x: vec4<f32>, w: u32) {
    for (var j = 0u; j < COLUMNS / 4u; j++) {
        add(j, x, weight(w + j));
    }
}

// Accumulates all inputs of one tile of columns, one or two an iteration; weights past the inputs are 0.
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

// Product, bias, activation and stores of one layer. Returns the statistics of the result.
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
