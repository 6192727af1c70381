// Register tiles of a matrix product: four rows times COLUMNS columns an invocation, or times four where few are left.

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

// x times 32 weights, of which each of the eight invocations of the subgroup brings four.
@if(spread)
fn add_spread(x: vec4<f32>, w: vec4<f32>) {
    add(0u, x, subgroupBroadcast(w, 0u));
    add(1u, x, subgroupBroadcast(w, 1u));
    add(2u, x, subgroupBroadcast(w, 2u));
    add(3u, x, subgroupBroadcast(w, 3u));
    add(4u, x, subgroupBroadcast(w, 4u));
    add(5u, x, subgroupBroadcast(w, 5u));
    add(6u, x, subgroupBroadcast(w, 6u));
    add(7u, x, subgroupBroadcast(w, 7u));
}
