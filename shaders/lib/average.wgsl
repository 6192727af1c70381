// Template: an exponential average that starts as the mean of its first `period` values.
//
// Every use is a module of its own, completed with period, weight and `long`, which keeps what rounding takes away.

import package::memory::add_exactly;

struct State {
    value: f32,
    // What the f32 of the value could not hold: with long periods every step is a few last digits, and rounding them
    // the same way each time would be a bias.
    lost: f32,
}

var<private> state: State;

// The average after x, which is the seen-th value, counted from 1.
fn follow(x: f32, seen: f32) -> f32 {
    let rate = select(weight, 1.0 / seen, seen <= period);
    let change = (x - state.value) * rate;
    if (long) {
        let next = add_exactly(vec2<f32>(state.value, state.lost), change);
        state.value = select(next.x, x, seen <= 1.0);
        state.lost = select(next.y, 0.0, seen <= 1.0);
    } else {
        state.value = select(state.value + change, x, seen <= 1.0);
    }
    return state.value;
}

// The same for values that are measured from a level which has just risen by `change`.
fn follow_from(x: f32, change: f32, seen: f32) -> f32 {
    state.value -= change;
    return follow(x, seen);
}
