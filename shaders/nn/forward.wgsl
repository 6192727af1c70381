// A whole stack for four rows an invocation: LayerNorm, then (Linear, activation, LayerNorm) for every hidden layer,
// then the head. All agents and both networks travel in one dispatch: rows in x, the role in y. The LayerNorm's gain and
// offset are part of the weights already (nn/fold).
//
// With a GRU after the hidden layers an invocation walks its rows through the slots of a chunk, one after the other: r and z
// from the gates of input and state, n = tanh(input's candidate + r * state's candidate), h' = n + z (h - n).
//
// With cooperative matrices a workgroup takes a block: PARTS invocations share a quad of rows, each has every PARTS-th
// column of what the matrix units bring.

import package::constants::{WG, TILE, COLUMNS, TEXTURE_ROW};
import package::lib::network::{Batch, NetworkStack, Layer, MAX_LAYERS, ALL, STATE, place};
@if(recurrent) import package::lib::network::{GATES_OF_INPUT, GATES_OF_STATE};
@if(recurrent) import package::lib::activation::{sigmoid, hyperbolic};
import package::lib::quad::{Quad, to_quad, of_quad};
import package::lib::activation::activate;
import package::lib::product::{tile, narrow, add, add_narrow, add_spread};
@if(cooperative) import package::lib::cooperative::{weights, clear, stage, multiply, drain, sum_of, DEPTH, WIDTH};
@if(cooperative) import package::constants::{SIZE, SUBGROUP};

@group(0) @binding(0) var<uniform> batch: Batch;
@group(0) @binding(1) var<uniform> roles: array<NetworkStack, 2>;
@if(texture) @group(0) @binding(2) var weights: texture_2d<f32>;
@if(!texture && !cooperative) @group(0) @binding(2) var<storage, read> weights: array<Quad>;
@group(0) @binding(3) var<storage, read> observations: array<Quad>;
@group(0) @binding(4) var<storage, read_write> acts: array<Quad>;
@group(0) @binding(5) var<storage, read_write> head: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> moments: array<vec4<f32>>;
// What is remembered, [place][role][entry][row of a slot].
@if(recurrent) @group(0) @binding(7) var<storage, read_write> states: array<vec4<f32>>;
@if(recurrent) @group(0) @binding(8) var<storage, read> dones_and_masks: array<vec4<u32>>;

@if(texture)
fn weight(i: u32) -> vec4<f32> {
    return textureLoad(weights, vec2<u32>(i % TEXTURE_ROW, i / TEXTURE_ROW), 0);
}

@if(!texture && !cooperative)
fn weight(i: u32) -> vec4<f32> {
    return of_quad(weights[i]);
}

// What enters a layer: input k of the row that `base` stands for.
struct Source {
    observed: bool,
    base: u32,
    inputs: u32,
}

fn raw(source: Source, k: u32) -> vec4<f32> {
    if (source.observed) {
        return of_quad(observations[source.base + k * batch.quads]);
    }
    return of_quad(acts[source.base + k * TILE]);
}

// Mean and sum of squared deviations of what was seen so far (Chan, Golub and LeVeque's way to join two parts).
struct Spread {
    count: f32,
    mean: vec4<f32>,
    squares: vec4<f32>,
}

fn join(a: Spread, b: Spread) -> Spread {
    let count = a.count + b.count;
    let apart = b.mean - a.mean;
    let share = b.count / count;
    return Spread(count, a.mean + apart * share, a.squares + b.squares + apart * apart * (a.count * share));
}

// 1 for an input that exists; past the end the last one is read again.
fn weigh(source: Source, k: u32) -> f32 {
    return select(0.0, 1.0, k < source.inputs);
}

fn clamped(source: Source, k: u32) -> vec4<f32> {
    return raw(source, min(k, source.inputs - 1u));
}

@if(cooperative) const PARTS: u32 = WG / TILE;
@if(cooperative) var<workgroup> parts: array<Spread, WG>;

// What all invocations of a quad saw, from what each of them did, the same for all of them.
@if(cooperative)
fn gather(mine: Spread, local: u32) -> Spread {
    parts[local] = mine;
    workgroupBarrier();
    let q = local % TILE;
    var all = parts[q];
    for (var p = 1u; p < PARTS; p++) {
        let other = parts[p * TILE + q];
        if (other.count > 0.0) {
            all = join(all, other);
        }
    }
    workgroupBarrier();
    return all;
}

@if(cooperative)
fn observe_part(source: Source, part: u32) -> Spread {
    var all = Spread(0.0, vec4<f32>(0.0), vec4<f32>(0.0));
    for (var k = part; k < source.inputs; k += PARTS) {
        all = join(all, Spread(1.0, raw(source, k), vec4<f32>(0.0)));
    }
    return all;
}

// Four observations a turn, each spelled out: a processor that plays a GPU ends loops after 65,535 turns.
fn observe(source: Source) -> Spread {
    var all = Spread(0.0, vec4<f32>(0.0), vec4<f32>(0.0));
    for (var k = 0u; k < source.inputs; k += 4u) {
        let exists = vec4<f32>(1.0, weigh(source, k + 1u), weigh(source, k + 2u), weigh(source, k + 3u));
        let a = raw(source, k);
        let b = clamped(source, k + 1u);
        let c = clamped(source, k + 2u);
        let d = clamped(source, k + 3u);
        let count = exists.x + exists.y + exists.z + exists.w;
        let mean = a + ((b - a) * exists.y + (c - a) * exists.z + (d - a) * exists.w) / count;
        var squares = (a - mean) * (a - mean);
        squares += (b - mean) * (b - mean) * exists.y;
        squares += (c - mean) * (c - mean) * exists.z;
        squares += (d - mean) * (d - mean) * exists.w;
        all = join(all, Spread(count, mean, squares));
    }
    return all;
}

struct Target {
    // A row of the head buffer, or of the activations, and of what they were made source.
    index: u32,
    product: u32,
    is_head: bool,
    exists: bool,
    @if(recurrent) kind: u32,
    // Columns that are added to what the row has.
    @if(recurrent) joined: u32,
}

// Stores one column and returns it as it was stored.
fn put(to: Target, column: u32, value: vec4<f32>) -> vec4<f32> {
    if (to.is_head) {
        if (to.exists) {
            head[to.index + column * batch.stride] = value;
        }
        return value;
    }
    @if(recurrent) if (to.kind == GATES_OF_INPUT || to.kind == GATES_OF_STATE) {
        if (to.exists) {
            let at = to.index + column * TILE;
            acts[at] = to_quad(value + select(vec4<f32>(0.0), of_quad(acts[at]), column < to.joined));
        }
        return value;
    }
    let q = to_quad(activate(value));
    if (to.exists) {
        // For the backward pass alone. Beyond these the derivative is 0 or 1, which infinity would make NaN.
        @if(gelu || silu) if (batch.keep == 1u) {
            acts[to.product + column * TILE] = to_quad(clamp(value, vec4<f32>(-6e4), vec4<f32>(6e4)));
        }
        acts[to.index + column * TILE] = q;
    }
    return of_quad(q);
}

@if(!subgroup_broadcast && !cooperative)
fn turn(x: vec4<f32>, w: u32) {
    for (var j = 0u; j < COLUMNS / 4u; j++) {
        add(j, x, weight(w + j));
    }
}

// All inputs of one tile of columns, one or two a turn; past the inputs the weights are 0.
@if(!cooperative)
fn accumulate(source: Source, inputs: u32, mean: vec4<f32>, scale: vec4<f32>, w0: u32, stride: u32, lane: u32) {
    @if(subgroup_broadcast) for (var k = 0u; k < inputs; k += 2u) {
        let w = w0 + k * stride + lane;
        let x = (raw(source, k) - mean) * scale;
        let y = (clamped(source, k + 1u) - mean) * scale;
        add_spread(x, weight(w), y, weight(w + stride));
    }
    @if(!subgroup_broadcast && unrolled) for (var k = 0u; k < inputs; k += 2u) {
        let w = w0 + k * stride;
        turn((raw(source, k) - mean) * scale, w);
        turn((clamped(source, k + 1u) - mean) * scale, w + stride);
    }
    @if(!subgroup_broadcast && !unrolled) for (var k = 0u; k < inputs; k++) {
        turn((raw(source, k) - mean) * scale, w0 + k * stride);
    }
}

fn turn_narrow(source: Source, k: u32, mean: vec4<f32>, scale: vec4<f32>, w: vec4<f32>) {
    // Past the inputs the weights are 0.
    add_narrow((clamped(source, k) - mean) * scale, w);
}

// As `linear` for a whole block. `first` is the network of its rows, `bias` that of the invocation's own.
@if(cooperative)
fn linear_block(source: Source, layer: Layer, first: u32, bias: u32, mean: vec4<f32>, scale: vec4<f32>, to: Target, local: u32, subgroup: u32) -> Spread {
    let q = local % TILE;
    let part = local / TILE;
    var all = Spread(0.0, vec4<f32>(0.0), vec4<f32>(0.0));
    for (var c = 0u; c < layer.outputs; c += WIDTH) {
        clear();
        for (var k = 0u; k < layer.inputs; k += DEPTH) {
            for (var i = part; i < DEPTH; i += PARTS) {
                let exists = k + i < layer.inputs;
                stage(q, i, select(vec4<f32>(0.0), (clamped(source, k + i) - mean) * scale, exists));
            }
            workgroupBarrier();
            let w = 4u * (first + layer.weights + k * layer.stride) + c;
            multiply(subgroup, w, 4u * layer.stride, min(DEPTH, layer.inputs - k), layer.outputs - c);
            workgroupBarrier();
        }
        for (var j = 0u; j < 4u; j++) {
            let start = c + j * SIZE;
            if (start < layer.outputs) {
                drain(subgroup, j);
                workgroupBarrier();
                for (var i = part; i < min(SIZE, layer.outputs - start); i += PARTS) {
                    let column = start + i;
                    let value = sum_of(q, i) + f32(weights[4u * bias + column]);
                    all = join(all, Spread(1.0, put(to, column, value), vec4<f32>(0.0)));
                }
                workgroupBarrier();
            }
        }
    }
    return all;
}

// One matrix product with everything that follows it. Returns mean and deviation of the result.
@if(!cooperative)
fn linear(source: Source, layer: Layer, net: u32, bias: u32, mean: vec4<f32>, scale: vec4<f32>, to: Target, lane: u32) -> Spread {
    var all = Spread(0.0, vec4<f32>(0.0), vec4<f32>(0.0));
    let w0 = net + layer.weights;
    var c = 0u;
    while (c < layer.outputs) {
        let left = layer.outputs - c;
        if (left > 4u) {
            for (var j = 0u; j < COLUMNS; j += 4u) {
                let b = weight(bias + (c + j) / 4u);
                tile[j] = vec4<f32>(b.x);
                tile[j + 1u] = vec4<f32>(b.y);
                tile[j + 2u] = vec4<f32>(b.z);
                tile[j + 3u] = vec4<f32>(b.w);
            }
            accumulate(source, layer.inputs, mean, scale, w0 + c / 4u, layer.stride, lane);
            var sum = vec4<f32>(0.0);
            for (var j = 0u; j < COLUMNS; j++) {
                if (j < left) {
                    tile[j] = put(to, c + j, tile[j]);
                    sum += tile[j];
                }
            }
            let count = f32(min(COLUMNS, left));
            let average = sum / count;
            var squares = vec4<f32>(0.0);
            for (var j = 0u; j < COLUMNS; j++) {
                let d = tile[j] - average;
                squares += select(vec4<f32>(0.0), d * d, j < left);
            }
            all = join(all, Spread(count, average, squares));
            c += COLUMNS;
        } else {
            let b = weight(bias + c / 4u);
            narrow[0] = vec4<f32>(b.x);
            narrow[1] = vec4<f32>(b.y);
            narrow[2] = vec4<f32>(b.z);
            narrow[3] = vec4<f32>(b.w);
            let w1 = w0 + c / 4u;
            @if(subgroup_broadcast) for (var k = 0u; k < layer.inputs; k += 8u) {
                let w = weight(w1 + (k + lane) * layer.stride);
                turn_narrow(source, k, mean, scale, subgroupBroadcast(w, 0u));
                turn_narrow(source, k + 1u, mean, scale, subgroupBroadcast(w, 1u));
                turn_narrow(source, k + 2u, mean, scale, subgroupBroadcast(w, 2u));
                turn_narrow(source, k + 3u, mean, scale, subgroupBroadcast(w, 3u));
                turn_narrow(source, k + 4u, mean, scale, subgroupBroadcast(w, 4u));
                turn_narrow(source, k + 5u, mean, scale, subgroupBroadcast(w, 5u));
                turn_narrow(source, k + 6u, mean, scale, subgroupBroadcast(w, 6u));
                turn_narrow(source, k + 7u, mean, scale, subgroupBroadcast(w, 7u));
            }
            @if(!subgroup_broadcast) for (var k = 0u; k < layer.inputs; k++) {
                turn_narrow(source, k, mean, scale, weight(w1 + k * layer.stride));
            }
            var sum = vec4<f32>(0.0);
            for (var j = 0u; j < 4u; j++) {
                if (j < left) {
                    narrow[j] = put(to, c + j, narrow[j]);
                    sum += narrow[j];
                }
            }
            let count = f32(left);
            let average = sum / count;
            var squares = vec4<f32>(0.0);
            for (var j = 0u; j < 4u; j++) {
                let d = narrow[j] - average;
                squares += select(vec4<f32>(0.0), d * d, j < left);
            }
            all = join(all, Spread(count, average, squares));
            c += 4u;
        }
    }
    return all;
}

// One row, and the invocation that has it.
struct Place {
    row: u32,
    slot: u32,
    role: u32,
    agent: u32,
    net: u32,
    // The network of the block's rows.
    first: u32,
    exists: bool,
    local: u32,
    subgroup: u32,
    lane: u32,
}

// Where the state that enters a slot lies: at multiples of the chunk it stays, those between are in passing.
@if(recurrent)
fn kept(slot: u32) -> u32 {
    return select(0u, 1u + slot / batch.chunk, slot % batch.chunk == 0u);
}

@if(recurrent)
fn state_at(at: Place, where_kept: u32, size: u32) -> u32 {
    let per_slot = batch.agents * batch.quads;
    return (where_kept * 2u + at.role) * size * per_slot + at.row % per_slot;
}

// The last observation of a truncated episode follows the state that its last step left behind.
@if(recurrent)
fn of_truncated(number: u32) -> u32 {
    return 2u + batch.steps / batch.chunk + min(number, max(batch.truncations, 1u) - 1u);
}

// Copies the state into the row: nothing where an episode begins. `t` counts the slots of this dispatch.
@if(recurrent)
fn enter(at: Place, t: u32) {
    let layer = roles[at.role].layer[roles[at.role].layers - 2u];
    let per_slot = batch.agents * batch.quads;
    let q = at.row % batch.quads;
    let to = place(at.row, batch.acts) + layer.input * TILE;
    @if(cooperative) let part = at.local / TILE;
    @if(!cooperative) let part = 0u;
    @if(cooperative) let step = PARTS;
    @if(!cooperative) let step = 1u;
    let of_end = at.slot > batch.steps;
    var ended = dones_and_masks[select((max(at.slot, 1u) - 1u) * batch.quads, batch.endings, at.slot == 0u) + q] != vec4<u32>(0u);
    ended = ended & vec4<bool>(!of_end);
    if (t == 0u) {
        let size = layer.inputs;
        let first = state_at(at, select(kept(at.slot), of_truncated(at.slot - batch.steps - 1u), of_end), size);
        for (var j = part; j < size; j += step) {
            let h = select(states[first + j * per_slot], vec4<f32>(0.0), ended);
            if (at.exists) {
                acts[to + j * TILE] = to_quad(h);
            }
        }
    } else {
        // What the head of the last slot read.
        let head_input = roles[at.role].layer[roles[at.role].layers - 1u].input;
        let last = place(max(at.row, per_slot) - per_slot, batch.acts) + head_input * TILE;
        for (var j = part; j < layer.inputs; j += step) {
            let h = select(of_quad(acts[last + j * TILE]), vec4<f32>(0.0), ended);
            if (at.exists) {
                acts[to + j * TILE] = to_quad(h);
            }
        }
    }
    @if(cooperative) storageBarrier();
}

// From the gates to the new state. Returns its mean and deviation.
@if(recurrent)
fn cell(at: Place, layer: Layer, to: u32) -> Spread {
    let acts0 = place(at.row, batch.acts);
    let per_slot = batch.agents * batch.quads;
    let size = layer.inputs;
    // Candidate, reset and update gate, and the state's share of the candidate.
    let gates = acts0 + (layer.output - size) * TILE;
    let old = acts0 + layer.input * TILE;
    @if(cooperative) let part = at.local / TILE;
    @if(!cooperative) let part = 0u;
    @if(cooperative) let step = PARTS;
    @if(!cooperative) let step = 1u;
    var all = Spread(0.0, vec4<f32>(0.0), vec4<f32>(0.0));
    for (var j = part; j < size; j += step) {
        let i = gates + j * TILE;
        let r = to_quad(sigmoid(of_quad(acts[i + size * TILE])));
        let z = to_quad(sigmoid(of_quad(acts[i + 2u * size * TILE])));
        let n = to_quad(hyperbolic(of_quad(acts[i]) + of_quad(r) * of_quad(acts[i + 3u * size * TILE])));
        let h = of_quad(acts[old + j * TILE]);
        let made = to_quad(of_quad(n) + of_quad(z) * (h - of_quad(n)));
        if (at.exists) {
            acts[i] = n;
            acts[i + size * TILE] = r;
            acts[i + 2u * size * TILE] = z;
            acts[to + j * TILE] = made;
        }
        all = join(all, Spread(1.0, of_quad(made), vec4<f32>(0.0)));
    }
    if (batch.remember == 1u && at.slot < batch.steps && at.exists) {
        let next = state_at(at, kept(at.slot + 1u), size);
        for (var j = part; j < size; j += step) {
            states[next + j * per_slot] = of_quad(acts[to + j * TILE]);
        }
        // Only critics look at what came last in a truncated episode.
        let signal = dones_and_masks[at.slot * batch.quads + at.row % batch.quads];
        if (at.role == 1u && any(signal >= vec4<u32>(2u))) {
            for (var c = 0u; c < 4u; c++) {
                if (signal[c] >= 2u) {
                    let ends = state_at(at, of_truncated(signal[c] - 2u), size);
                    for (var j = part; j < size; j += step) {
                        states[ends + j * per_slot][c] = of_quad(acts[to + j * TILE])[c];
                    }
                }
            }
        }
    }
    return all;
}

// First quad of the environments' own states in a slot.
fn states_of(slot: u32) -> u32 {
    return batch.first_state + slot * batch.state_dim * batch.quads;
}

// The whole stack for a row.
// `role` comes beside `at`: WGSL takes a structure with fields of the invocation's own as non-uniform in all of them, and
// barriers and subgroup operations need loops of uniform length.
fn stack(at: Place, role: u32) {
    let row = at.row;
    let sees = roles[role].sees;
    let seen = at.slot * batch.agents + select(at.agent, 0u, sees == ALL);
    let first = select(seen * batch.obs_dim * batch.quads, states_of(at.slot), sees == STATE);
    let acts0 = place(row, batch.acts);
    var source = Source(true, first + row % batch.quads, roles[role].layer[0].inputs);
    @if(!cooperative) var spread = observe(source);
    @if(cooperative) var spread = gather(observe_part(source, at.local / TILE), at.local);
    let layers = roles[role].layers;
    for (var l = 0u; l < layers; l++) {
        let layer = roles[role].layer[l];
        var mean = vec4<f32>(0.0);
        var scale = vec4<f32>(1.0);
        @if(recurrent) if (layer.kind == GATES_OF_STATE) {
            source = Source(false, acts0 + layer.input * TILE, layer.inputs);
        }
        if (layer.norm == 1u) {
            mean = spread.mean;
            scale = 1.0 / sqrt(spread.squares / spread.count + 1e-5);
            @if(cooperative) let owner = at.local < TILE;
            @if(!cooperative) let owner = true;
            if (batch.keep == 1u && at.exists && owner) {
                moments[layer.moments * batch.stride + row] = mean;
                moments[(layer.moments + 1u) * batch.stride + row] = scale;
            }
        }
        var to: Target;
        to.is_head = l + 1u == layers;
        to.exists = at.exists;
        to.index = acts0 + layer.output * TILE;
        to.product = acts0 + layer.made_from * TILE;
        @if(recurrent) to.kind = layer.kind;
        @if(recurrent) to.joined = select(0u, 2u * layer.inputs, layer.kind == GATES_OF_STATE);
        if (to.is_head) {
            to.index = select(batch.head_actor, batch.head_critic, role == 1u) + row;
        }
        let bias = at.net + layer.bias + select(0u, at.agent * roles[role].agent_bias, l == 0u) * layer.stride;
        @if(!cooperative) spread = linear(source, layer, at.net, bias, mean, scale, to, at.lane);
        @if(cooperative) {
            spread = linear_block(source, layer, at.first, bias, mean, scale, to, at.local, at.subgroup);
            spread = gather(spread, at.local);
            // The next layer reads what the other invocations of the quad wrote.
            storageBarrier();
        }
        source = Source(false, to.index, layer.outputs);
        @if(recurrent) if (layer.kind == GATES_OF_STATE) {
            to.index = acts0 + roles[role].layer[l + 1u].input * TILE;
            @if(!cooperative) spread = cell(at, layer, to.index);
            @if(cooperative) {
                spread = gather(cell(at, layer, to.index), at.local);
                storageBarrier();
            }
            source = Source(false, to.index, layer.inputs);
        }
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @if(subgroup_broadcast) @builtin(subgroup_invocation_id) lane: u32,
) {
    @if(!subgroup_broadcast) let lane = 0u;
    @if(cooperative) let subgroup = local / SUBGROUP;
    @if(!cooperative) let subgroup = 0u;
    @if(cooperative) let index = group.x * TILE + local % TILE;
    @if(!cooperative) let index = group.x * WG + local;
    let per_slot = batch.agents * batch.quads;
    // Sequences, when rows are walked through slot by slot.
    @if(recurrent) let count = (batch.rows / per_slot + batch.length - 1u) / batch.length * per_slot;
    @if(!recurrent) let count = batch.rows;
    @if(!subgroup_broadcast && !cooperative) if (index >= count) {
        return;
    }
    var at: Place;
    at.local = local;
    at.subgroup = subgroup;
    at.lane = lane;
    let role = batch.first_role + group.y;
    at.role = role;
    at.agent = (min(index, count - 1u) % per_slot) / batch.quads;
    at.net = roles[at.role].working + at.agent * roles[at.role].working_stride;
    // Networks of one per agent come in whole blocks.
    at.first = roles[at.role].working + (group.x * TILE % per_slot) / batch.quads * roles[at.role].working_stride;
    // A subgroup works together: rows past the end take what they find in the last one, and store nothing.
    @if(!recurrent) {
        at.row = min(index, batch.rows - 1u);
        at.exists = index < batch.rows;
        at.slot = batch.first_slot + at.row / per_slot;
        stack(at, role);
    }
    @if(recurrent) for (var t = 0u; t < batch.length; t++) {
        let row = (min(index, count - 1u) / per_slot * batch.length + t) * per_slot + index % per_slot;
        // A last, shorter chunk takes its last slot again; it has one.
        at.row = select(batch.rows - per_slot + index % per_slot, row, row < batch.rows);
        at.exists = index < count && row < batch.rows;
        at.slot = batch.first_slot + at.row / per_slot;
        enter(at, t);
        stack(at, role);
        @if(cooperative) storageBarrier();
    }
}
