// Adds the partial sums of the gradients in a fixed order and turns them into the gradients of the parameters. With N[k][c] the sum over
// the rows of normalised input k times gradient c, and d[c] the sum of the gradient alone, the matrix W with gain g and offset o before
// it has dW[k][c] = g[k] N[k][c] + o[k] d[c], dg[k] = sum over c of W[k][c] N[k][c] and do[k] = sum over c of W[k][c] d[c]. Some rows of
// one matrix a workgroup: COLUMNS columns by ROWS rows at a time, and SHARES invocations each, which divide the partial sums.

import package::constants::{COLUMNS, GROUPS, ROWS, WG};
import package::row_tile::{MOST_ROWS, NONE};

struct Reduce {
    // vec4s of the parameters.
    length: u32,
    partial_sums: u32,
    tiles: u32,
    // Place of the first tile's sum of squares.
    squares: u32,
}

// Rows of a matrix, or of a bias.
struct RowTile {
    // First vec4, vec4s from one row to the next, vec4s of a row that are summed, and rows.
    first: u32,
    stride: u32,
    columns: u32,
    rows: u32,
    // Columns with trained weights; those after them consist of their bias alone.
    learnt: u32,
    // The first four rows' gains and offsets of the LayerNorm before the matrix; NONE without one.
    gain: u32,
    offset: u32,
    // First vec4 of the layer's bias, and its rows.
    bias: u32,
    biases: u32,
}

@group(0) @binding(0) var<uniform> p: Reduce;
@group(0) @binding(1) var<storage, read> tiles: array<RowTile>;
@group(0) @binding(2) var<storage, read> params: array<vec4<f32>>;
// `[partial sum][parameter]`.
@group(0) @binding(3) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> gradient: array<vec4<f32>>;
// Sums of the squares of every tile's gradients, for their norm.
@group(0) @binding(5) var<storage, read_write> step: array<f32>;

const CELLS: u32 = COLUMNS * ROWS;
const SHARES: u32 = WG / CELLS;
// Invocations of a column, which divide the partial sums of the bias.
const PARTS: u32 = WG / COLUMNS;

var<workgroup> sums: array<vec4<f32>, WG>;
// d of the columns.
var<workgroup> alone: array<vec4<f32>, COLUMNS>;
// A column's parts of a row's dg and do.
var<workgroup> dots: array<vec2<f32>, CELLS>;
var<workgroup> by_norm: array<vec2<f32>, MOST_ROWS>;

// Every `stride`-th partial sum of a vec4 of the parameters from number `first` on. The loads of an iteration wait for memory together.
fn sum_of(at: u32, first: u32, stride: u32) -> vec4<f32> {
    let apart = stride * p.length;
    var sum = vec4<f32>(0.0);
    var number = first;
    for (; number + 7u * stride < p.partial_sums; number += 8u * stride) {
        let i = at + number * p.length;
        let a = partials[i];
        let b = partials[i + apart];
        let c = partials[i + 2u * apart];
        let d = partials[i + 3u * apart];
        let e = partials[i + 4u * apart];
        let f = partials[i + 5u * apart];
        let g = partials[i + 6u * apart];
        let h = partials[i + 7u * apart];
        sum += ((a + b) + (c + d)) + ((e + f) + (g + h));
    }
    for (; number < p.partial_sums; number += stride) {
        sum += partials[at + number * p.length];
    }
    return sum;
}

// Sets d of the columns from `first` on, over all rows of the bias. Begins and ends with a barrier.
fn sum_bias(tile: RowTile, first: u32, local: u32) {
    let at = tile.bias + min(first + local % COLUMNS, tile.columns - 1u);
    var mine = vec4<f32>(0.0);
    for (var row = 0u; row < tile.biases; row++) {
        mine += sum_of(at + row * tile.stride, local / COLUMNS, PARTS);
    }
    workgroupBarrier();
    sums[local] = mine;
    workgroupBarrier();
    if (local < COLUMNS) {
        var sum = vec4<f32>(0.0);
        for (var part = 0u; part < PARTS; part++) {
            sum += sums[part * COLUMNS + local];
        }
        alone[local] = sum;
    }
    workgroupBarrier();
}

// One vec4 of a row: stores its gradient, returns the sum of its squares, and leaves its part of dg and do.
fn finish(tile: RowTile, k: u32, column: u32, n: vec4<f32>, cell: u32) -> f32 {
    let at = tile.first + k * tile.stride + column;
    var g = n;
    if (tile.gain != NONE) {
        let d = alone[cell % COLUMNS];
        let w = params[at];
        dots[cell] = vec2<f32>(dot(w, n), dot(w, d));
        g = n * params[tile.gain + k / 4u][k % 4u] + d * params[tile.offset + k / 4u][k % 4u];
    }
    let columns = vec4<u32>(4u * column) + vec4<u32>(0u, 1u, 2u, 3u);
    g = select(vec4<f32>(0.0), g, columns < vec4<u32>(tile.learnt));
    gradient[at] = g;
    return dot(g, g);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let number = group.y * GROUPS + group.x;
    if (number >= p.tiles) {
        return;
    }
    let tile = tiles[number];
    let cell = local % CELLS;
    let row = cell / COLUMNS;
    var squares = 0.0;
    for (var first = 0u; first < tile.columns; first += COLUMNS) {
        let column = first + local % COLUMNS;
        if (tile.gain != NONE) {
            sum_bias(tile, first, local);
        }
        for (var start = 0u; start < tile.rows; start += ROWS) {
            let k = start + row;
            let exists = k < tile.rows && column < tile.columns;
            let at = tile.first + min(k, tile.rows - 1u) * tile.stride + min(column, tile.columns - 1u);
            sums[local] = sum_of(at, local / CELLS, SHARES);
            workgroupBarrier();
            if (local < CELLS) {
                var n = sums[local];
                for (var share = 1u; share < SHARES; share++) {
                    n += sums[share * CELLS + local];
                }
                dots[local] = vec2<f32>(0.0);
                if (exists) {
                    squares += finish(tile, k, column, n, local);
                }
            }
            workgroupBarrier();
            if (local < ROWS) {
                var sum = vec2<f32>(0.0);
                for (var i = 0u; i < COLUMNS; i++) {
                    sum += dots[local * COLUMNS + i];
                }
                by_norm[start + local] = sum + select(by_norm[start + local], vec2<f32>(0.0), first == 0u);
            }
        }
    }
    workgroupBarrier();
    for (var four = local; tile.gain != NONE && 4u * four < tile.rows; four += WG) {
        let k = 4u * four;
        let exists = vec4<u32>(k) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(tile.rows);
        let a = by_norm[k];
        let b = by_norm[k + 1u];
        let c = by_norm[k + 2u];
        let d = by_norm[k + 3u];
        let by_gain = select(vec4<f32>(0.0), vec4<f32>(a.x, b.x, c.x, d.x), exists);
        let by_offset = select(vec4<f32>(0.0), vec4<f32>(a.y, b.y, c.y, d.y), exists);
        gradient[tile.gain + four] = by_gain;
        gradient[tile.offset + four] = by_offset;
        squares += dot(by_gain, by_gain) + dot(by_offset, by_offset);
    }
    sums[local] = vec4<f32>(squares);
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            sums[local] += sums[local + half];
        }
        workgroupBarrier();
    }
    if (local == 0u) {
        step[p.squares + number] = sums[0].x;
    }
}
