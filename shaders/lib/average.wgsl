// Template: an exponential average that starts as the mean of its first `period` values.
//
// Every use is a module of its own, completed with period, weight and `long`, which enables compensation of rounding errors and,
// for closes, holds the average as a price: one close far away would round an average that is relative to it.

import package::lib::bar::{Bar, difference};
import package::memory::add_exactly;

struct State {
    value: f32,
    // Rounding error of the value: with long periods a step changes only the last digits, and rounding them the same way each time
    // would bias the average.
    lost: f32,
}

var<private> state: State;

// The average including x, which is value number `seen`, counted from 1.
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

// The average of closes including that of the bar, which is close number `seen`; less that close.
fn follow_close(bar: Bar, seen: f32) -> f32 {
    if (!long) {
        state.value -= bar.change;
        return follow(0.0, seen);
    }
    let rate = select(weight, 1.0 / seen, seen <= period);
    let price = vec2<f32>(state.value, state.lost);
    let away = difference(bar.close, price);
    let next = add_exactly(price, away * rate);
    let first = seen <= 1.0;
    state.value = select(next.x, bar.close.x, first);
    state.lost = select(next.y, bar.close.y, first);
    return select(away * (rate - 1.0), 0.0, first);
}
