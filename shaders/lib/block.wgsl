// A block of rows in workgroup memory, and its product with a matrix of weights. The features of QUADS quads of rows lie one after the
// other; weights are staged DEPTH inputs at a time and read by all. An invocation multiplies two quads of rows by four columns: a
// staged weight serves eight rows, a value four columns, and a load from global memory all rows of the block.

import package::constants::{WG, QUADS, WIDTH};
import package::lib::weights::weight;

const DEPTH: u32 = 16u;
// Groups of four columns.
const GROUPS: u32 = WIDTH / 4u;
// Weights that an invocation stages.
const SHARE: u32 = DEPTH * GROUPS / WG;
// Invocations that share a quad where every invocation takes a part of its features.
const PARTS: u32 = WG / QUADS;

// `[feature][quad]`, see `value_at`. Products read features four at a time: those past the last one must be 0.
var<workgroup> values: array<vec4<f32>, WIDTH * QUADS>;
var<workgroup> staged: array<vec4<f32>, DEPTH * GROUPS>;

// Sums of the invocation's own rows and columns: four columns of the first quad, then of the second.
var<private> sums: array<vec4<f32>, 8>;

// First vec4 of a matrix's row for input 0, vec4s from a row to the next, vec4s of a row that exist, and number of rows.
struct Matrix {
    first: u32,
    stride: u32,
    columns: u32,
    inputs: u32,
}

// The invocation's group of four columns, and the first of its two quads.
fn column_group(local: u32) -> u32 {
    return local % GROUPS;
}

fn first_quad(local: u32) -> u32 {
    return local / GROUPS * 2u;
}

// Index of a quad's feature in the values. Quads trade places from one group of four features to the next, or the invocations of all
// column groups would write to the same memory bank.
fn value_at(feature: u32, quad: u32) -> u32 {
    return feature * QUADS + (quad ^ (feature / 4u % QUADS));
}

fn multiply_one(feature: u32, k: u32, local: u32) {
    let w = staged[k * GROUPS + column_group(local)];
    let a = values[value_at(feature, first_quad(local))];
    let b = values[value_at(feature, first_quad(local) + 1u)];
    sums[0] += a * w.x;
    sums[1] += a * w.y;
    sums[2] += a * w.z;
    sums[3] += a * w.w;
    sums[4] += b * w.x;
    sums[5] += b * w.y;
    sums[6] += b * w.z;
    sums[7] += b * w.w;
}

// The `i`-th weight that the invocation stages from input `k` on. Rows of a matrix are padded to a multiple of DEPTH.
fn weight_to_stage(matrix: Matrix, k: u32, i: u32, local: u32) -> vec4<f32> {
    let place = i * WG + local;
    // A column past the matrix repeats the last one and is not stored.
    let column = min(place % GROUPS, matrix.columns - 1u);
    return weight(matrix.first + (k + place / GROUPS) * matrix.stride + column);
}

// Adds the product of the values with a matrix to the sums. The weights of the next inputs are on their way while those of the last
// ones are multiplied. Begins with a barrier.
fn multiply(matrix: Matrix, local: u32) {
    var ahead: array<vec4<f32>, SHARE>;
    for (var i = 0u; i < SHARE; i++) {
        ahead[i] = weight_to_stage(matrix, 0u, i, local);
    }
    for (var k0 = 0u; k0 < matrix.inputs; k0 += DEPTH) {
        workgroupBarrier();
        for (var i = 0u; i < SHARE; i++) {
            staged[i * WG + local] = ahead[i];
        }
        workgroupBarrier();
        let next = select(0u, k0 + DEPTH, k0 + DEPTH < matrix.inputs);
        for (var i = 0u; i < SHARE; i++) {
            ahead[i] = weight_to_stage(matrix, next, i, local);
        }
        let count = min(DEPTH, matrix.inputs - k0);
        for (var k = 0u; k < count; k += 4u) {
            multiply_one(k0 + k, k, local);
            multiply_one(k0 + k + 1u, k + 1u, local);
            multiply_one(k0 + k + 2u, k + 2u, local);
            multiply_one(k0 + k + 3u, k + 3u, local);
        }
    }
}

// The sum of all invocations' parts of a quad. Begins with a barrier; uses the memory of the staged weights.
fn sum_of_parts(mine: vec4<f32>, local: u32) -> vec4<f32> {
    workgroupBarrier();
    staged[local] = mine;
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var p = 0u; p < PARTS; p++) {
        sum += staged[p * QUADS + local % QUADS];
    }
    return sum;
}
