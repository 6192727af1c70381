// Template: the last N values, for windows small enough for registers.
//
// Prices are held relative to the current close. A close far away rounds them, but they leave the window before it does: an error
// is never greater than the rounding error of a price in the window.
//
// Every use is a module of its own, completed with N and PRICES.

import package::lib::bar::Bar;

// The state between two dispatches, which a kernel keeps in a buffer.
struct State {
    values: array<f32, N>,
}

// Outside of the structure: FXC assigns to no element of an array inside one.
var<private> values: array<f32, N>;

// A product, because division is slow.
const SHARE: f32 = 1.0 / f32(N);

// Appends x: a price less the close, or any other value.
fn push(x: f32, bar: Bar) {
    let change = select(0.0, bar.change, PRICES);
    for (var i = 0u; i < N - 1u; i++) {
        values[i] = values[i + 1u] - change;
    }
    values[N - 1u] = x;
}

// Appends the close.
fn push_close(bar: Bar) {
    push(0.0, bar);
}

// Value number i, in an arbitrary order that is the same for all windows that are pushed to together.
fn value(i: u32) -> f32 {
    return values[i];
}

fn sum() -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += values[i];
    }
    return sum;
}

// Mean and population variance, in one pass about the current level.
fn moments() -> vec2<f32> {
    var sum = 0.0;
    var squares = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += values[i];
        squares += values[i] * values[i];
    }
    let mean = sum * SHARE;
    return vec2<f32>(mean, max(squares * SHARE - mean * mean, 0.0));
}

// Sum with weights 1 (the oldest) to N.
fn weighted() -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += f32(i + 1u) * values[i];
    }
    return sum;
}

// Mean distance from `center`.
fn spread(center: f32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += abs(values[i] - center);
    }
    return sum * SHARE;
}
