// C = A B with cooperative matrices: f16 factors, f32 sums, row-major. Sizes are multiples of the tile: a subgroup holds four by four
// matrices, a workgroup two by two subgroups. Its throughput is the reference for the networks' kernels.

import package::constants::{WG, SIZE, SUBGROUP};
import package::lib::cooperative::{Left, Right, Sum};

struct Sizes {
    columns: u32,
    inputs: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<f16>;
@group(0) @binding(2) var<storage, read> b: array<f16>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

fn store(sum: Sum, at: u32, columns: u32) {
    coopStoreT(sum, &c[at], columns);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let columns = sizes.columns;
    let inputs = sizes.inputs;
    let subgroup = local / SUBGROUP;
    let row = (group.y * 2u + subgroup / 2u) * 4u * SIZE;
    let column = (group.x * 2u + subgroup % 2u) * 4u * SIZE;
    var s00 = Sum();
    var s01 = Sum();
    var s02 = Sum();
    var s03 = Sum();
    var s10 = Sum();
    var s11 = Sum();
    var s12 = Sum();
    var s13 = Sum();
    var s20 = Sum();
    var s21 = Sum();
    var s22 = Sum();
    var s23 = Sum();
    var s30 = Sum();
    var s31 = Sum();
    var s32 = Sum();
    var s33 = Sum();
    for (var k = 0u; k < inputs; k += SIZE) {
        let right = k * columns + column;
        let left = row * inputs + k;
        let step = SIZE * inputs;
        let b0 = coopLoadT<Right>(&b[right], columns);
        let b1 = coopLoadT<Right>(&b[right + SIZE], columns);
        let b2 = coopLoadT<Right>(&b[right + 2u * SIZE], columns);
        let b3 = coopLoadT<Right>(&b[right + 3u * SIZE], columns);
        let a0 = coopLoadT<Left>(&a[left], inputs);
        s00 = coopMultiplyAdd(a0, b0, s00);
        s01 = coopMultiplyAdd(a0, b1, s01);
        s02 = coopMultiplyAdd(a0, b2, s02);
        s03 = coopMultiplyAdd(a0, b3, s03);
        let a1 = coopLoadT<Left>(&a[left + step], inputs);
        s10 = coopMultiplyAdd(a1, b0, s10);
        s11 = coopMultiplyAdd(a1, b1, s11);
        s12 = coopMultiplyAdd(a1, b2, s12);
        s13 = coopMultiplyAdd(a1, b3, s13);
        let a2 = coopLoadT<Left>(&a[left + 2u * step], inputs);
        s20 = coopMultiplyAdd(a2, b0, s20);
        s21 = coopMultiplyAdd(a2, b1, s21);
        s22 = coopMultiplyAdd(a2, b2, s22);
        s23 = coopMultiplyAdd(a2, b3, s23);
        let a3 = coopLoadT<Left>(&a[left + 3u * step], inputs);
        s30 = coopMultiplyAdd(a3, b0, s30);
        s31 = coopMultiplyAdd(a3, b1, s31);
        s32 = coopMultiplyAdd(a3, b2, s32);
        s33 = coopMultiplyAdd(a3, b3, s33);
    }
    let to = row * columns + column;
    let down = SIZE * columns;
    store(s00, to, columns);
    store(s01, to + SIZE, columns);
    store(s02, to + 2u * SIZE, columns);
    store(s03, to + 3u * SIZE, columns);
    store(s10, to + down, columns);
    store(s11, to + down + SIZE, columns);
    store(s12, to + down + 2u * SIZE, columns);
    store(s13, to + down + 3u * SIZE, columns);
    store(s20, to + 2u * down, columns);
    store(s21, to + 2u * down + SIZE, columns);
    store(s22, to + 2u * down + 2u * SIZE, columns);
    store(s23, to + 2u * down + 3u * SIZE, columns);
    store(s30, to + 3u * down, columns);
    store(s31, to + 3u * down + SIZE, columns);
    store(s32, to + 3u * down + 2u * SIZE, columns);
    store(s33, to + 3u * down + 3u * SIZE, columns);
}
