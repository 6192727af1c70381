// Shared parts of the kernels that compute gradients of weights: bindings, tiles, loads and stores.
//
// Each kernel computes the gradients of all matrices and biases of all networks as if there were no gains and offsets: sums over
// the rows of normalised input times gradient. A workgroup owns one square tile of one tensor and one split of the rows (split-K),
// which it adds up in a fixed order, so that every run gives the same bits.

import package::constants::TILE;
import package::lib::network::place;
import package::network::{ALL, STATE};
import package::lib::quad::{Quad, of_quad};
import package::lib::slots::{batch, slot_of};
import package::weight_tile::{OBSERVED, NONE};

struct Tile {
    // OBSERVED: the left factor is the stack's input; BIAS: a bias alone; else activations.
    kind: u32,
    // First row of the left factor: of the activation buffer, or feature of the stack's input.
    left: u32,
    // First row of the gradient buffer.
    right: u32,
    // Row of the LayerNorm's mean, NONE without LayerNorm.
    layer_norm_stats: u32,
    // First vec4 of the result in the parameter buffer; vec4s from one input's row to the next.
    output: u32,
    stride: u32,
    // Inputs and outputs of the tile that exist.
    inputs: u32,
    outputs: u32,
    // Agents whose rows are summed.
    first_agent: u32,
    agents: u32,
    // The stack's input, as in its `NetworkStack`.
    input_kind: u32,
    // First vec4 of the sums of the gradients alone, NONE if another tile stores them.
    bias: u32,
}

struct Split {
    // Number of splits, and vec4s from one split's parameters to the next.
    count: u32,
    stride: u32,
    tiles: u32,
    pad: u32,
}

@group(0) @binding(1) var<uniform> split: Split;
@group(0) @binding(2) var<storage, read> tiles: array<Tile>;
@group(0) @binding(3) var<storage, read> observations: array<Quad>;
@group(0) @binding(4) var<storage, read> acts: array<Quad>;
@group(0) @binding(5) var<storage, read> layer_norm_stats: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> grads: array<Quad>;
@group(0) @binding(8) var<storage, read_write> partials: array<vec4<f32>>;

// Quads of rows that a tile sums, `start` to `end` of them in one split.
struct Range {
    start: u32,
    end: u32,
}

fn range_of(tile: Tile, number: u32) -> Range {
    let total = batch.rows / batch.agents * tile.agents;
    let length = (total + split.count - 1u) / split.count;
    return Range(number * length, min(total, (number + 1u) * length));
}

// One quad of rows: index of its first input and of its first gradient, mean and 1 / deviation of its LayerNorm.
struct Row {
    left: u32,
    right: u32,
    mean: vec4<f32>,
    scale: vec4<f32>,
}

// Quad number i of those that the tile sums.
fn locate(tile: Tile, i: u32) -> Row {
    let per_slot = batch.agents * batch.quads;
    let summed_per_slot = tile.agents * batch.quads;
    let slot = i / summed_per_slot;
    let row = slot * per_slot + tile.first_agent * batch.quads + i % summed_per_slot;
    var at: Row;
    at.right = place(row, batch.grads) + tile.right * TILE;
    at.left = place(row, batch.acts) + tile.left * TILE;
    if (tile.kind == OBSERVED) {
        let agent = (row % per_slot) / batch.quads;
        let number = slot_of(row);
        let observed = (number * batch.agents + select(agent, 0u, tile.input_kind == ALL)) * batch.obs_dim * batch.quads;
        let state = batch.first_state + number * batch.state_dim * batch.quads;
        at.left = select(observed, state, tile.input_kind == STATE) + tile.left * batch.quads + row % batch.quads;
    }
    at.mean = vec4<f32>(0.0);
    at.scale = vec4<f32>(1.0);
    if (tile.layer_norm_stats != NONE) {
        at.mean = layer_norm_stats[tile.layer_norm_stats * batch.stride + row];
        at.scale = layer_norm_stats[(tile.layer_norm_stats + 1u) * batch.stride + row];
    }
    return at;
}

fn input(tile: Tile, at: Row, feature: u32) -> vec4<f32> {
    let k = min(feature, tile.inputs - 1u);
    if (tile.kind == OBSERVED) {
        return (of_quad(observations[at.left + k * batch.quads]) - at.mean) * at.scale;
    }
    return (of_quad(acts[at.left + k * TILE]) - at.mean) * at.scale;
}

fn gradient(tile: Tile, at: Row, output: u32) -> vec4<f32> {
    return of_quad(grads[at.right + min(output, tile.outputs - 1u) * TILE]);
}

// The first micro-batch of a minibatch overwrites a partial sum, the others add to it.
fn accumulate(at: u32, sum: vec4<f32>) {
    if (batch.starts_sum == 1u) {
        partials[at] = sum;
    } else {
        partials[at] += sum;
    }
}

// Adds columns `first` to `first + 3` of row `i` of the tile, for split `number`.
fn store(tile: Tile, number: u32, i: u32, first: u32, sum: vec4<f32>) {
    if (i < tile.inputs && first < tile.outputs) {
        // select, not a product: values past the outputs are arbitrary and may be NaN.
        let exists = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(tile.outputs);
        accumulate(number * split.stride + tile.output + i * tile.stride + first / 4u, select(vec4<f32>(0.0), sum, exists));
    }
}

// Adds the sums of the gradients alone.
fn store_bias(tile: Tile, number: u32, first: u32, sum: vec4<f32>) {
    if (tile.bias != NONE && first < tile.outputs) {
        let exists = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(tile.outputs);
        accumulate(number * split.stride + tile.bias + first / 4u, select(vec4<f32>(0.0), sum, exists));
    }
}
