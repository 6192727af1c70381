// The layers of nn/stream/forward without matrix units: lib/block multiplies WIDTH inputs by WIDTH columns at a time.

import package::constants::{QUADS, WIDTH};
import package::lib::block::{PARTS, Matrix, values, value_at, sums, multiply, sum_of_parts, column_group, first_quad};
import package::lib::forward::{Row, Inputs, input, observed_input, layer_input};
import package::lib::layer_norm::{no_stats, stats_of_one, join};
import package::lib::network::Layer;
import package::lib::slots::batch;
import package::lib::target::{target_of, put};
import package::lib::weights::weight;

struct Moments {
    mean: vec4<f32>,
    scale: vec4<f32>,
}

fn no_moments() -> Moments {
    return Moments(vec4<f32>(0.0), vec4<f32>(1.0));
}

// Mean and inverse deviation of a quad's inputs. Contains barriers.
fn moments_of(inputs: Inputs, count: u32, local: u32) -> Moments {
    var mine = no_stats();
    for (var k = local / QUADS; k < count; k += PARTS) {
        mine = join(mine, stats_of_one(input(inputs, k)));
    }
    let mean = sum_of_parts(mine.mean * mine.count, local) / f32(count);
    let apart = mine.mean - mean;
    let squares = sum_of_parts(mine.squares + apart * apart * mine.count, local);
    return Moments(mean, 1.0 / sqrt(squares / f32(count) + 1e-5));
}

// Copies `count` normalised inputs from number `start` on into the values, and 0 up to the next multiple of four. Four loads of an
// invocation come before the first use, or each would wait for the one before.
fn stage_inputs(inputs: Inputs, by: Moments, start: u32, count: u32, local: u32) {
    for (var first = local / QUADS; first < (count + 3u) / 4u * 4u; first += 4u * PARTS) {
        var loaded: array<vec4<f32>, 4>;
        if (inputs.observed) {
            for (var i = 0u; i < 4u; i++) {
                loaded[i] = observed_input(inputs, min(start + first + i * PARTS, inputs.count - 1u));
            }
        } else {
            for (var i = 0u; i < 4u; i++) {
                loaded[i] = layer_input(inputs, min(start + first + i * PARTS, inputs.count - 1u));
            }
        }
        for (var i = 0u; i < 4u; i++) {
            let k = first + i * PARTS;
            let value = (loaded[i] - by.mean) * by.scale;
            values[value_at(k, local % QUADS)] = select(vec4<f32>(0.0), value, k < count);
        }
    }
}

// Sets the sums to the biases of the columns from vec4 `column` on; `biases` are the vec4s of the two quads' biases.
fn begin_sums(column: u32, biases: vec2<u32>) {
    for (var i = 0u; i < 2u; i++) {
        let b = weight(biases[i] + column);
        sums[4u * i] = vec4<f32>(b.x);
        sums[4u * i + 1u] = vec4<f32>(b.y);
        sums[4u * i + 2u] = vec4<f32>(b.z);
        sums[4u * i + 3u] = vec4<f32>(b.w);
    }
}

// Stores the sums as the columns from `column` on.
fn end_sums(layer: Layer, rows: array<Row, 2>, is_head: bool, column: u32) {
    for (var i = 0u; i < 2u; i++) {
        let to = target_of(rows[i], layer, is_head);
        for (var j = 0u; j < 4u; j++) {
            if (column + j < layer.outputs) {
                _ = put(to, column + j, sums[4u * i + j]);
            }
        }
    }
}

// Product, bias, activation and stores of one layer.
fn dense(
    inputs: Inputs,
    by: Moments,
    layer: Layer,
    net: u32,
    agent_bias: u32,
    own: Row,
    rows: array<Row, 2>,
    is_head: bool,
    local: u32,
    subgroup: u32,
) {
    let biases = net + layer.bias + vec2<u32>(rows[0].agent, rows[1].agent) * agent_bias * layer.stride;
    for (var c = 0u; c < layer.outputs; c += WIDTH) {
        let left = layer.stride - c / 4u;
        begin_sums(c / 4u + min(column_group(local), left - 1u), biases);
        for (var start = 0u; start < layer.inputs; start += WIDTH) {
            let count = min(WIDTH, layer.inputs - start);
            // Inputs that are not too many stay for all columns.
            if (c == 0u || layer.inputs > WIDTH) {
                workgroupBarrier();
                stage_inputs(inputs, by, start, count, local);
            }
            let first = net + layer.weights + start * layer.stride + c / 4u;
            multiply(Matrix(first, layer.stride, left, count), local);
        }
        end_sums(layer, rows, is_head, c + 4u * column_group(local));
    }
    // Others may still be multiplying the values.
    workgroupBarrier();
}
