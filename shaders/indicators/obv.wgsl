import package::lib::bar::Bar;
import package::memory::add_exactly;

struct State {
    // The total and its rounding error.
    total: f32,
    error: f32,
}

var<private> state: State;

fn step(bar: Bar) -> f32 {
    if (bar.trades <= 1.0) {
        state = State(bar.volume, 0.0);
    } else {
        let sum = add_exactly(vec2<f32>(state.total, state.error), sign(bar.change) * bar.volume);
        state = State(sum.x, sum.y);
    }
    return state.total;
}
