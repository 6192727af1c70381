// Template: the last N values in a storage buffer, for windows of any length, which may differ between lanes. It has the functions of
// window.wgsl at a cost independent of N, except `spread` and loops over `value`.
//
// A window consists of the end of one block of N values and the beginning of the next (van Herk 1992; Gil and Werman 1993). Aggregates
// of all ends are computed backwards when a block is complete, those of the beginning as values arrive. Sums restart with every block,
// so that rounding errors last for two blocks at most.
//
// Every use is a module of its own, completed with N, CAPACITY (the largest N), OFFSET (of its values in a lane's memory) and the
// aggregates it needs: SUMS, SQUARES, WEIGHTS, EXTREMES.

import package::lib::numeric::is_nan;
import package::memory::{rings, lane, lanes};

struct State {
    // Number of values in the block that is being filled; 1 if there is a block before it.
    count: u32,
    before: u32,
    // The current level relative to the level of the stored values.
    level: f32,
    // Aggregates of the block that is being filled.
    sum: f32,
    squares: f32,
    weighted: f32,
    highest: f32,
    lowest: f32,
}

var<private> state: State;

const ENDS_SUM: u32 = CAPACITY;
const ENDS_SQUARES: u32 = ENDS_SUM + select(0u, CAPACITY, SUMS);
const ENDS_WEIGHTED: u32 = ENDS_SQUARES + select(0u, CAPACITY, SQUARES);
const ENDS_HIGHEST: u32 = ENDS_WEIGHTED + select(0u, CAPACITY, WEIGHTS);
const ENDS_LOWEST: u32 = ENDS_HIGHEST + select(0u, CAPACITY, EXTREMES);

fn at(i: u32) -> u32 {
    return (OFFSET + i) * lanes + lane;
}

// Aggregates of the end of the full block, from its last value on.
var<private> end: State;

// Extends the end by the value `back` places before the last one.
fn extend(back: u32) {
    if (back >= N) {
        return;
    }
    let i = N - 1u - back;
    let x = rings[at(i)] - state.level;
    rings[at(i)] = x;
    end.sum += x;
    end.squares += x * x;
    end.weighted += end.sum;
    end.highest = select(max(end.highest, x), x, back == 0u);
    end.lowest = select(min(end.lowest, x), x, back == 0u);
    if (SUMS) {
        rings[at(ENDS_SUM + i)] = end.sum;
    }
    if (SQUARES) {
        rings[at(ENDS_SQUARES + i)] = end.squares;
    }
    if (WEIGHTS) {
        rings[at(ENDS_WEIGHTED + i)] = end.weighted;
    }
    if (EXTREMES) {
        rings[at(ENDS_HIGHEST + i)] = end.highest;
        rings[at(ENDS_LOWEST + i)] = end.lowest;
    }
}

// Rebases the values of the full block to the current level and computes the aggregates of its ends.
fn close_block() {
    end = State();
    // Unrolled by eight: llvmpipe silently stops loops after 65,535 iterations.
    for (var back = 0u; back < N; back += 8u) {
        extend(back);
        extend(back + 1u);
        extend(back + 2u);
        extend(back + 3u);
        extend(back + 4u);
        extend(back + 5u);
        extend(back + 6u);
        extend(back + 7u);
    }
    state = State();
    state.before = 1u;
}

fn push(x: f32, change: f32) {
    if (is_nan(x) || is_nan(change)) {
        state = State();
        return;
    }
    // Before close_block, so that a new block is relative to its own first level.
    state.level += change;
    if (state.count == N) {
        close_block();
    }
    let value = x + state.level;
    rings[at(state.count)] = value;
    state.highest = select(max(state.highest, value), value, state.count == 0u);
    state.lowest = select(min(state.lowest, value), value, state.count == 0u);
    state.count++;
    state.sum += value;
    state.squares += value * value;
    state.weighted += f32(state.count) * value;
}

// Whether the window still contains values of the block before.
fn ends() -> bool {
    return state.before == 1u && state.count < N;
}

// Value number i, in an arbitrary order that is the same for all windows that are pushed to together.
fn value(i: u32) -> f32 {
    return rings[at(i)] - state.level;
}

fn oldest() -> f32 {
    return rings[at(select(0u, state.count, state.count < N))] - state.level;
}

fn total() -> f32 {
    var sum = state.sum;
    if (ends()) {
        sum += rings[at(ENDS_SUM + state.count)];
    }
    return sum;
}

fn sum() -> f32 {
    return total() - f32(N) * state.level;
}

fn moments() -> vec2<f32> {
    var squares = state.squares;
    if (ends()) {
        squares += rings[at(ENDS_SQUARES + state.count)];
    }
    let mean = total() / f32(N);
    return vec2<f32>(mean - state.level, max(squares / f32(N) - mean * mean, 0.0));
}

fn weighted() -> f32 {
    var sum = state.weighted;
    if (ends()) {
        sum += f32(N - state.count) * state.sum + rings[at(ENDS_WEIGHTED + state.count)];
    }
    let n = f32(N);
    return sum - 0.5 * n * (n + 1.0) * state.level;
}

fn highest() -> f32 {
    var highest = state.highest;
    if (ends()) {
        highest = max(highest, rings[at(ENDS_HIGHEST + state.count)]);
    }
    return highest - state.level;
}

fn lowest() -> f32 {
    var lowest = state.lowest;
    if (ends()) {
        lowest = min(lowest, rings[at(ENDS_LOWEST + state.count)]);
    }
    return lowest - state.level;
}

fn distance(i: u32, center: f32) -> f32 {
    return select(0.0, abs(value(min(i, N - 1u)) - center), i < N);
}

fn spread(center: f32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < N; i += 8u) {
        sum += distance(i, center) + distance(i + 1u, center) + distance(i + 2u, center) + distance(i + 3u, center);
        sum += distance(i + 4u, center) + distance(i + 5u, center) + distance(i + 6u, center) + distance(i + 7u, center);
    }
    return sum / f32(N);
}
