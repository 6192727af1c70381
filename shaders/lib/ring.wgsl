// Template: the last N values in a storage buffer, for windows of any length, which may differ between lanes. It has the functions of
// window.wgsl at a cost independent of N, except `spread` and loops over `value`.
//
// A window consists of the end of one block of N values and the beginning of the next (van Herk 1992; Gil and Werman 1993). Sums over
// all ends are computed backwards when a block is complete, those over the beginning as values arrive. Both are relative to the close
// at the beginning of the block and restart with every block, while the values themselves are kept as prices: a price far away affects
// the digits of sums only while the window contains it.
//
// Every use is a module of its own, completed with N, CAPACITY (the largest N), OFFSET (of its values in a lane's memory), PRICES, and
// the sums it needs: SUMS, SQUARES, WEIGHTS.

import package::lib::bar::{Bar, difference, offset};
import package::lib::numeric::is_nan;
import package::memory::{rings, lane, lanes};

struct State {
    // Number of values in the block that is being filled; 1 if there is a block before it.
    count: u32,
    before: u32,
    // The close to which sums are relative.
    base: f32,
    base_rest: f32,
    // Sums over the block that is being filled.
    sum: f32,
    squares: f32,
    weighted: f32,
}

var<private> state: State;

// The close of the last bar.
var<private> now: vec2<f32>;

const RESTS: u32 = CAPACITY;
const ENDS_SUM: u32 = RESTS + select(0u, CAPACITY, PRICES);
const ENDS_SQUARES: u32 = ENDS_SUM + select(0u, CAPACITY, SUMS);
const ENDS_WEIGHTED: u32 = ENDS_SQUARES + select(0u, CAPACITY, SQUARES);

fn at(i: u32) -> u32 {
    return (OFFSET + i) * lanes + lane;
}

fn base() -> vec2<f32> {
    return vec2<f32>(state.base, state.base_rest);
}

// Value number i, relative to `level` if it is a price.
fn relative(i: u32, level: vec2<f32>) -> f32 {
    let value = rings[at(i)];
    if (PRICES) {
        return difference(vec2<f32>(value, rings[at(RESTS + i)]), level);
    }
    return value;
}

// Sums over the end of the full block, from its last value on.
var<private> end: State;

// Extends the end by the value `back` places before the last one.
fn extend(back: u32) {
    if (back >= N) {
        return;
    }
    let i = N - 1u - back;
    let x = relative(i, now);
    end.sum += x;
    end.squares += x * x;
    end.weighted += end.sum;
    if (SUMS) {
        rings[at(ENDS_SUM + i)] = end.sum;
    }
    if (SQUARES) {
        rings[at(ENDS_SQUARES + i)] = end.squares;
    }
    if (WEIGHTS) {
        rings[at(ENDS_WEIGHTED + i)] = end.weighted;
    }
}

// Computes the sums over all ends of the full block relative to the current close.
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

fn append(value: vec2<f32>, bar: Bar) {
    now = bar.close;
    if (is_nan(value.x) || is_nan(value.y) || is_nan(now.x)) {
        state = State();
        return;
    }
    if (state.count == N) {
        close_block();
    }
    if (state.count == 0u) {
        state.base = now.x;
        state.base_rest = now.y;
    }
    rings[at(state.count)] = value.x;
    var x = value.x;
    if (PRICES) {
        rings[at(RESTS + state.count)] = value.y;
        x = difference(value, base());
    }
    state.count++;
    state.sum += x;
    state.squares += x * x;
    state.weighted += f32(state.count) * x;
}

// Appends x: a price less the close, or any other value.
fn push(x: f32, bar: Bar) {
    if (PRICES) {
        append(offset(bar.close, x), bar);
    } else {
        append(vec2<f32>(x, 0.0), bar);
    }
}

// Appends the close.
fn push_close(bar: Bar) {
    append(bar.close, bar);
}

// Whether the window still contains values of the block before.
fn ends() -> bool {
    return state.before == 1u && state.count < N;
}

// The current close relative to that of the sums.
fn level() -> f32 {
    if (PRICES) {
        return difference(now, base());
    }
    return 0.0;
}

// Value number i, in an arbitrary order that is the same for all windows that are pushed to together.
fn value(i: u32) -> f32 {
    return relative(i, now);
}

fn total() -> f32 {
    var sum = state.sum;
    if (ends()) {
        sum += rings[at(ENDS_SUM + state.count)];
    }
    return sum;
}

fn sum() -> f32 {
    return total() - f32(N) * level();
}

fn moments() -> vec2<f32> {
    var squares = state.squares;
    if (ends()) {
        squares += rings[at(ENDS_SQUARES + state.count)];
    }
    let mean = total() / f32(N);
    return vec2<f32>(mean - level(), max(squares / f32(N) - mean * mean, 0.0));
}

fn weighted() -> f32 {
    var sum = state.weighted;
    if (ends()) {
        sum += f32(N - state.count) * state.sum + rings[at(ENDS_WEIGHTED + state.count)];
    }
    let n = f32(N);
    return sum - 0.5 * n * (n + 1.0) * level();
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
