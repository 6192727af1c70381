// Gradients of the weights on the adapter's matrix units: a workgroup owns a tile of 64 by 64, of which each subgroup holds two by
// two matrices. All invocations stage the next eight quads of rows in workgroup memory, in f16.

import package::constants::{GROUPS, WG, SIZE, SUBGROUP};
import package::lib::cooperative::{Left, Right, Sum};
import package::lib::quad::to_quad;
import package::lib::weight_gradient::{split, tiles, range_of, locate, input, gradient, store, store_bias};
import package::weight_tile::{BIAS, NONE};

const SPAN: u32 = 64u;
const QUADS: u32 = 8u;
const EDGE: u32 = 2u * SIZE;
const ACROSS: u32 = SPAN / EDGE;
// f16s from one feature to the next; the padding of 8 avoids bank conflicts.
const PITCH: u32 = 4u * QUADS + 8u;
var<workgroup> lefts: array<f16, SPAN * PITCH>;
var<workgroup> rights: array<f16, SPAN * PITCH>;
// One of the four matrices of every subgroup, on its way to the partial sums.
const DRAINED: u32 = SPAN * SPAN / 4u;
var<workgroup> drained: array<f32, DRAINED>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let subgroup = local / SUBGROUP;
    let number = group.y * GROUPS + group.x;
    if (number >= split.tiles) {
        return;
    }
    let tile = tiles[number];
    let range = range_of(tile, group.z);
    let down = subgroup / ACROSS * EDGE;
    let across = subgroup % ACROSS * EDGE;
    let busy = tile.kind != BIAS && down < tile.inputs && across < tile.outputs;
    var s00 = Sum();
    var s01 = Sum();
    var s10 = Sum();
    var s11 = Sum();
    // Sums of the gradients of outputs `local` and `local + WG`.
    var bias = vec2<f32>(0.0);
    for (var first = range.start; first < range.end; first += QUADS) {
        let q = local % QUADS;
        let exists = first + q < range.end;
        let at = locate(tile, min(first + q, range.end - 1u));
        for (var feature = local / QUADS; feature < SPAN; feature += WG / QUADS) {
            let to = feature * PITCH + 4u * q;
            if (tile.kind != BIAS) {
                let n = to_quad(select(vec4<f32>(0.0), input(tile, at, feature), exists));
                lefts[to] = n.x;
                lefts[to + 1u] = n.y;
                lefts[to + 2u] = n.z;
                lefts[to + 3u] = n.w;
            }
            let dz = to_quad(select(vec4<f32>(0.0), gradient(tile, at, feature), exists));
            rights[to] = dz.x;
            rights[to + 1u] = dz.y;
            rights[to + 2u] = dz.z;
            rights[to + 3u] = dz.w;
        }
        workgroupBarrier();
        if (busy) {
            for (var r = 0u; r < 4u * QUADS; r += SIZE) {
                let a0 = coopLoadT<Left>(&lefts[down * PITCH + r], PITCH);
                let a1 = coopLoadT<Left>(&lefts[(down + SIZE) * PITCH + r], PITCH);
                let b0 = coopLoad<Right>(&rights[across * PITCH + r], PITCH);
                let b1 = coopLoad<Right>(&rights[(across + SIZE) * PITCH + r], PITCH);
                s00 = coopMultiplyAdd(a0, b0, s00);
                s01 = coopMultiplyAdd(a0, b1, s01);
                s10 = coopMultiplyAdd(a1, b0, s10);
                s11 = coopMultiplyAdd(a1, b1, s11);
            }
        }
        if (tile.bias != NONE) {
            for (var r = 0u; r < 4u * QUADS; r++) {
                bias.x += f32(rights[min(local, SPAN - 1u) * PITCH + r]);
                bias.y += f32(rights[min(local + WG, SPAN - 1u) * PITCH + r]);
            }
        }
        workgroupBarrier();
    }
    if (tile.kind != BIAS) {
        for (var matrix = 0u; matrix < 4u; matrix++) {
            let to = subgroup * SIZE * SIZE;
            if (matrix == 0u) {
                coopStoreT(s00, &drained[to], SIZE);
            } else if (matrix == 1u) {
                coopStoreT(s01, &drained[to], SIZE);
            } else if (matrix == 2u) {
                coopStoreT(s10, &drained[to], SIZE);
            } else {
                coopStoreT(s11, &drained[to], SIZE);
            }
            workgroupBarrier();
            for (var i = 4u * local; i < DRAINED; i += 4u * WG) {
                let sum = vec4<f32>(drained[i], drained[i + 1u], drained[i + 2u], drained[i + 3u]);
                let square = i / (SIZE * SIZE);
                let row = square / ACROSS * EDGE + matrix / 2u * SIZE + i / SIZE % SIZE;
                let column = square % ACROSS * EDGE + matrix % 2u * SIZE + i % SIZE;
                store(tile, group.z, row, column, sum);
            }
            workgroupBarrier();
        }
    }
    if (tile.bias == NONE) {
        return;
    }
    // Biases are stored as vec4s of four outputs.
    for (var o = local; o < SPAN; o += WG) {
        drained[o] = select(bias.y, bias.x, o == local);
    }
    workgroupBarrier();
    for (var o = 4u * local; o < SPAN; o += 4u * WG) {
        store_bias(tile, group.z, o, vec4<f32>(drained[o], drained[o + 1u], drained[o + 2u], drained[o + 3u]));
    }
}
