// Gradients of the weights with subgroups of eight invocations (llvmpipe). An invocation holds four outputs of all 32 inputs of the
// tile; it loads four inputs and broadcasts them to the other seven.

import package::constants::{GROUPS, WG};
import package::lib::weight_gradient::{Tile, Row, split, tiles, range_of, locate, input, gradient, store, store_bias};
import package::weight_tile::BIAS;

// Gradients of four outputs: a row vector times this matrix sums over the four rows.
fn gradients(tile: Tile, at: Row, first: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        gradient(tile, at, first),
        gradient(tile, at, first + 1u),
        gradient(tile, at, first + 2u),
        gradient(tile, at, first + 3u),
    );
}

var<private> sums: array<vec4<f32>, 32>;

fn outer(other: u32, n0: vec4<f32>, n1: vec4<f32>, n2: vec4<f32>, n3: vec4<f32>, g: mat4x4<f32>) {
    sums[4u * other] += n0 * g;
    sums[4u * other + 1u] += n1 * g;
    sums[4u * other + 2u] += n2 * g;
    sums[4u * other + 3u] += n3 * g;
}

var<private> bias: vec4<f32>;

// Quad q of the next eight, of which each invocation located one.
fn shuffled(mine: Row, q: u32) -> Row {
    return Row(
        subgroupShuffle(mine.left, q),
        subgroupShuffle(mine.right, q),
        subgroupShuffle(mine.mean, q),
        subgroupShuffle(mine.scale, q),
    );
}

// The three `walk` functions below sum quads `start` to `end`. They are separate functions because llvmpipe executes both sides of
// a branch inside a loop.

// A bias alone.
fn walk_bias(tile: Tile, start: u32, end: u32, lane: u32) {
    for (var first = start; first < end; first += 8u) {
        let mine = locate(tile, min(first + lane, end - 1u));
        for (var q = 0u; q < min(8u, end - first); q++) {
            let right = subgroupShuffle(mine.right, q);
            let at = Row(0u, right, vec4<f32>(0.0), vec4<f32>(1.0));
            bias += vec4<f32>(1.0) * gradients(tile, at, 4u * lane);
        }
    }
}

// Heads of up to four outputs: an invocation holds all outputs of four inputs, and loads one of the gradients.
fn walk_narrow(tile: Tile, start: u32, end: u32, lane: u32) {
    for (var first = start; first < end; first += 8u) {
        let mine = locate(tile, min(first + lane, end - 1u));
        for (var q = 0u; q < min(8u, end - first); q++) {
            let at = shuffled(mine, q);
            let dz = gradient(tile, at, lane % 4u);
            let g = mat4x4<f32>(
                subgroupBroadcast(dz, 0u),
                subgroupBroadcast(dz, 1u),
                subgroupBroadcast(dz, 2u),
                subgroupBroadcast(dz, 3u),
            );
            bias += vec4<f32>(1.0) * g;
            sums[0] += input(tile, at, 4u * lane) * g;
            sums[1] += input(tile, at, 4u * lane + 1u) * g;
            sums[2] += input(tile, at, 4u * lane + 2u) * g;
            sums[3] += input(tile, at, 4u * lane + 3u) * g;
        }
    }
}

// Any other tile: an invocation holds four outputs of all inputs, and loads four inputs.
fn walk(tile: Tile, start: u32, end: u32, lane: u32) {
    for (var first = start; first < end; first += 8u) {
        let mine = locate(tile, min(first + lane, end - 1u));
        for (var q = 0u; q < min(8u, end - first); q++) {
            let at = shuffled(mine, q);
            let g = gradients(tile, at, 4u * lane);
            bias += vec4<f32>(1.0) * g;
            let n0 = input(tile, at, 4u * lane);
            let n1 = input(tile, at, 4u * lane + 1u);
            let n2 = input(tile, at, 4u * lane + 2u);
            let n3 = input(tile, at, 4u * lane + 3u);
            outer(0u, subgroupBroadcast(n0, 0u), subgroupBroadcast(n1, 0u), subgroupBroadcast(n2, 0u), subgroupBroadcast(n3, 0u), g);
            outer(1u, subgroupBroadcast(n0, 1u), subgroupBroadcast(n1, 1u), subgroupBroadcast(n2, 1u), subgroupBroadcast(n3, 1u), g);
            outer(2u, subgroupBroadcast(n0, 2u), subgroupBroadcast(n1, 2u), subgroupBroadcast(n2, 2u), subgroupBroadcast(n3, 2u), g);
            outer(3u, subgroupBroadcast(n0, 3u), subgroupBroadcast(n1, 3u), subgroupBroadcast(n2, 3u), subgroupBroadcast(n3, 3u), g);
            outer(4u, subgroupBroadcast(n0, 4u), subgroupBroadcast(n1, 4u), subgroupBroadcast(n2, 4u), subgroupBroadcast(n3, 4u), g);
            outer(5u, subgroupBroadcast(n0, 5u), subgroupBroadcast(n1, 5u), subgroupBroadcast(n2, 5u), subgroupBroadcast(n3, 5u), g);
            outer(6u, subgroupBroadcast(n0, 6u), subgroupBroadcast(n1, 6u), subgroupBroadcast(n2, 6u), subgroupBroadcast(n3, 6u), g);
            outer(7u, subgroupBroadcast(n0, 7u), subgroupBroadcast(n1, 7u), subgroupBroadcast(n2, 7u), subgroupBroadcast(n3, 7u), g);
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let number = group.y * GROUPS + group.x;
    if (number >= split.tiles) {
        return;
    }
    let tile = tiles[number];
    let range = range_of(tile, group.z);
    if (tile.kind == BIAS) {
        walk_bias(tile, range.start, range.end, lane);
    } else if (tile.outputs <= 4u) {
        walk_narrow(tile, range.start, range.end, lane);
        for (var i = 0u; i < 4u; i++) {
            store(tile, group.z, 4u * lane + i, 0u, sums[i]);
        }
        if (lane == 0u) {
            store_bias(tile, group.z, 0u, bias);
        }
        return;
    } else {
        walk(tile, range.start, range.end, lane);
        for (var i = 0u; i < 32u; i++) {
            store(tile, group.z, i, 4u * lane, sums[i]);
        }
    }
    store_bias(tile, group.z, 4u * lane, bias);
}
