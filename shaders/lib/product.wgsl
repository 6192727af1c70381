// Register tiles of a matrix product: an invocation holds four rows by COLUMNS columns, or by four at the end of a matrix.

import package::constants::COLUMNS;

var<private> tile: array<vec4<f32>, COLUMNS>;
var<private> narrow: array<vec4<f32>, 4>;

// Adds x times four weights to columns 4 j to 4 j + 3.
fn add(j: u32, x: vec4<f32>, w: vec4<f32>) {
    tile[4u * j] += x * w.x;
    tile[4u * j + 1u] += x * w.y;
    tile[4u * j + 2u] += x * w.z;
    tile[4u * j + 3u] += x * w.w;
}

fn add_narrow(x: vec4<f32>, w: vec4<f32>) {
    narrow[0] += x * w.x;
    narrow[1] += x * w.y;
    narrow[2] += x * w.z;
    narrow[3] += x * w.w;
}

// The same for two inputs at once: llvmpipe keeps the sums of a loop in memory, and this halves the stores.
@if(subgroup_broadcast)
fn add_two(j: u32, x: vec4<f32>, w: vec4<f32>, y: vec4<f32>, v: vec4<f32>) {
    tile[4u * j] += x * w.x + y * v.x;
    tile[4u * j + 1u] += x * w.y + y * v.y;
    tile[4u * j + 2u] += x * w.z + y * v.z;
    tile[4u * j + 3u] += x * w.w + y * v.w;
}

// x times 32 weights, four of which each of the eight invocations of the subgroup loaded, and y times 32 others.
@if(subgroup_broadcast)
fn add_spread(x: vec4<f32>, w: vec4<f32>, y: vec4<f32>, v: vec4<f32>) {
    add_two(0u, x, subgroupBroadcast(w, 0u), y, subgroupBroadcast(v, 0u));
    add_two(1u, x, subgroupBroadcast(w, 1u), y, subgroupBroadcast(v, 1u));
    add_two(2u, x, subgroupBroadcast(w, 2u), y, subgroupBroadcast(v, 2u));
    add_two(3u, x, subgroupBroadcast(w, 3u), y, subgroupBroadcast(v, 3u));
    add_two(4u, x, subgroupBroadcast(w, 4u), y, subgroupBroadcast(v, 4u));
    add_two(5u, x, subgroupBroadcast(w, 5u), y, subgroupBroadcast(v, 5u));
    add_two(6u, x, subgroupBroadcast(w, 6u), y, subgroupBroadcast(v, 6u));
    add_two(7u, x, subgroupBroadcast(w, 7u), y, subgroupBroadcast(v, 7u));
}
