// Gradients with respect to all matrices and biases of all networks, as if there were no gains and offsets: sums over the
// rows of normalised input times gradient. A workgroup owns a tile of 32 inputs by 32 outputs (64 by 64 with cooperative
// matrices) of one tensor and one split of the rows, which it takes in a fixed order, so that every run gives the same bits.

import package::constants::{GROUPS, WG, TILE};
import package::lib::network::{Batch, ALL, STATE, place};
import package::lib::quad::{Quad, to_quad, of_quad};
@if(cooperative) import package::lib::cooperative::{Left, Right, Sum};
@if(cooperative) import package::constants::{SIZE, SUBGROUP};

struct Tile {
    // 1: the input is what the role sees, 2: a bias alone.
    kind: u32,
    // First row of the left factor: of the activation buffer, or feature of what the role sees.
    left: u32,
    // First row of the gradient.
    right: u32,
    // Row of the LayerNorm's mean, NONE without LayerNorm.
    moments: u32,
    // Where the result goes, in vec4s of the parameter buffer; vec4s to the next input row.
    output: u32,
    stride: u32,
    // Inputs and outputs of the tile that exist.
    inputs: u32,
    outputs: u32,
    // Agents whose rows count.
    first_agent: u32,
    agents: u32,
    // What the role sees, as in its `NetworkStack`.
    sees: u32,
    // Where the sums of the gradients alone go, NONE where another tile has them.
    bias: u32,
}

struct Split {
    // Shares of the rows, and vec4s from one split's parameters to the next.
    count: u32,
    stride: u32,
    tiles: u32,
    pad1: u32,
}

const OBSERVED: u32 = 1u;
const BIAS: u32 = 2u;
const NONE: u32 = 0xffffffffu;

@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<uniform> split: Split;
@group(0) @binding(2) var<storage, read> tiles: array<Tile>;
@group(0) @binding(3) var<storage, read> observations: array<Quad>;
@group(0) @binding(4) var<storage, read> acts: array<Quad>;
@group(0) @binding(5) var<storage, read> moments: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> grads: array<Quad>;
@group(0) @binding(7) var<storage, read_write> partials: array<vec4<f32>>;

// Where a quad of rows lies: its first input, the distance to the next, its first gradient, and its LayerNorm.
struct Place {
    left: u32,
    right: u32,
    mean: vec4<f32>,
    scale: vec4<f32>,
}

// Quad number i of those that count for the tile.
fn locate(tile: Tile, i: u32) -> Place {
    let per_slot = batch.agents * batch.quads;
    let per_job = tile.agents * batch.quads;
    let slot = i / per_job;
    let row = slot * per_slot + tile.first_agent * batch.quads + i % per_job;
    var at: Place;
    at.right = place(row, batch.grads) + tile.right * TILE;
    at.left = place(row, batch.acts) + tile.left * TILE;
    if (tile.kind == OBSERVED) {
        let agent = (row % per_slot) / batch.quads;
        let number = batch.first_slot + slot;
        let seen = (number * batch.agents + select(agent, 0u, tile.sees == ALL)) * batch.obs_dim * batch.quads;
        let state = batch.first_state + number * batch.state_dim * batch.quads;
        at.left = select(seen, state, tile.sees == STATE) + tile.left * batch.quads + row % batch.quads;
    }
    at.mean = vec4<f32>(0.0);
    at.scale = vec4<f32>(1.0);
    if (tile.moments != NONE) {
        at.mean = moments[tile.moments * batch.stride + row];
        at.scale = moments[(tile.moments + 1u) * batch.stride + row];
    }
    return at;
}

fn input(tile: Tile, at: Place, feature: u32) -> vec4<f32> {
    let k = min(feature, tile.inputs - 1u);
    if (tile.kind == OBSERVED) {
        return (of_quad(observations[at.left + k * batch.quads]) - at.mean) * at.scale;
    }
    return (of_quad(acts[at.left + k * TILE]) - at.mean) * at.scale;
}

fn gradient(tile: Tile, at: Place, output: u32) -> vec4<f32> {
    return of_quad(grads[at.right + min(output, tile.outputs - 1u) * TILE]);
}

// Four outputs at once: a row vector times this matrix sums over the four rows.
@if(subgroup_broadcast)
fn gradients(tile: Tile, at: Place, first: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        gradient(tile, at, first),
        gradient(tile, at, first + 1u),
        gradient(tile, at, first + 2u),
        gradient(tile, at, first + 3u),
    );
}

// Columns `first` to `first + 3` of row `i` of the tile.
fn store(tile: Tile, share: u32, i: u32, first: u32, sum: vec4<f32>) {
    if (i < tile.inputs && first < tile.outputs) {
        // select, not a product: what lies past the outputs may be anything, also NaN.
        let exists = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(tile.outputs);
        partials[share * split.stride + tile.output + i * tile.stride + first / 4u] = select(vec4<f32>(0.0), sum, exists);
    }
}

// The same for the sums of the gradients alone.
fn store_bias(tile: Tile, share: u32, first: u32, sum: vec4<f32>) {
    if (tile.bias != NONE && first < tile.outputs) {
        let exists = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(tile.outputs);
        partials[share * split.stride + tile.bias + first / 4u] = select(vec4<f32>(0.0), sum, exists);
    }
}

// An invocation of a subgroup of eight holds four outputs of all 32 inputs; each brings four inputs and hands them round.
@if(subgroup_broadcast) var<private> sums: array<vec4<f32>, 32>;

@if(subgroup_broadcast)
fn outer(other: u32, n0: vec4<f32>, n1: vec4<f32>, n2: vec4<f32>, n3: vec4<f32>, g: mat4x4<f32>) {
    sums[4u * other] += n0 * g;
    sums[4u * other + 1u] += n1 * g;
    sums[4u * other + 2u] += n2 * g;
    sums[4u * other + 3u] += n3 * g;
}

@if(subgroup_broadcast) var<private> bias: vec4<f32>;

// Each invocation looks one of the next eight quads up; all then take quad q of them.
@if(subgroup_broadcast)
fn place_of(mine: Place, q: u32) -> Place {
    return Place(
        subgroupShuffle(mine.left, q),
        subgroupShuffle(mine.right, q),
        subgroupShuffle(mine.mean, q),
        subgroupShuffle(mine.scale, q),
    );
}

// The following walk over quads `start` to `end`. They are apart, since a processor that plays a GPU takes both ways of a
// branch within a loop.
@if(subgroup_broadcast)
fn walk_bias(tile: Tile, start: u32, end: u32, lane: u32) {
    for (var first = start; first < end; first += 8u) {
        let mine = locate(tile, min(first + lane, end - 1u));
        for (var q = 0u; q < min(8u, end - first); q++) {
            let right = subgroupShuffle(mine.right, q);
            let at = Place(0u, right, vec4<f32>(0.0), vec4<f32>(1.0));
            bias += vec4<f32>(1.0) * gradients(tile, at, 4u * lane);
        }
    }
}

// Heads of up to four outputs: an invocation takes all outputs of four inputs, and brings one of the gradients.
@if(subgroup_broadcast)
fn walk_narrow(tile: Tile, start: u32, end: u32, lane: u32) {
    for (var first = start; first < end; first += 8u) {
        let mine = locate(tile, min(first + lane, end - 1u));
        for (var q = 0u; q < min(8u, end - first); q++) {
            let at = place_of(mine, q);
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

// Any other tile: an invocation takes four outputs of all inputs, and brings four inputs.
@if(subgroup_broadcast)
fn walk(tile: Tile, start: u32, end: u32, lane: u32) {
    for (var first = start; first < end; first += 8u) {
        let mine = locate(tile, min(first + lane, end - 1u));
        for (var q = 0u; q < min(8u, end - first); q++) {
            let at = place_of(mine, q);
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

@if(subgroup_broadcast)
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let number = group.y * GROUPS + group.x;
    if (number >= split.tiles) {
        return;
    }
    let tile = tiles[number];
    let total = batch.rows / batch.agents * tile.agents;
    let share = (total + split.count - 1u) / split.count;
    let end = min(total, (group.z + 1u) * share);
    let start = group.z * share;
    if (tile.kind == BIAS) {
        walk_bias(tile, start, end, lane);
    } else if (tile.outputs <= 4u) {
        walk_narrow(tile, start, end, lane);
        for (var i = 0u; i < 4u; i++) {
            store(tile, group.z, 4u * lane + i, 0u, sums[i]);
        }
        if (lane == 0u) {
            store_bias(tile, group.z, 0u, bias);
        }
        return;
    } else {
        walk(tile, start, end, lane);
        for (var i = 0u; i < 32u; i++) {
            store(tile, group.z, i, 4u * lane, sums[i]);
        }
    }
    store_bias(tile, group.z, 4u * lane, bias);
}

// On the matrix units: a subgroup holds two by two matrices. All bring the next eight quads of rows in f16.
@if(cooperative) const SPAN: u32 = 64u;
@if(cooperative) const QUADS: u32 = 8u;
@if(cooperative) const EDGE: u32 = 2u * SIZE;
@if(cooperative) const ACROSS: u32 = SPAN / EDGE;
// Numbers from feature to feature: no multiple of the banks of the memory.
@if(cooperative) const PITCH: u32 = 4u * QUADS + 8u;
@if(cooperative) var<workgroup> lefts: array<f16, SPAN * PITCH>;
@if(cooperative) var<workgroup> rights: array<f16, SPAN * PITCH>;
// One of the four matrices of every subgroup.
@if(cooperative) const DRAINED: u32 = SPAN * SPAN / 4u;
@if(cooperative) var<workgroup> drained: array<f32, DRAINED>;

@if(cooperative)
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
    let total = batch.rows / batch.agents * tile.agents;
    let share = (total + split.count - 1u) / split.count;
    let end = min(total, (group.z + 1u) * share);
    let down = subgroup / ACROSS * EDGE;
    let across = subgroup % ACROSS * EDGE;
    let busy = tile.kind != BIAS && down < tile.inputs && across < tile.outputs;
    var s00 = Sum();
    var s01 = Sum();
    var s10 = Sum();
    var s11 = Sum();
    // Of outputs `local` and `local + WG`.
    var bias = vec2<f32>(0.0);
    for (var first = group.z * share; first < end; first += QUADS) {
        let q = local % QUADS;
        let exists = first + q < end;
        let at = locate(tile, min(first + q, end - 1u));
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
        for (var turn = 0u; turn < 4u; turn++) {
            let to = subgroup * SIZE * SIZE;
            if (turn == 0u) {
                coopStoreT(s00, &drained[to], SIZE);
            } else if (turn == 1u) {
                coopStoreT(s01, &drained[to], SIZE);
            } else if (turn == 2u) {
                coopStoreT(s10, &drained[to], SIZE);
            } else {
                coopStoreT(s11, &drained[to], SIZE);
            }
            workgroupBarrier();
            for (var i = 4u * local; i < DRAINED; i += 4u * WG) {
                let sum = vec4<f32>(drained[i], drained[i + 1u], drained[i + 2u], drained[i + 3u]);
                let square = i / (SIZE * SIZE);
                let row = square / ACROSS * EDGE + turn / 2u * SIZE + i / SIZE % SIZE;
                let column = square % ACROSS * EDGE + turn % 2u * SIZE + i % SIZE;
                store(tile, group.z, row, column, sum);
            }
            workgroupBarrier();
        }
    }
    if (tile.bias == NONE) {
        return;
    }
    // Four of them at a time, the way the parameters lie.
    for (var o = local; o < SPAN; o += WG) {
        drained[o] = select(bias.y, bias.x, o == local);
    }
    workgroupBarrier();
    for (var o = 4u * local; o < SPAN; o += 4u * WG) {
        store_bias(tile, group.z, o, vec4<f32>(drained[o], drained[o + 1u], drained[o + 2u], drained[o + 3u]));
    }
}

// 64 invocations hold four by four outputs each; they bring the next quads into workgroup memory together.
@if(!subgroup_broadcast && !cooperative) const DEPTH: u32 = 8u;
@if(!subgroup_broadcast && !cooperative) var<workgroup> lefts: array<vec4<f32>, DEPTH * 32u>;
@if(!subgroup_broadcast && !cooperative) var<workgroup> rights: array<vec4<f32>, DEPTH * 32u>;

@if(!subgroup_broadcast && !cooperative)
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = group.y * GROUPS + group.x;
    if (number >= split.tiles) {
        return;
    }
    let tile = tiles[number];
    let total = batch.rows / batch.agents * tile.agents;
    let share = (total + split.count - 1u) / split.count;
    let end = min(total, (group.z + 1u) * share);
    let down = 4u * (lane / 8u);
    let across = 4u * (lane % 8u);
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    var bias = vec4<f32>(0.0);
    for (var first = group.z * share; first < end; first += DEPTH) {
        // Quad lane % 8 of these, every eighth feature.
        let q = lane % DEPTH;
        let exists = first + q < end;
        let at = locate(tile, min(first + q, end - 1u));
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
