// Template: the last N values, few enough to stay in registers.
//
// Every use is a module of its own, completed with N.

// An array and not a structure around one, in which FXC assigns to no element.
alias State = array<f32, N>;

var<private> state: State;

// Drivers divide slowly.
const SHARE: f32 = 1.0 / f32(N);

// Adds x. All values are measured from a level which has just risen by `change`.
fn push(x: f32, change: f32) {
    for (var i = 0u; i < N - 1u; i++) {
        state[i] = state[i + 1u] - change;
    }
    state[N - 1u] = x;
}

// The value in place i, in no particular order, but the same for all windows that are pushed to together.
fn value(i: u32) -> f32 {
    return state[i];
}

fn oldest() -> f32 {
    return state[0];
}

fn sum() -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += state[i];
    }
    return sum;
}

// Mean and population variance, in one pass about the current level.
fn moments() -> vec2<f32> {
    var sum = 0.0;
    var squares = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += state[i];
        squares += state[i] * state[i];
    }
    let mean = sum * SHARE;
    return vec2<f32>(mean, max(squares * SHARE - mean * mean, 0.0));
}

// Sum with weights 1 (the oldest) to N.
fn weighted() -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += f32(i + 1u) * state[i];
    }
    return sum;
}

fn highest() -> f32 {
    var highest = state[0];
    for (var i = 1u; i < N; i++) {
        highest = max(highest, state[i]);
    }
    return highest;
}

fn lowest() -> f32 {
    var lowest = state[0];
    for (var i = 1u; i < N; i++) {
        lowest = min(lowest, state[i]);
    }
    return lowest;
}

// Mean distance from `center`.
fn spread(center: f32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < N; i++) {
        sum += abs(state[i] - center);
    }
    return sum * SHARE;
}
