// Gradients of the weights on GPUs: each of 128 invocations holds eight inputs by four outputs of a tile of 64 by 64. The invocations
// stage DEPTH quads of rows in workgroup memory together; the next ones are on their way while the last are multiplied.

import package::constants::{GROUPS, WG, SIDE};
import package::lib::weight_gradient::{Tile, Range, split, tiles, range_of, locate, input, gradient, store, store_bias};
import package::weight_tile::BIAS;

const DEPTH: u32 = 8u;
// Invocations side by side, each with four of the tile's SIDE outputs.
const ACROSS: u32 = SIDE / 4u;
// Features of a quad of rows that an invocation stages.
const SHARE: u32 = SIDE * DEPTH / WG;

var<workgroup> lefts: array<vec4<f32>, DEPTH * SIDE>;
var<workgroup> rights: array<vec4<f32>, DEPTH * SIDE>;

var<private> left_ahead: array<vec4<f32>, SHARE>;
var<private> right_ahead: array<vec4<f32>, SHARE>;

// Place of a feature: features four apart lie side by side, for the invocations that multiply them. They trade places from one quad to
// the next, or the invocations that stage a feature would write to the same memory bank.
fn staged_at(q: u32, feature: u32) -> u32 {
    return q * SIDE + feature % 4u * ACROSS + ((feature / 4u) ^ q);
}

// Loads the invocation's share of the quads from `first` on: every sixteenth feature of one of them, 0 past the last quad.
fn load(tile: Tile, range: Range, first: u32, lane: u32) {
    let quad = first + lane % DEPTH;
    let exists = quad < range.end;
    let at = locate(tile, min(quad, range.end - 1u));
    for (var i = 0u; i < SHARE; i++) {
        let feature = lane / DEPTH + i * (WG / DEPTH);
        right_ahead[i] = select(vec4<f32>(0.0), gradient(tile, at, feature), exists);
    }
    if (tile.kind == BIAS) {
        return;
    }
    for (var i = 0u; i < SHARE; i++) {
        let feature = lane / DEPTH + i * (WG / DEPTH);
        left_ahead[i] = select(vec4<f32>(0.0), input(tile, at, feature), exists);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = group.y * GROUPS + group.x;
    if (number >= split.tiles) {
        return;
    }
    let tile = tiles[number];
    let range = range_of(tile, group.z);
    let column = lane % ACROSS;
    let down = 8u * (lane / ACROSS);
    var sums: array<vec4<f32>, 8>;
    var bias = vec4<f32>(0.0);
    if (range.start < range.end) {
        load(tile, range, range.start, lane);
    }
    for (var first = range.start; first < range.end; first += DEPTH) {
        workgroupBarrier();
        for (var i = 0u; i < SHARE; i++) {
            let at = staged_at(lane % DEPTH, lane / DEPTH + i * (WG / DEPTH));
            lefts[at] = left_ahead[i];
            rights[at] = right_ahead[i];
        }
        workgroupBarrier();
        load(tile, range, select(range.start, first + DEPTH, first + DEPTH < range.end), lane);
        for (var q = 0u; q < DEPTH; q++) {
            let right = staged_at(q, 4u * column);
            let left = staged_at(q, down);
            let lower = staged_at(q, down + 4u);
            // A row vector times this matrix sums over the four rows, for four outputs at once.
            let g = mat4x4<f32>(
                rights[right],
                rights[right + ACROSS],
                rights[right + 2u * ACROSS],
                rights[right + 3u * ACROSS],
            );
            bias += vec4<f32>(1.0) * g;
            sums[0] += lefts[left] * g;
            sums[1] += lefts[left + ACROSS] * g;
            sums[2] += lefts[left + 2u * ACROSS] * g;
            sums[3] += lefts[left + 3u * ACROSS] * g;
            sums[4] += lefts[lower] * g;
            sums[5] += lefts[lower + ACROSS] * g;
            sums[6] += lefts[lower + 2u * ACROSS] * g;
            sums[7] += lefts[lower + 3u * ACROSS] * g;
        }
    }
    if (down == 0u) {
        store_bias(tile, group.z, 4u * column, bias);
    }
    if (tile.kind != BIAS) {
        for (var i = 0u; i < 8u; i++) {
            store(tile, group.z, down + i, 4u * column, sums[i]);
        }
    }
}
