// Template: the last N values, few enough to stay in registers.
//
// Every use is a module of its own, completed with N.

struct State {
    // Oldest first.
    values: array<f32, N>,
}

var<private> state: State;

// Drivers divide slowly.
const SHARE: f32 = 1.0 / f32(N);

// Adds x. All values are measured from a level which has just risen by `change`.
fn push(x: f32, change: f32) {
    for (var i = 0u; i < N - 1u; i++) {
        state.values[i] = state.values[i + 1u] - change;
    }
    state.values[N - 1u] = x;
}

// The value in place i, in no particular order, but the same for all windows that are pushed to together.
fn value(i: u32) -> f32 {
    return state.values[i];
}

fn oldest() -> f32 {
    return state.values[0];
}

fn sum() -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += state.values[i];
    }
    return sum;
}

// Mean and population variance, in one pass about the current level.
fn moments() -> vec2<f32> {
    var sum = 0.0;
    var squares = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += state.values[i];
        squares += state.values[i] * state.values[i];
    }
    let mean = sum * SHARE;
    return vec2<f32>(mean, max(squares * SHARE - mean * mean, 0.0));
}

// Sum with weights 1 (the oldest) to N.
fn weighted() -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += f32(i + 1u) * state.values[i];
    }
    return sum;
}

fn highest() -> f32 {
    var highest = state.values[0];
    for (var i = 1u; i < N; i++) {
        highest = max(highest, state.values[i]);
    }
    return highest;
}

fn lowest() -> f32 {
    var lowest = state.values[0];
    for (var i = 1u; i < N; i++) {
        lowest = min(lowest, state.values[i]);
    }
    return lowest;
}

// Mean distance from `center`.
fn spread(center: f32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += abs(state.values[i] - center);
    }
    return sum * SHARE;
}
