// Gradients of the weights with register tiles: each of 64 invocations holds four by four results of a tile of 32 by 32. The
// invocations stage the next DEPTH quads of rows in workgroup memory together.

import package::constants::{GROUPS, WG};
import package::lib::weight_gradient::{split, tiles, range_of, locate, input, gradient, store, store_bias};
import package::weight_tile::BIAS;

const DEPTH: u32 = 8u;
var<workgroup> lefts: array<vec4<f32>, DEPTH * 32u>;
var<workgroup> rights: array<vec4<f32>, DEPTH * 32u>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = group.y * GROUPS + group.x;
    if (number >= split.tiles) {
        return;
    }
    let tile = tiles[number];
    let range = range_of(tile, group.z);
    let down = 4u * (lane / 8u);
    let across = 4u * (lane % 8u);
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    var bias = vec4<f32>(0.0);
    for (var first = range.start; first < range.end; first += DEPTH) {
        // This invocation loads every eighth feature of quad lane % 8.
        let q = lane % DEPTH;
        let exists = first + q < range.end;
        let at = locate(tile, min(first + q, range.end - 1u));
        for (var feature = lane / DEPTH; feature < 32u; feature += WG / DEPTH) {
            if (tile.kind != BIAS) {
                lefts[q * 32u + feature] = select(vec4<f32>(0.0), input(tile, at, feature), exists);
            }
            rights[q * 32u + feature] = select(vec4<f32>(0.0), gradient(tile, at, feature), exists);
        }
        workgroupBarrier();
        for (var q = 0u; q < DEPTH; q++) {
            let left = q * 32u + down;
            let right = q * 32u + across;
            // A row vector times this matrix sums over the four rows, for four outputs at once.
            let g = mat4x4<f32>(rights[right], rights[right + 1u], rights[right + 2u], rights[right + 3u]);
            bias += vec4<f32>(1.0) * g;
            s0 += lefts[left] * g;
            s1 += lefts[left + 1u] * g;
            s2 += lefts[left + 2u] * g;
            s3 += lefts[left + 3u] * g;
        }
        workgroupBarrier();
    }
    if (down == 0u) {
        store_bias(tile, group.z, across, bias);
    }
    if (tile.kind != BIAS) {
        store(tile, group.z, down, across, s0);
        store(tile, group.z, down + 1u, across, s1);
        store(tile, group.z, down + 2u, across, s2);
        store(tile, group.z, down + 3u, across, s3);
    }
}
