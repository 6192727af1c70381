// A tile of a matrix product with cooperative matrices: the rows of a block times four matrices of columns. The left factor is staged
// in workgroup memory in f16, DEPTH inputs at a time; a subgroup multiplies two matrices of rows. The f32 sums are copied out through
// workgroup memory, one matrix of columns at a time.

import package::constants::{TILE, SIZE};
import package::lib::quad::to_quad;

@if(matrix16) alias Left = coop_mat16x16<f16, A>;
@if(matrix16) alias Right = coop_mat16x16<f16, B>;
@if(matrix16) alias Sum = coop_mat16x16<f32, C>;
@if(matrix8) alias Left = coop_mat8x8<f16, A>;
@if(matrix8) alias Right = coop_mat8x8<f16, B>;
@if(matrix8) alias Sum = coop_mat8x8<f32, C>;

const ROWS: u32 = 4u * TILE;
const DEPTH: u32 = 32u;
const WIDTH: u32 = 4u * SIZE;
// Elements from one input or column to the next; the padding of 8 avoids bank conflicts.
const PITCH: u32 = ROWS + 8u;

@group(0) @binding(2) var<storage, read> weights: array<f16>;

var<workgroup> staged: array<f16, DEPTH * PITCH>;
var<workgroup> drained: array<f32, SIZE * PITCH>;

var<private> s00: Sum;
var<private> s01: Sum;
var<private> s02: Sum;
var<private> s03: Sum;
var<private> s10: Sum;
var<private> s11: Sum;
var<private> s12: Sum;
var<private> s13: Sum;

// Four weights from vec4 `i` on.
fn four_weights(i: u32) -> vec4<f32> {
    let k = 4u * i;
    return vec4<f32>(f32(weights[k]), f32(weights[k + 1u]), f32(weights[k + 2u]), f32(weights[k + 3u]));
}

fn clear() {
    s00 = Sum();
    s01 = Sum();
    s02 = Sum();
    s03 = Sum();
    s10 = Sum();
    s11 = Sum();
    s12 = Sum();
    s13 = Sum();
}

// Stages input k, below DEPTH, of quad q of the block.
fn stage(q: u32, k: u32, value: vec4<f32>) {
    let at = k * PITCH + 4u * q;
    let rounded = to_quad(value);
    staged[at] = rounded.x;
    staged[at + 1u] = rounded.y;
    staged[at + 2u] = rounded.z;
    staged[at + 3u] = rounded.w;
}

// Adds `inputs` staged inputs times the weights from element `w` on, `stride` elements from input to input, for the first `columns`
// columns. Both factors are padded with zeros to whole matrices.
fn multiply(subgroup: u32, w: u32, stride: u32, inputs: u32, columns: u32) {
    let row = subgroup * 2u * SIZE;
    for (var k = 0u; k < inputs; k += SIZE) {
        let a0 = coopLoad<Left>(&staged[k * PITCH + row], PITCH);
        let a1 = coopLoad<Left>(&staged[k * PITCH + row + SIZE], PITCH);
        let at = w + k * stride;
        let b0 = coopLoadT<Right>(&weights[at], stride);
        s00 = coopMultiplyAdd(a0, b0, s00);
        s10 = coopMultiplyAdd(a1, b0, s10);
        if (columns > SIZE) {
            let b1 = coopLoadT<Right>(&weights[at + SIZE], stride);
            s01 = coopMultiplyAdd(a0, b1, s01);
            s11 = coopMultiplyAdd(a1, b1, s11);
        }
        if (columns > 2u * SIZE) {
            let b2 = coopLoadT<Right>(&weights[at + 2u * SIZE], stride);
            s02 = coopMultiplyAdd(a0, b2, s02);
            s12 = coopMultiplyAdd(a1, b2, s12);
        }
        if (columns > 3u * SIZE) {
            let b3 = coopLoadT<Right>(&weights[at + 3u * SIZE], stride);
            s03 = coopMultiplyAdd(a0, b3, s03);
            s13 = coopMultiplyAdd(a1, b3, s13);
        }
    }
}

// Copies matrix j of the columns to workgroup memory, for all invocations.
fn drain(subgroup: u32, j: u32) {
    let row = subgroup * 2u * SIZE;
    if (j == 0u) {
        coopStore(s00, &drained[row], PITCH);
        coopStore(s10, &drained[row + SIZE], PITCH);
    } else if (j == 1u) {
        coopStore(s01, &drained[row], PITCH);
        coopStore(s11, &drained[row + SIZE], PITCH);
    } else if (j == 2u) {
        coopStore(s02, &drained[row], PITCH);
        coopStore(s12, &drained[row + SIZE], PITCH);
    } else {
        coopStore(s03, &drained[row], PITCH);
        coopStore(s13, &drained[row + SIZE], PITCH);
    }
}

// Quad q of a column of the matrix that was drained last.
fn sum_of(q: u32, column: u32) -> vec4<f32> {
    let at = column * PITCH + 4u * q;
    return vec4<f32>(drained[at], drained[at + 1u], drained[at + 2u], drained[at + 3u]);
}
