// Template: the greatest (HIGHEST) or least of the last N prices, in a storage buffer, for any N, which may differ between lanes.
// The cost per bar does not depend on N.
//
// The window consists of the end of one block of N prices and the beginning of the next (van Herk 1992; Gil and Werman 1993). When
// a block is complete, the extremes of all its ends replace its prices, from the last one backwards.
//
// Every use is a module of its own, completed with N, CAPACITY (the largest N), OFFSET (of its values in a lane's memory) and
// HIGHEST.

import package::lib::bar::difference;
import package::lib::numeric::is_nan;
import package::memory::{rings, lane, lanes};

struct State {
    // Number of prices in the block that is being filled; 1 if there is a block before it.
    count: u32,
    before: u32,
    // Extreme of the block that is being filled.
    value: f32,
    rest: f32,
}

var<private> state: State;

fn at(i: u32) -> u32 {
    return (OFFSET + i) * lanes + lane;
}

fn better(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return select(b, a, (difference(a, b) > 0.0) == HIGHEST);
}

fn stored(i: u32) -> vec2<f32> {
    return vec2<f32>(rings[at(i)], rings[at(CAPACITY + i)]);
}

fn keep(i: u32, price: vec2<f32>) {
    rings[at(i)] = price.x;
    rings[at(CAPACITY + i)] = price.y;
}

// Extreme of the end of the full block, from its last price on.
var<private> end: vec2<f32>;

// Extends the end by the price `back` places before the last one.
fn extend(back: u32) {
    if (back >= N) {
        return;
    }
    let i = N - 1u - back;
    end = select(better(end, stored(i)), stored(i), back == 0u);
    keep(i, end);
}

fn close_block() {
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

// Appends a price and returns the extreme of the last N.
fn push(price: vec2<f32>) -> vec2<f32> {
    if (is_nan(price.x) || is_nan(price.y)) {
        state = State();
        return price;
    }
    if (state.count == N) {
        close_block();
    }
    keep(state.count, price);
    var best = select(better(vec2<f32>(state.value, state.rest), price), price, state.count == 0u);
    state.value = best.x;
    state.rest = best.y;
    state.count++;
    if (state.before == 1u && state.count < N) {
        best = better(best, stored(state.count));
    }
    return best;
}
