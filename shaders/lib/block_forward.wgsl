// The layers of a stack for a block of rows in workgroup memory: inputs and LayerNorms, biases, activations.

import package::constants::{TILE, QUADS, WIDTH};
import package::lib::activation::activate;
import package::lib::block::{PARTS, Matrix, values, value_at, sums, multiply, sum_of_parts, column_group, first_quad};
import package::lib::layer_norm::{no_stats, stats_of_one, join};
import package::lib::network::{Layer, NetworkStack, place};
@if(in_rollout) import package::lib::observe::observed;
import package::lib::quad::{Quad, to_quad, of_quad};
import package::lib::slots::{batch, slot_of};
import package::lib::weights::weight;
import package::network::{ALL, STATE};

// Bindings 0 and 6: lib/slots; 2: lib/weights; 5: of each kernel.
@if(!in_rollout) @group(0) @binding(1) var<uniform> stacks: array<NetworkStack, 2>;
// Kept for the gradients.
@if(!in_rollout) @group(0) @binding(3) var<storage, read_write> acts: array<Quad>;
@if(!in_rollout) @group(0) @binding(4) var<storage, read_write> layer_norm_stats: array<vec4<f32>>;
@if(!in_rollout) @group(0) @binding(7) var<storage, read> observations: array<Quad>;
@if(in_rollout) @group(0) @binding(26) var<uniform> stacks: array<NetworkStack, 2>;

@if(!in_rollout)
fn observed(i: u32) -> vec4<f32> {
    return of_quad(observations[i]);
}

// A quad of rows.
struct Row {
    // Its number in the batch; a quad past the last one repeats that one.
    row: u32,
    agent: u32,
    exists: bool,
    // The place of its activations in the buffer, if they are kept.
    kept: u32,
    keeps: bool,
}

fn row_of(index: u32, kept: u32, keeps: bool) -> Row {
    let row = min(index, batch.rows - 1u);
    return Row(row, row % (batch.agents * batch.quads) / batch.quads, index < batch.rows, kept, keeps);
}

// Index of a quad's first input in the observations.
fn first_input(at: Row, input_kind: u32) -> u32 {
    let slot = slot_of(at.row);
    let observed = slot * batch.agents + select(at.agent, 0u, input_kind == ALL);
    let state = batch.first_state + slot * batch.state_dim * batch.quads;
    return select(observed * batch.obs_dim * batch.quads, state, input_kind == STATE) + at.row % batch.quads;
}

struct Moments {
    mean: vec4<f32>,
    scale: vec4<f32>,
}

// Mean and inverse deviation of `inputs` inputs that are too many for the workgroup's memory.
fn moments_of_observations(base: u32, inputs: u32, local: u32) -> Moments {
    var mine = no_stats();
    for (var k = local / QUADS; k < inputs; k += PARTS) {
        mine = join(mine, stats_of_one(observed(base + k * batch.quads)));
    }
    let mean = sum_of_parts(mine.mean * mine.count, local) / f32(inputs);
    let apart = mine.mean - mean;
    let squares = sum_of_parts(mine.squares + apart * apart * mine.count, local);
    return Moments(mean, 1.0 / sqrt(squares / f32(inputs) + 1e-5));
}

// Normalises the first `count` features of the values in place. Begins with a barrier.
fn normalize(count: u32, local: u32) -> Moments {
    let q = local % QUADS;
    let part = local / QUADS;
    workgroupBarrier();
    // Relative to the first feature, so that a large common part costs no digits.
    let first = values[value_at(0u, q)];
    var sum = vec4<f32>(0.0);
    for (var k = part; k < count; k += PARTS) {
        sum += values[value_at(k, q)] - first;
    }
    let mean = first + sum_of_parts(sum, local) / f32(count);
    var squares = vec4<f32>(0.0);
    for (var k = part; k < count; k += PARTS) {
        let apart = values[value_at(k, q)] - mean;
        squares += apart * apart;
    }
    let scale = 1.0 / sqrt(sum_of_parts(squares, local) / f32(count) + 1e-5);
    for (var k = part; k < count; k += PARTS) {
        values[value_at(k, q)] = (values[value_at(k, q)] - mean) * scale;
    }
    return Moments(mean, scale);
}

// Copies `count` inputs from number `start` on into the values, normalised by `by`, and 0 after them.
fn stage_inputs(base: u32, start: u32, count: u32, by: Moments, local: u32) {
    let q = local % QUADS;
    for (var k = local / QUADS; k < (count + 3u) / 4u * 4u; k += PARTS) {
        let input = observed(base + (start + min(k, count - 1u)) * batch.quads);
        values[value_at(k, q)] = select(vec4<f32>(0.0), (input - by.mean) * by.scale, k < count);
    }
}

// Keeps the statistics of a LayerNorm. Nothing is kept for gradients where a kernel plays on.
@if(in_rollout)
fn keep_moments(layer: Layer, at: Row, by: Moments, local: u32) {}

@if(!in_rollout)
fn keep_moments(layer: Layer, at: Row, by: Moments, local: u32) {
    if (at.keeps && local < QUADS) {
        layer_norm_stats[layer.layer_norm_stats * batch.stride + at.kept] = by.mean;
        layer_norm_stats[(layer.layer_norm_stats + 1u) * batch.stride + at.kept] = by.scale;
    }
}

// The statistics of the LayerNorm before `layer`; without one, 0 and 1.
@if(!in_rollout)
fn kept_moments(layer: Layer, kept: u32) -> Moments {
    if (layer.norm == 0u) {
        return Moments(vec4<f32>(0.0), vec4<f32>(1.0));
    }
    let at = layer.layer_norm_stats * batch.stride + kept;
    return Moments(layer_norm_stats[at], layer_norm_stats[at + batch.stride]);
}

// Sets the sums to the biases.
fn begin_sums(layer: Layer, net: u32, biases: vec2<u32>, local: u32) {
    let column = min(column_group(local), layer.stride - 1u);
    for (var i = 0u; i < 2u; i++) {
        let b = weight(net + layer.bias + biases[i] * layer.stride + column);
        sums[4u * i] = vec4<f32>(b.x);
        sums[4u * i + 1u] = vec4<f32>(b.y);
        sums[4u * i + 2u] = vec4<f32>(b.z);
        sums[4u * i + 3u] = vec4<f32>(b.w);
    }
}

// Keeps an output of a hidden layer, and for some activations its argument.
@if(in_rollout)
fn keep_output(layer: Layer, at: Row, output: u32, value: vec4<f32>, q: Quad) {}

@if(!in_rollout)
fn keep_output(layer: Layer, at: Row, output: u32, value: vec4<f32>, q: Quad) {
    if (at.keeps && output < layer.outputs) {
        let first = place(at.kept, batch.acts);
        // Beyond these bounds the derivative is 0 or 1, which infinity would turn into NaN.
        @if(gelu || silu) acts[first + (layer.made_from + output) * TILE] = to_quad(clamp(value, vec4<f32>(-6e4), vec4<f32>(6e4)));
        acts[first + (layer.output + output) * TILE] = q;
    }
}

// Makes the sums of a hidden layer the values of the next, rounded as they are stored.
fn end_hidden(layer: Layer, rows: array<Row, 2>, local: u32) {
    // Others may still be multiplying the values.
    workgroupBarrier();
    let c = 4u * column_group(local);
    if (c >= layer.outputs) {
        return;
    }
    for (var i = 0u; i < 2u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let value = sums[4u * i + j];
            let exists = c + j < layer.outputs;
            let q = to_quad(activate(value));
            keep_output(layer, rows[i], c + j, value, q);
            values[value_at(c + j, first_quad(local) + i)] = select(vec4<f32>(0.0), of_quad(q), exists);
        }
    }
}

// All layers of a stack: leaves the head's outputs in the sums. `own` is the quad whose features the invocation loads and normalises a
// part of, `rows` are the two whose columns it computes.
fn run_layers(stack: u32, net: u32, own: Row, rows: array<Row, 2>, local: u32) {
    let biases = vec2<u32>(rows[0].agent, rows[1].agent) * stacks[stack].agent_bias;
    let base = first_input(own, stacks[stack].input_kind);
    let layers = stacks[stack].layers;
    for (var l = 0u; l < layers; l++) {
        let layer = stacks[stack].layer[l];
        // Observations that are too many for the workgroup's memory are normalised and multiplied part by part.
        let in_parts = layer.inputs > WIDTH;
        var by = Moments(vec4<f32>(0.0), vec4<f32>(1.0));
        if (in_parts && layer.norm == 1u) {
            by = moments_of_observations(base, layer.inputs, local);
            keep_moments(layer, own, by, local);
        }
        if (l > 0u) {
            end_hidden(stacks[stack].layer[l - 1u], rows, local);
        }
        begin_sums(layer, net, select(vec2<u32>(0u), biases, l == 0u), local);
        for (var start = 0u; start < layer.inputs; start += WIDTH) {
            let count = min(WIDTH, layer.inputs - start);
            if (l == 0u) {
                workgroupBarrier();
                stage_inputs(base, start, count, by, local);
            }
            if (!in_parts && layer.norm == 1u) {
                keep_moments(layer, own, normalize(count, local), local);
            }
            multiply(Matrix(net + layer.weights + start * layer.stride, layer.stride, layer.stride, count), local);
        }
    }
}
