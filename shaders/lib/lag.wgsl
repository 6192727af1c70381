// Template: the close of N bars ago, for lags small enough for registers.
//
// Every use is a module of its own, completed with N.

import package::lib::bar::Bar;

// The state between two dispatches, which a kernel keeps in a buffer.
struct State {
    values: array<f32, N>,
    rests: array<f32, N>,
}

// Outside of the structure: FXC assigns to no element of an array inside one.
var<private> values: array<f32, N>;
var<private> rests: array<f32, N>;

// Appends the close and returns that of N bars before.
fn push(bar: Bar) -> vec2<f32> {
    let before = vec2<f32>(values[0], rests[0]);
    for (var i = 0u; i < N - 1u; i++) {
        values[i] = values[i + 1u];
        rests[i] = rests[i + 1u];
    }
    values[N - 1u] = bar.close.x;
    rests[N - 1u] = bar.close.y;
    return before;
}
