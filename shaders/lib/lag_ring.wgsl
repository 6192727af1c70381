// Template: the close of N bars ago in a storage buffer, for any N, which may differ between lanes.
//
// Every use is a module of its own, completed with N, CAPACITY (the largest N) and OFFSET (of its values in a lane's memory).

import package::lib::bar::Bar;
import package::memory::{rings, lane, lanes};

struct State {
    next: u32,
}

var<private> state: State;

fn at(i: u32) -> u32 {
    return (OFFSET + i) * lanes + lane;
}

// Appends the close and returns that of N bars before.
fn push(bar: Bar) -> vec2<f32> {
    let i = state.next;
    let before = vec2<f32>(rings[at(i)], rings[at(CAPACITY + i)]);
    rings[at(i)] = bar.close.x;
    rings[at(CAPACITY + i)] = bar.close.y;
    state.next = select(i + 1u, 0u, i + 1u == N);
    return before;
}
